"""TartanAir v1 (https://theairlab.org/tartanair-dataset): rendered trajectories with exact depth.

    P001/image_left/NNNNNN_left.png  depth_left/NNNNNN_left_depth.npy  pose_left.txt

Depth is float32 metres; the sky and what lies beyond `far` (1000 m) is +inf. All cameras are the same: f = 320, and
c = (320, 240) for 640x480, which is the middle of the image, so our convention. A row of `pose_left.txt` is (x, y, z,
qx, qy, qz, qw), world from camera, both in NED (x forward, y right, z down): the camera's axes are turned to OpenCV's,
the world stays NED.
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
from metricanything.sources.lidar import rigid

_ORIGIN = Origin("rendered", "synthetic", "TartanAir", "CC BY 4.0")
_CAMERA = Camera.pinhole(320, 320, 320, 240, 640, 480)
#: Camera axes NED from OpenCV's: forward is z, right is x, down is y.
_NED_FROM_CV = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def items(path: Path, *, camera: str = "left", far: float = 1000.0) -> Items:
    """Frames of all trajectories at or below `path`, sorted; `camera` is "left" or "right", `far` in metres.

    Raises InputError (see `Items`) and for bad options.
    """
    path = Path(path)
    if camera not in ("left", "right"):
        raise InputError(f"source tartanair: camera {camera!r} is unknown; use left or right")
    if not far > 0:
        raise InputError(f"source tartanair: far must be a positive number of metres, got {far}")
    found = [p for p in list_images(path) if p.parent.name == f"image_{camera}"]
    load = partial(_load, path, camera, far)
    return Items(found, load, path=path, expected=f"image_{camera}/*.png with depth_{camera}/*_depth.npy")


def _load(root: Path, camera: str, far: float, file: Path) -> Frame:
    folder = file.parents[1]
    image = read_image(file)
    depth_file = require_file(folder / f"depth_{camera}" / f"{file.stem}_depth.npy", "every image needs its depth")
    depth = read_depth(depth_file)
    depth = np.where(depth >= far, np.float32(np.inf), depth)
    pose = _pose(folder / f"pose_{camera}.txt", file)
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, _CAMERA, _ORIGIN.stated(root, folder), depth_file, pose=pose)


def _pose(path: Path, file: Path) -> NDArray[np.float64] | None:
    """The row of `path` with the number that the image's name begins with."""
    number = file.stem.split("_")[0]
    if not path.is_file() or not number.isdigit():
        return None
    rows = read_numbers(path)
    if len(rows) % 7 or 7 * int(number) >= len(rows):
        raise InputError(f"{path}: has no seven numbers for frame {number}; fetch the file again")
    row = rows.reshape(-1, 7)[int(number)]
    return rigid(Rotation.from_quat(row[3:]), row[:3]) @ _NED_FROM_CV
