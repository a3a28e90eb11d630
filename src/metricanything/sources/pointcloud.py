"""Any point clouds with a camera and extrinsics: project each cloud into its image.

    images/NAME.jpg  clouds/NAME.ply|pcd|las|laz|npy|npz|bin|pcd.bin
    calibration.json, or calibration/NAME.json for each image; dataset.json

A calibration holds a camera (any form of `common.camera_from_record`) and `cam_from_points`, a 4x4 list that takes the
cloud's frame to the camera's (OpenCV axes, metres), or `points_from_cam`, its inverse; it may hold `world_from_cam`,
`sensor` (lidar by default), `source` and `licence`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs import read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import SUFFIXES, read_cloud
from metricanything.sources.common import (
    Items,
    Origin,
    camera_from_record,
    list_images,
    make_frame,
    read_dataset_record,
    read_record,
    require_file,
)
from metricanything.sources.lidar import project_cloud


def items(path: Path, *, see_through: bool = True) -> Items:
    """Frames of all images below `images/`, sorted by path, with the points of their clouds as depth.

    Where several points fall on a pixel the nearest counts; with `see_through` those that shine through a nearer
    surface are left out. Raises InputError (see `Items`).
    """
    path = Path(path)
    found = list_images(path / "images")
    expected = "images/NAME.jpg with clouds/NAME.ply|pcd|las|npy|bin and calibration.json"
    return Items(found, partial(_load, path, see_through), path=path, expected=expected)


def _load(root: Path, see_through: bool, file: Path) -> Frame:
    name = file.relative_to(root / "images").with_suffix("").as_posix()
    own = root / "calibration" / f"{name}.json"
    where = own if own.is_file() else require_file(root / "calibration.json", "it holds camera and cam_from_points")
    record = {**read_dataset_record(root), **read_record(where)}
    image = read_image(file)
    camera = camera_from_record(record, image.shape[1], image.shape[0], where)
    if camera is None:
        raise InputError(f"{where}: states no camera; add fx, fy, cx, cy")
    places = [root / "clouds" / f"{name}{suffix}" for suffix in SUFFIXES]
    cloud = next((p for p in places if p.is_file()), None)
    if cloud is None:
        raise InputError(f"{root / 'clouds' / name}: no cloud for this image; use {', '.join(SUFFIXES)}")
    depth, notes = project_cloud(read_cloud(cloud), _extrinsics(record, where), camera, see_through=see_through)
    origin = Origin("captured", record.get("sensor", "lidar"), root.resolve().name, "not stated").stated(root)
    pose = matrix(record["world_from_cam"], where) if "world_from_cam" in record else None
    return make_frame(name, image, depth, camera, origin, cloud, pose=pose, notes=notes)


def _extrinsics(record: dict[str, Any], where: Path) -> NDArray[np.float64]:
    if "cam_from_points" in record:
        return matrix(record["cam_from_points"], where)
    if "points_from_cam" in record:
        return np.asarray(np.linalg.inv(matrix(record["points_from_cam"], where)), dtype=np.float64)
    raise InputError(f"{where}: states no cam_from_points (4x4, points to camera); add it")


def matrix(value: Any, where: Path) -> NDArray[np.float64]:
    """A rigid transform (4, 4) from nested lists; InputError for anything else."""
    try:
        found = np.array(value, dtype=np.float64).reshape(4, 4)
    except (TypeError, ValueError):
        raise InputError(f"{where}: a transform must be a 4x4 list of numbers; correct the file") from None
    if not np.allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-3) or np.linalg.det(found[:3, :3]) < 0:
        raise InputError(f"{where}: a transform is no rotation and translation; correct the file")
    return found
