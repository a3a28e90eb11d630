"""ARKitScenes (https://github.com/apple/ARKitScenes): iPad LiDAR, low or high resolution.

    SCENE/lowres_wide/ID_TIME.png  lowres_depth/  confidence/  lowres_wide_intrinsics/ID_TIME.pincam  lowres_wide.traj
    SCENE/wide/  highres_depth/  wide_intrinsics/                    (the upsampling subset: depth of a laser scanner)

Depth PNG / 1000 = metres; confidence is 0, 1 or 2. A `.pincam` is w, h, fx, fy, cx, cy (first pixel centre 0: 0.5 is
added); the one nearest in time counts. A row of `.traj` is time, axis-angle and translation, camera from world. Images
are as the sensor lies, so scenes may be on their side; depth and camera are as well.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, read_numbers, require_file
from metricanything.sources.lidar import inverse, rigid
from metricanything.sources.record3d import clean

_ORIGIN = Origin("captured", "tof", "ARKitScenes", "Apple's terms (research, CC BY-NC-SA 4.0)")
_LASER = Origin("captured", "lidar", "ARKitScenes laser", "Apple's terms (research, CC BY-NC-SA 4.0)")
#: resolution -> folders of images, of depth and of intrinsics.
_FOLDERS = {
    "low": ("lowres_wide", "lowres_depth", "lowres_wide_intrinsics"),
    "high": ("wide", "highres_depth", "wide_intrinsics"),
}
_GAP = 0.05  # seconds: a camera or pose further away in time is not this frame's


def items(path: Path, *, resolution: str = "low", min_confidence: int = 1, flying: bool = True) -> Items:
    """Frames of all scenes at or below `path`, sorted; `resolution` is "low" (ToF depth) or "high" (laser depth).

    ToF pixels of a confidence below `min_confidence` and, with `flying`, those that mix foreground and background are
    removed. Raises InputError (see `Items`) and for an unknown resolution.
    """
    path = Path(path)
    if resolution not in _FOLDERS:
        raise InputError(f"source arkitscenes: resolution must be low or high, got {resolution!r}")
    images, depth, lenses = _FOLDERS[resolution]
    found = [p for p in list_images(path) if p.parent.name == images]
    load = partial(_load, path, resolution, min_confidence, flying)
    return Items(found, load, path=path, expected=f"SCENE/{images}/*.png with {depth}/*.png and {lenses}/*.pincam")


def _load(root: Path, resolution: str, min_confidence: int, flying: bool, file: Path) -> Frame:
    _, depth_folder, lens_folder = _FOLDERS[resolution]
    scene = file.parents[1]
    image = read_image(file)
    depth_file = require_file(scene / depth_folder / file.name, "every image needs its depth")
    time = _time(file)
    lenses = sorted((scene / lens_folder).glob("*.pincam"))
    nearest = min(lenses, key=lambda p: abs(_time(p) - time), default=None)
    if nearest is None or abs(_time(nearest) - time) > _GAP:
        raise InputError(f"{file}: no .pincam in {lens_folder} within {_GAP} s; leave the image out")
    width, height, fx, fy, cx, cy = read_numbers(nearest, 6)
    camera = Camera.pinhole(fx, fy, cx + 0.5, cy + 0.5, int(width), int(height))
    low = resolution == "low"
    removed: dict[str, int] = {}
    depth = read_depth(depth_file, 1000.0)
    if low:
        depth, removed = clean(depth, scene / "confidence" / file.name, min_confidence, flying)
    origin = (_ORIGIN if low else _LASER).stated(root)
    pose = _pose(scene / "lowres_wide.traj", time)
    name = f"{scene.name}/{file.parent.name}/{file.stem}"
    return make_frame(name, image, depth, camera, origin, depth_file, pose=pose, notes={"removed": removed})


def _time(path: Path) -> float:
    try:
        return float(path.stem.rsplit("_", 1)[1])
    except (IndexError, ValueError):
        raise InputError(f"{path}: is not named ID_TIME; fetch the file again") from None


def _pose(path: Path, time: float) -> NDArray[np.float64] | None:
    """World from camera at the nearest time; None without the file or further away than `_GAP`."""
    if not path.is_file():
        return None
    values = read_numbers(path)
    if len(values) == 0 or len(values) % 7:
        raise InputError(f"{path}: must be rows of 7 numbers; fetch it again")
    rows = values.reshape(-1, 7)
    row = rows[np.argmin(np.abs(rows[:, 0] - time))]
    if abs(row[0] - time) > _GAP:
        return None
    return inverse(rigid(Rotation.from_rotvec(row[1:4]), row[4:7]))
