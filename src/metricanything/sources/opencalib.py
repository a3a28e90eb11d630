"""OpenCalib (SensorsCalibration) camera–LiDAR pairs: `NAME.png` with `NAME.pcd` and two files of calibration.

    NAME.png  NAME.pcd  *camera-intrinsic.json  *lidar-to-*camera-extrinsic.json

The intrinsics are OpenCV's: K and (k1, k2, p1, p2, k3) of the distorted image, whose first pixel centre counts as 0, so
0.5 is added. The extrinsic matrix takes LiDAR points to the camera.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import read_cloud
from metricanything.sources.common import Items, Origin, list_images, make_frame, read_record
from metricanything.sources.lidar import project_cloud
from metricanything.sources.pointcloud import matrix

_ORIGIN = Origin("captured", "lidar", "OpenCalib", "Apache-2.0")


def items(path: Path, *, see_through: bool = True) -> Items:
    """Frames of all images with a cloud of the same name in `path`, sorted; filters as in `pointcloud`."""
    path = Path(path)
    found = [p for p in list_images(path) if p.with_suffix(".pcd").is_file()]
    expected = "NAME.png, NAME.pcd, *camera-intrinsic.json and *camera-extrinsic.json"
    return Items(found, partial(_load, path, see_through), path=path, expected=expected)


def _load(root: Path, see_through: bool, file: Path) -> Frame:
    image = read_image(file)
    intrinsic, where = _param(file.parent, "*camera-intrinsic.json")
    extrinsic, transform_file = _param(file.parent, "*camera-extrinsic.json")
    try:
        k = np.array(intrinsic["cam_K"]["data"], dtype=np.float64).reshape(3, 3)
        distortion = np.array(intrinsic["cam_dist"]["data"], dtype=np.float64).ravel()
        size = int(intrinsic["img_dist_w"]), int(intrinsic["img_dist_h"])
        transform = extrinsic["sensor_calib"]["data"]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: needs cam_K, cam_dist and the size, the extrinsics sensor_calib") from None
    camera = Camera.opencv(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, *size, distortion=distortion)
    cloud = file.with_suffix(".pcd")
    placed = matrix(transform, transform_file)
    depth, notes = project_cloud(read_cloud(cloud), placed, camera, see_through=see_through)
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), cloud, notes=notes)


def _param(folder: Path, glob: str) -> tuple[dict[str, Any], Path]:
    files = sorted(folder.glob(glob))
    if len(files) != 1:
        raise InputError(f"{folder}: needs exactly one {glob}; found {len(files)}")
    records = [v for v in read_record(files[0]).values() if isinstance(v, dict) and isinstance(v.get("param"), dict)]
    if len(records) != 1:
        raise InputError(f"{files[0]}: needs one entry with `param`; fetch the file again")
    return records[0]["param"], files[0]
