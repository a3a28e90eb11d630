"""TUM RGB-D sequences: `rgb.txt`, `depth.txt`, `groundtruth.txt` (https://cvg.cit.tum.de/data/datasets/rgbd-dataset).

Depth PNG / 5000 = metres, already registered to the colour image by the driver; 0 is unknown. Poses are
`timestamp tx ty tz qx qy qz qw`, world from camera. Pixel centres: the published principal points count the first
pixel's centre as 0 (OpenCV, ROS), so 0.5 is added to cx and cy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import (
    Items,
    camera_from_record,
    read_dataset_record,
    read_record,
    require_file,
    require_size,
)

_DEPTH_SCALE = 5000.0
#: Intrinsics (fx, fy, cx, cy) and distortion (k1, k2, p1, p2, k3) of the colour cameras of Freiburg 1, 2 and 3 as
#: published with the data set; the images of Freiburg 3 are undistorted already.
_PUBLISHED = {
    "fr1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "fr2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "fr3": ((535.4, 539.2, 320.1, 247.6), None),
}


@dataclass(frozen=True)
class _Item:
    rgb: Path
    depth: Path
    pose: NDArray[np.float64] | None


def items(path: Path, *, camera: Camera | str | None = None, max_gap: float = 0.02) -> Items:
    """Frames of one TUM RGB-D sequence: colour images with the depth and pose nearest in time (within `max_gap` s).

    Images without depth that close are left out, as the benchmark's own tool does, because the two streams run at
    slightly different rates; an image without a pose that close has none. `camera` is a Camera or "fr1", "fr2", "fr3";
    without it, `camera.json` in the folder counts, then `freiburg1|2|3` in its path. Raises InputError when none of
    these tells the camera.
    """
    if not max_gap >= 0:
        raise InputError(f"source tum: max_gap must be a number of seconds from 0, got {max_gap}")
    path = Path(path)
    rgb_times, rgb_names = _read_list(path / "rgb.txt")
    depth_times, depth_names = _read_list(path / "depth.txt")
    pose_times, poses = _read_trajectory(path / "groundtruth.txt")
    to_depth = associate(rgb_times, depth_times, max_gap)
    to_pose = nearest(rgb_times, pose_times, max_gap)
    found = [
        _Item(path / name, path / depth_names[d], poses[p] if p >= 0 else None)
        for name, d, p in zip(rgb_names, to_depth, to_pose, strict=True)
        if d >= 0
    ]
    load = partial(_load, path, _choose_camera(path, camera))
    return Items(found, load, path=path, expected=f"rgb.txt and depth.txt with times {max_gap:g} s apart")


def _load(path: Path, camera: Camera, item: _Item) -> Frame:
    record = read_dataset_record(path)
    image, depth = read_image(item.rgb), read_depth(item.depth, _DEPTH_SCALE)
    require_size(item.rgb, image, camera.width, camera.height, "its camera")
    require_size(item.depth, depth, camera.width, camera.height, "its colour image")
    return Frame(
        name=f"{path.resolve().name}/{item.rgb.stem}",
        image=image,
        depth=depth,
        camera=camera,
        kind="captured",
        sensor="rgbd",
        source=str(record.get("source", "TUM RGB-D")),
        licence=str(record.get("licence", "CC BY 4.0")),
        world_from_cam=item.pose,
    )


# ---------------------------------------------------------------- time


def nearest(times: NDArray[np.float64], others: NDArray[np.float64], max_gap: float) -> NDArray[np.int64]:
    """Index (N,) into `others` (M,) of the time nearest to each of `times` (N,), seconds; -1 beyond `max_gap`."""
    if len(others) == 0:
        return np.full(len(times), -1)
    order = np.argsort(others, kind="stable")
    after = np.clip(np.searchsorted(others[order], times), 1, max(len(others) - 1, 1))
    pair = order[np.minimum(np.stack([after - 1, after]), len(others) - 1)]
    gaps = np.abs(others[pair] - times)
    best = np.where(gaps[0] <= gaps[1], pair[0], pair[1])
    return np.where(gaps.min(axis=0) <= max_gap, best, -1)


def associate(times: NDArray[np.float64], others: NDArray[np.float64], max_gap: float) -> NDArray[np.int64]:
    """As `nearest`, but one to one: a pair counts only when each is the other's nearest; -1 for the rest."""
    there, back = nearest(times, others, max_gap), nearest(others, times, max_gap)
    mutual = np.append(back, -1)[there] == np.arange(len(times))  # the appended -1 is what index -1 finds
    return np.where(mutual, there, -1)


# ---------------------------------------------------------------- files


def _rows(path: Path) -> list[list[str]]:
    require_file(path, "expected a TUM RGB-D sequence (rgb.txt, depth.txt)")
    with reading(path, "UTF-8 text file"):
        text = path.read_text(encoding="utf-8")
    return [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]


def _read_list(path: Path) -> tuple[NDArray[np.float64], list[str]]:
    rows = _rows(path)
    try:
        return np.array([float(time) for time, _ in rows], dtype=np.float64), [name for _, name in rows]
    except ValueError:
        raise InputError(f"{path}: lines must be `timestamp filename`; correct the file") from None


def _read_trajectory(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (N,) and poses (N, 4, 4) world from camera; none without the file."""
    if not path.is_file():
        return np.empty(0), np.empty((0, 4, 4))
    rows = _rows(path)
    try:
        values = np.array(rows, dtype=np.float64).reshape(-1, 8)
    except ValueError:
        raise InputError(f"{path}: lines must be `timestamp tx ty tz qx qy qz qw`; correct the file") from None
    if not np.isfinite(values).all() or (np.linalg.norm(values[:, 4:], axis=1) < 1e-6).any():
        raise InputError(f"{path}: holds poses that are not finite or have a zero quaternion; remove these lines")
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    poses[:, :3, 3] = values[:, 1:4]
    if len(values):
        poses[:, :3, :3] = Rotation.from_quat(values[:, 4:]).as_matrix()  # x, y, z, w; any length
    return values[:, 0], poses


def _choose_camera(path: Path, camera: Camera | str | None) -> Camera:
    """The camera of the sequence: given > camera.json > the folder's name."""
    if isinstance(camera, Camera):
        return camera
    if camera is None and (path / "camera.json").is_file():
        where = path / "camera.json"
        record = read_record(where)
        if (
            given := camera_from_record(record, record.get("width", 640), record.get("height", 480), where)
        ) is not None:
            return given
    if camera is not None:
        if camera not in _PUBLISHED:
            raise InputError(f"source tum: camera {camera!r} is unknown; use one of {', '.join(_PUBLISHED)}")
        names = [camera]
    else:
        names = [key for key in _PUBLISHED if f"freiburg{key[2]}" in str(path.resolve())]
    if len(names) != 1:
        raise InputError(
            f"{path}: cannot tell the camera; give camera=fr1, fr2 or fr3 (--option camera=fr1), or write camera.json "
            "(fx, fy, cx, cy)"
        )
    (fx, fy, cx, cy), distortion = _PUBLISHED[names[0]]
    if distortion is None:
        return Camera.pinhole(fx, fy, cx + 0.5, cy + 0.5, 640, 480)
    return Camera.opencv(fx, fy, cx + 0.5, cy + 0.5, 640, 480, distortion=distortion)
