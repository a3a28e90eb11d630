"""nerfstudio and instant-ngp `transforms.json` with depth maps (https://docs.nerf.studio/quickstart/data_conventions.html).

A frame has `file_path`, `depth_file_path` and `transform_matrix` (world from camera with OpenGL's axes); `fl_x, fl_y,
cx, cy, w, h` and the distortion `k1 … k4, p1, p2` stand in the frame or for all; `camera_model` is PINHOLE, OPENCV or
OPENCV_FISHEYE. Depth of whole numbers times `depth_unit_scale_factor` (0.001) are units of the scene; 0 is unknown.
Pixel centres: the first is at (0.5, 0.5) (Cameras.get_image_coords), which is ours. The file does not say whether the
scene is in metres: the option `metric` does.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, cv_from_gl, make_frame, read_record, require_file

_PINHOLE, _OPENCV, _FISHEYE = ("PINHOLE", "SIMPLE_PINHOLE"), ("OPENCV", "RADIAL", "SIMPLE_RADIAL"), "OPENCV_FISHEYE"


def items(path: Path, *, metric: bool = False, sensor: str = "rgbd") -> Items:
    """Frames of `transforms.json` that name a depth map, in its order.

    `metric` declares the scene to be in metres, as captures of phones with LiDAR are; else depth is up to scale.
    `sensor` says where the depth is from. Raises InputError (see `Items`) and for a malformed file.
    """
    path = Path(path)
    record = read_record(require_file(path / "transforms.json", "expected transforms.json with depth_file_path"))
    frames = record.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise InputError(f"{path / 'transforms.json'}: needs frames, a list of objects; write it again")
    shared = {name: value for name, value in record.items() if name != "frames"}
    found = [{**shared, **frame} for frame in frames if frame.get("depth_file_path")]
    kind: Any = {"synthetic": "rendered", "sfm": "reconstructed", "mvs": "reconstructed", "slam": "reconstructed"}.get(
        sensor, "captured"
    )
    any_sensor: Any = sensor
    source = path.resolve().name
    origin = Origin(kind, any_sensor, source, "not stated", "metric" if metric else "up_to_scale").stated(path)
    return Items(found, partial(_load, path, origin), path=path, expected="transforms.json with depth_file_path")


def _load(root: Path, origin: Origin, record: dict[str, Any]) -> Frame:
    where = root / "transforms.json"
    try:
        file, depth_file = root / record["file_path"], root / record["depth_file_path"]
        pose = np.array(record["transform_matrix"], dtype=np.float64).reshape(4, 4)
        unit = float(record.get("depth_unit_scale_factor", 1e-3))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: a frame needs file_path and transform_matrix (4x4); write it again") from None
    image = read_image(require_file(file, "transforms.json names this image"))
    scale = 1 / unit if depth_file.suffix.lower() == ".png" else None
    depth = read_depth(require_file(depth_file, "transforms.json names this depth map"), scale)
    camera = camera_of(record, image.shape[1], image.shape[0], where)
    name = Path(record["file_path"]).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, origin, depth_file, pose=cv_from_gl(pose))


def camera_of(record: dict[str, Any], width: int, height: int, where: Path) -> Camera:
    """The camera of a frame's record, for an image of `width` x `height` where none is stated; else InputError."""
    try:
        fx = float(record["fl_x"])
        numbers = (fx, float(record.get("fl_y", fx)), float(record["cx"]), float(record["cy"]))
        size = int(record.get("w", width)), int(record.get("h", height))
        k1, k2, k3, k4, p1, p2 = (float(record.get(name, 0.0)) for name in ("k1", "k2", "k3", "k4", "p1", "p2"))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: a camera needs fl_x, fl_y, cx and cy as numbers; write it again") from None
    model = record.get("camera_model", "OPENCV")
    if model == _FISHEYE:
        return Camera.kannala_brandt(*numbers, *size, distortion=(k1, k2, k3, k4))
    if model in _OPENCV and any((k1, k2, k3, p1, p2)):
        return Camera.opencv(*numbers, *size, distortion=(k1, k2, p1, p2, k3))
    if model in _OPENCV or model in _PINHOLE:
        return Camera.pinhole(*numbers, *size)
    raise InputError(f"{where}: camera_model {model!r} is not supported; use PINHOLE, OPENCV or {_FISHEYE}")
