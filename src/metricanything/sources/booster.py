"""Booster stereo (https://cvlab-unibo.github.io/booster-web): transparent and mirroring things, 12 megapixels.

    SCENE/camera_00/*.png  disp_00.npy  mask_00.png  calib_00-02.xml

Z = fx · baselineLR / d, baseline in millimetres, disparity in pixels, 0 unknown; `mask_00.png` is 0 where it does not
count. `calib_00-02.xml` is OpenCV's FileStorage with `mtxL` (first pixel centre 0: 0.5 is added) and `baselineLR`. All
illuminations in `camera_00` share the disparity.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image, read_npy
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, require_file, require_size
from metricanything.sources.filters import drop
from metricanything.sources.middlebury import depth_of

_ORIGIN = Origin("captured", "stereo", "Booster", "CC BY-NC-SA 4.0")


def items(path: Path, *, illuminations: bool = True) -> Items:
    """The left views of all scenes at or below `path`, sorted; without `illuminations` only the first of each scene.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in list_images(path) if p.parent.name == "camera_00" and (p.parents[1] / "disp_00.npy").is_file()]
    if not illuminations:
        found = [p for n, p in enumerate(found) if n == 0 or p.parent != found[n - 1].parent]
    expected = "SCENE/camera_00/*.png with disp_00.npy and calib_00-02.xml"
    return Items(found, partial(_load, path), path=path, expected=expected)


def _load(root: Path, file: Path) -> Frame:
    scene = file.parents[1]
    image = read_image(file)
    where = require_file(scene / "calib_00-02.xml", "it holds camera and baseline")
    k, baseline = _calibration(where)
    disparity_file = scene / "disp_00.npy"
    depth = depth_of(read_npy(disparity_file), k[0, 0] * baseline / 1000, 0.0)
    bad = {}
    if (scene / "mask_00.png").is_file():
        with reading(scene / "mask_00.png", "mask"), Image.open(scene / "mask_00.png") as picture:
            mask = np.asarray(picture.convert("L"))
        require_size(scene / "mask_00.png", mask, depth.shape[1], depth.shape[0], "its disparity map")
        bad["mask"] = mask == 0
    depth, removed = drop(depth, **bad)
    camera = Camera.pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, image.shape[1], image.shape[0])
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), disparity_file, notes={"removed": removed})


def _calibration(path: Path) -> tuple[NDArray[np.float64], float]:
    with reading(path, "OpenCV calibration"):
        tree = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        data, baseline = tree.findtext("mtxL/data"), tree.findtext("baselineLR")
        if data is None or baseline is None:
            raise InputError(f"{path}: needs mtxL and baselineLR; fetch it again")
        numbers = [float(v) for v in (tree.findtext("baselineLR/data") or baseline).split()]
        return np.array(data.split(), dtype=np.float64).reshape(3, 3), abs(numbers[0])
