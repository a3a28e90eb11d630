"""Record3D exports of iPhone and iPad LiDAR: `rgb/N.jpg`, `depth/N.exr`, `metadata.json` (https://record3d.app).

Depth is float metres on the sensor's small grid (256x192), of the same view as the image; `conf/N.png`, where there is
one, holds 0, 1 or 2. `K` is stored column by column for images of `w` x `h` pixels, `poses` are (qx, qy, qz, qw, x, y,
z), world from camera with OpenGL's axes, one for each frame number. ARKit, where K comes from, counts the first pixel's
centre as 0: 0.5 is added. Archives that were not exported are read by `r3d`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import (
    Items,
    Origin,
    cv_from_gl,
    list_images,
    make_frame,
    read_record,
    require_file,
)
from metricanything.sources.filters import clean_tof
from metricanything.sources.lidar import rigid

_ORIGIN = Origin("captured", "tof", "Record3D", "not stated")


def items(path: Path, *, min_confidence: int = 1, flying: bool = True) -> Items:
    """Frames of one export, sorted by number; pixels of a confidence below `min_confidence` (0 to 2) are removed.

    With `flying` (the default), so are those that mix foreground and background. Raises InputError (see `Items`).
    """
    path = Path(path)
    found = sorted(list_images(path / "rgb"), key=lambda p: (len(p.stem), p.stem))
    load = partial(_load, path, min_confidence, flying)
    return Items(found, load, path=path, expected="rgb/N.jpg, depth/N.exr and metadata.json")


def _load(root: Path, min_confidence: int, flying: bool, file: Path) -> Frame:
    where = root / "metadata.json"
    record = read_record(where)
    image = read_image(file)
    depth_file = require_file(root / "depth" / f"{file.stem}.exr", "every image needs its depth; export it again")
    camera, pose = geometry(record, where, file.stem)
    confidence = root / "conf" / f"{file.stem}.png"
    depth, removed = clean(read_depth(depth_file), confidence, min_confidence, flying)
    origin = _ORIGIN.stated(root)
    name = f"{root.resolve().name}/{file.stem}"
    return make_frame(name, image, depth, camera, origin, depth_file, pose=pose, notes={"removed": removed})


def clean(
    depth: NDArray[np.float32], confidence: Path, min_confidence: int, flying: bool
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Depth (h, w) of a ToF sensor without pixels of low confidence (where the file is there) and flying ones."""
    if not confidence.is_file():
        return clean_tof(depth, None, min_confidence, flying)
    with reading(confidence, "confidence map"), Image.open(confidence) as picture:
        values = np.asarray(picture)
    if values.shape != depth.shape:
        raise InputError(f"{confidence}: has another size than its depth map; give the files that belong together")
    return clean_tof(depth, values, min_confidence, flying)


def geometry(record: dict[str, Any], where: Path, number: str) -> tuple[Camera, NDArray[np.float64] | None]:
    """The camera, and the pose of the frame of this number where there is one, from an export's metadata.

    Newer exports state fx, fy, cx, cy of every frame (autofocus changes them), which go before K.
    """
    try:
        fx, _, _, _, fy, _, cx, cy, _ = record["K"]
        each = record.get("perFrameIntrinsicCoeffs") or []
        if number.isdigit() and int(number) < len(each):
            fx, fy, cx, cy = each[int(number)]
        camera = Camera.pinhole(fx, fy, cx + 0.5, cy + 0.5, record["w"], record["h"])
        poses = record.get("poses", [])
        if not number.isdigit() or int(number) >= len(poses):
            return camera, None
        pose = np.array(poses[int(number)], dtype=np.float64)
        return camera, cv_from_gl(rigid(Rotation.from_quat(pose[:4]), pose[4:7]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: needs K (9 numbers), w, h and poses ({error}); export it again") from None
