"""nuScenes (https://www.nuscenes.org/nuscenes#data-format): six cameras with LiDAR or radar, read from its tables.

    v1.0-*/{scene,sample,sample_data,calibrated_sensor,sensor,ego_pose}.json  samples/  sweeps/

A point goes sensor → ego → world at the time of its sweep, then world → ego → camera at the time of the image: the two
ego poses differ. Quaternions are (w, x, y, z). Images are undistorted already. Principal points count the first pixel's
centre as 0 (the devkit draws them so with matplotlib): 0.5 is added. A LiDAR file holds float32 (x, y, z, intensity,
ring); a radar file is a PCD of 18 fields whose height means nothing: radar frames say so in their notes.
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
from metricanything.core.files import read_json
from metricanything.core.frame import Frame
from metricanything.sources.clouds import read_columns, read_pcd
from metricanything.sources.common import Items, Origin, make_frame, require_file
from metricanything.sources.filters import ghost_points
from metricanything.sources.lidar import project_cloud, rigid_wxyz

_ORIGIN = {
    "lidar": Origin("captured", "lidar", "nuScenes", "CC BY-NC-SA 4.0"),
    "radar": Origin("captured", "radar", "nuScenes radar", "CC BY-NC-SA 4.0"),
}
_OWN_CAR = 1.0  # metres: returns this close along both axes of the LiDAR are from the car's roof (the devkit's rule)
#: The radar nearest to the view of each camera.
_RADARS = {
    "CAM_FRONT": ("RADAR_FRONT",),
    "CAM_FRONT_LEFT": ("RADAR_FRONT_LEFT", "RADAR_FRONT"),
    "CAM_FRONT_RIGHT": ("RADAR_FRONT_RIGHT", "RADAR_FRONT"),
    "CAM_BACK_LEFT": ("RADAR_BACK_LEFT",),
    "CAM_BACK_RIGHT": ("RADAR_BACK_RIGHT",),
    "CAM_BACK": ("RADAR_BACK_LEFT", "RADAR_BACK_RIGHT"),
}


@dataclass(frozen=True)
class _Sweep:
    file: Path
    world_from_sensor: NDArray[np.float64]


@dataclass(frozen=True)
class _Item:
    """One image and the sweeps that are its depth, of each sensor the one of the same sample first."""

    name: str
    image: Path
    camera: Camera
    world_from_cam: NDArray[np.float64]
    sweeps: tuple[_Sweep, ...]


def items(path: Path, *, sensor: str = "lidar", camera: str | None = None, sweeps: int = 1) -> Items:
    """Frames of the key frames of all cameras (of one, such as CAM_FRONT, where it is given), sorted by name.

    `sensor` is "lidar" or "radar". With `sweeps` > 1 so many sweeps, going back from the key frame, are moved by the
    car's motion into it; of LiDAR, points where the key frame saw free space are removed (`ghost_points`), then those
    that shine through nearer surfaces. Of radar, the devkit's default filters apply: valid returns (invalid_state 0)
    with a known motion (dynprop 0 to 6) and an unambiguous speed (ambig_state 3). Raises InputError (see `Items`), for
    a bad option and for tables that are missing or contradict each other.
    """
    path = Path(path)
    if sensor not in _ORIGIN:
        raise InputError(f"source nuscenes: sensor {sensor!r} is unknown; use lidar or radar")
    if sweeps < 1:
        raise InputError(f"source nuscenes: sweeps must be at least 1, got {sweeps}")
    versions = sorted(p.parent for p in path.glob("v1.0-*/sample_data.json"))
    found = [item for tables in versions for item in _listing(path, tables, sensor, camera, sweeps)]
    expected = "v1.0-*/sample_data.json and the other tables, samples/ and sweeps/"
    return Items(sorted(found, key=lambda item: item.name), partial(_load, path, sensor), path=path, expected=expected)


def _listing(root: Path, tables: Path, sensor: str, only: str | None, sweeps: int) -> list[_Item]:
    with reading(tables, "set of nuScenes tables"):
        scene, sample, sensors, calibrated, ego, data = (
            {row["token"]: row for row in read_json(tables / f"{name}.json")}
            for name in ("scene", "sample", "sensor", "calibrated_sensor", "ego_pose", "sample_data")
        )
        channel = {token: sensors[row["sensor_token"]]["channel"] for token, row in calibrated.items()}
        keys: dict[str, dict[str, Any]] = {}  # sample -> channel -> its key frame
        for row in data.values():
            if row["is_key_frame"]:
                keys.setdefault(row["sample_token"], {})[channel[row["calibrated_sensor_token"]]] = row

        def pose(row: dict[str, Any]) -> NDArray[np.float64]:
            steps = ego[row["ego_pose_token"]], calibrated[row["calibrated_sensor_token"]]
            world_from_ego, ego_from_sensor = (rigid_wxyz(s["rotation"], s["translation"]) for s in steps)
            return world_from_ego @ ego_from_sensor

        def back(row: dict[str, Any] | None) -> list[_Sweep]:
            taken: list[_Sweep] = []
            while row is not None and len(taken) < sweeps:
                taken.append(_Sweep(root / row["filename"], pose(row)))
                row = data.get(row["prev"])
            return taken

        found = []
        for token, rows in keys.items():
            for name, row in rows.items():
                if not name.startswith("CAM") or only not in (None, name):
                    continue
                wanted = ("LIDAR_TOP",) if sensor == "lidar" else _RADARS.get(name, ())
                seen = tuple(sweep for w in wanted for sweep in back(rows.get(w)))
                k = calibrated[row["calibrated_sensor_token"]]["camera_intrinsic"]
                size = int(row["width"]), int(row["height"])
                lens = Camera.pinhole(k[0][0], k[1][1], k[0][2] + 0.5, k[1][2] + 0.5, *size)
                label = f"{scene[sample[token]['scene_token']]['name']}/{name}/{Path(row['filename']).stem}"
                found.append(_Item(label, root / row["filename"], lens, pose(row), seen))
        return found


def _load(root: Path, sensor: str, item: _Item) -> Frame:
    image = read_image(require_file(item.image, "the tables name this image"))
    if not item.sweeps:
        raise InputError(f"{item.image}: its sample has no {sensor} sweep; leave it out")
    first = item.sweeps[0]
    clouds: list[NDArray[np.float64]] = []
    ghosts = 0
    for sweep in item.sweeps:
        points = _points(sweep.file, sensor)
        if sweep is not first:
            moved = np.linalg.inv(first.world_from_sensor) @ sweep.world_from_sensor
            points = points @ moved[:3, :3].T + moved[:3, 3]
            if sensor == "lidar":
                bad = ghost_points(points, clouds[0])
                ghosts, points = ghosts + int(bad.sum()), points[~bad]
        clouds.append(points)
    cam_from_first = np.linalg.inv(item.world_from_cam) @ first.world_from_sensor
    lidar = sensor == "lidar"
    depth, notes = project_cloud(np.concatenate(clouds), cam_from_first, item.camera, see_through=lidar)
    if not lidar:
        notes["height"] = "unknown"
    elif len(clouds) > 1:
        notes["removed"]["ghosts"] = ghosts
    origin = _ORIGIN[sensor].stated(root)
    return make_frame(item.name, image, depth, item.camera, origin, first.file, pose=item.world_from_cam, notes=notes)


def _points(file: Path, sensor: str) -> NDArray[np.float64]:
    """Points (N, 3) of a sweep in the sensor's frame, without the own car or invalid returns."""
    require_file(file, "the tables name this sweep")
    if sensor == "lidar":
        xyz = read_columns(file, 5)[:, :3].astype(np.float64)
        return xyz[(np.abs(xyz[:, :2]) >= _OWN_CAR).any(axis=1)]
    values = read_pcd(file, ("x", "y", "z", "invalid_state", "dyn_prop", "ambig_state"))
    invalid, motion, ambiguous = values[:, 3:].T
    return values[(invalid == 0) & (motion >= 0) & (motion <= 6) & (ambiguous == 3), :3]
