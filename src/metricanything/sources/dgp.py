"""DGP scenes, such as DDAD (https://github.com/TRI-ML/dgp): cameras and LiDAR with poses of both.

    SCENE/scene_*.json  calibration/*.json  rgb/CAMERA/*.jpg  point_cloud/LIDAR/*.npz

Every datum states `world_from_sensor` at its own time, so a point goes LiDAR → world → camera, with the motion
between the two exposures in it. The cloud is `data` (N, 4): x, y, z in metres and intensity. Principal points count
the first pixel's centre as 0 (OpenCV): 0.5 is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import read_cloud
from metricanything.sources.common import Items, Origin, make_frame, read_record, require_file
from metricanything.sources.filters import ghost_points
from metricanything.sources.lidar import project_cloud, rigid_wxyz

_ORIGIN = Origin("captured", "lidar", "DDAD", "CC BY-NC-SA 4.0")


@dataclass(frozen=True)
class _Item:
    """One image with the clouds of its sample and of its neighbours in time, nearest first."""

    scene: Path
    name: str
    image: dict[str, Any]
    clouds: tuple[dict[str, Any], ...]
    intrinsics: dict[str, float]


def items(path: Path, *, sweeps: int = 1, camera: str | None = None) -> Items:
    """Frames of the images of all scenes at or below `path` (of one `camera`, such as CAMERA_01, where it is given).

    Depth is the LiDAR sweep of the same sample or, with `sweeps` > 1, so many of the nearest samples moved by the
    poses, without what has moved in between (`ghost_points`). Points that shine through are left out. Raises InputError
    (see `Items`) and for scenes that are malformed.
    """
    path = Path(path)
    if sweeps < 1:
        raise InputError(f"source dgp: sweeps must be at least 1, got {sweeps}")
    found = [item for scene in sorted(path.rglob("scene_*.json")) for item in _scene(scene, sweeps, camera)]
    expected = "SCENE/scene_*.json with calibration/, rgb/ and point_cloud/"
    return Items(found, partial(_load, path), path=path, expected=expected)


def _scene(file: Path, sweeps: int, only: str | None) -> list[_Item]:
    record = read_record(file)
    if "samples" not in record:
        return []  # scene_dataset_*.json lists the scenes
    with reading(file, "DGP scene"):
        data = {entry["key"]: entry for entry in record["data"]}
        samples = [[data[key] for key in sample["datum_keys"] if key in data] for sample in record["samples"]]
        clouds = [[e["datum"]["point_cloud"] for e in sample if "point_cloud" in e["datum"]] for sample in samples]
        found = []
        for n, (sample, entries) in enumerate(zip(record["samples"], samples, strict=True)):
            calibration = read_record(file.parent / "calibration" / f"{sample['calibration_key']}.json")
            intrinsics = dict(zip(calibration["names"], calibration["intrinsics"], strict=True))
            near = sorted(range(len(samples)), key=lambda k: (abs(k - n), k))[:sweeps]
            for entry in entries:
                name = entry["id"]["name"]
                if "image" in entry["datum"] and only in (None, name):
                    seen = tuple(cloud for k in near for cloud in clouds[k])
                    label = f"{file.parent.name}/{name}/{Path(entry['datum']['image']['filename']).stem}"
                    found.append(_Item(file.parent, label, entry["datum"]["image"], seen, intrinsics[name]))
        return sorted(found, key=lambda item: item.name)


def _load(root: Path, item: _Item) -> Frame:
    if not item.clouds:
        raise InputError(f"{item.scene}: sample of {item.image['filename']} has no point cloud; leave it out")
    image_file = item.scene / item.image["filename"]
    image = read_image(require_file(image_file, "the scene names this image"))
    with reading(image_file, "DGP record of an image"):
        camera = _camera(item.intrinsics, int(item.image["width"]), int(item.image["height"]))
        world_from_cam = _pose(item.image["pose"])
        poses = [_pose(cloud["pose"]) for cloud in item.clouds]
    files = [item.scene / cloud["filename"] for cloud in item.clouds]
    reference = read_cloud(require_file(files[0], "the scene names this cloud"))
    points, ghosts = [reference], 0
    for file, pose in zip(files[1:], poses[1:], strict=True):
        moved = np.linalg.inv(poses[0]) @ pose
        other = read_cloud(require_file(file, "the scene names this cloud")) @ moved[:3, :3].T + moved[:3, 3]
        bad = ghost_points(other, reference)
        ghosts += int(bad.sum())
        points.append(other[~bad])
    cam_from_lidar = np.linalg.inv(world_from_cam) @ poses[0]
    depth, notes = project_cloud(np.concatenate(points), cam_from_lidar, camera)
    if len(files) > 1:
        notes["removed"]["ghosts"] = ghosts
    return make_frame(item.name, image, depth, camera, _ORIGIN.stated(root), files[0], pose=world_from_cam, notes=notes)


def _pose(record: dict[str, Any]) -> NDArray[np.float64]:
    q, t = record["rotation"], record["translation"]
    return rigid_wxyz([q["qw"], q["qx"], q["qy"], q["qz"]], [t["x"], t["y"], t["z"]])


def _camera(k: dict[str, float], width: int, height: int) -> Camera:
    size = k["fx"], k["fy"], k["cx"] + 0.5, k["cy"] + 0.5, width, height
    lens = [float(k.get(name, 0.0)) for name in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")]
    if k.get("fisheye"):
        return Camera.kannala_brandt(*size, distortion=(lens[0], lens[1], lens[4], lens[5]))
    return Camera.opencv(*size, distortion=lens) if any(lens) else Camera.pinhole(*size)
