"""Open3D recorder folders and Redwood scenes: `color/`, `depth/` in order, `camera_intrinsic.json`, `trajectory.log`.

Depth PNG / 1000 = metres, registered to the colour image. `intrinsic_matrix` is stored column by column; without the
file the camera is Open3D's PrimeSense default, which Redwood uses: f = 525, c = (319.5, 239.5) for 640x480. Open3D
counts the first pixel's centre as 0: 0.5 is added. A block of `trajectory.log` is a line of three numbers and a 4x4
matrix, world from camera (http://redwood-data.org/indoor/fileformat.html).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, read_numbers, read_record

_ORIGIN = Origin("captured", "rgbd", "Open3D RGB-D", "not stated")


def items(path: Path, *, depth_scale: float = 1000.0) -> Items:
    """Frames of one folder: the images of `color/` and `depth/` in order, which have to be as many.

    `depth_scale` is in stored values per metre. Raises InputError (see `Items`) and for lists of different length.
    """
    path = Path(path)
    if not depth_scale > 0:
        raise InputError(f"source open3d_rgbd: depth_scale must be a positive number, got {depth_scale}")
    colour, depth = (list_images(path / name) for name in ("color", "depth"))
    if len(colour) != len(depth):
        raise InputError(f"{path}: has {len(colour)} files in color and {len(depth)} in depth; they go in pairs")
    found = list(enumerate(zip(colour, depth, strict=True)))
    load = partial(_load, path, depth_scale)
    return Items(found, load, path=path, expected="color/*.jpg, depth/*.png and camera_intrinsic.json")


def _load(root: Path, scale: float, item: tuple[int, tuple[Path, Path]]) -> Frame:
    number, (colour, depth_file) = item
    image = read_image(colour)
    pose = _pose(root / "trajectory.log", number)
    name = f"{root.resolve().name}/{colour.stem}"
    depth = read_depth(depth_file, scale)
    return make_frame(name, image, depth, _camera(root), _ORIGIN.stated(root), depth_file, pose=pose)


def _camera(root: Path) -> Camera:
    path = root / "camera_intrinsic.json"
    if not path.is_file():
        return Camera.pinhole(525, 525, 320, 240, 640, 480)
    record = read_record(path)
    try:
        fx, _, _, _, fy, _, cx, cy, _ = record["intrinsic_matrix"]
        return Camera.pinhole(fx, fy, cx + 0.5, cy + 0.5, record["width"], record["height"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: needs intrinsic_matrix (9 numbers), width and height; record it again") from None


def _pose(path: Path, number: int) -> NDArray[np.float64] | None:
    """The pose (4, 4) of a frame, or None without the file or beyond its end."""
    if not path.is_file():
        return None
    values = read_numbers(path)
    if len(values) % 19:
        raise InputError(f"{path}: must be blocks of 3 + 16 numbers; fetch the file again")
    blocks = values.reshape(-1, 19)
    return blocks[number, 3:].reshape(4, 4) if number < len(blocks) else None
