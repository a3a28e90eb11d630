"""Small data sets of cameras with LiDAR or radar, written from the published layouts; see source_fixtures.py."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation
from source_fixtures import (
    FRAMES,
    HEIGHT,
    KITTI_P,
    KITTI_R,
    KITTI_RECT,
    KITTI_T,
    WIDTH,
    Fixture,
    build_kitti_raw,
    depth_png,
    kitti_drive,
    kitti_points,
    noise_image,
    ramp,
    write_json,
)

#: A LiDAR with x forward, y left, z up, above a camera that looks forward.
CAM_FROM_LIDAR = np.array([[0, -1.0, 0, 0.1], [0, 0, -1.0, -0.2], [1.0, 0, 0, -0.3], [0, 0, 0, 1]])


def write_columns(path: Path, points: np.ndarray, columns: int) -> None:
    """Rows of float32: x, y, z and as many zeros as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rest = [0.0] * (columns - 3)
    path.write_bytes(b"".join(struct.pack(f"<{columns}f", *p, *rest) for p in points))


def cut(path: Path, count: int = 5) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def line(name: str, values: np.ndarray) -> str:
    return f"{name}: {' '.join(repr(float(v)) for v in np.ravel(values))}\n"


# ---------------------------------------------------------------- kitti


def build_kitti_object(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"training/image_2/{n:06d}.png", n)
        write_columns(root / f"training/velodyne/{n:06d}.bin", kitti_points(n), 4)
        calib = root / f"training/calib/{n:06d}.txt"
        calib.parent.mkdir(exist_ok=True)
        tr = np.column_stack([KITTI_R, KITTI_T])
        calib.write_text(line("P2", KITTI_P) + line("R0_rect", KITTI_RECT) + line("Tr_velo_to_cam", tr) + "\n")


def build_kitti_depth(root: Path) -> None:
    """Two frames of a drive and one of the cropped selection."""
    build_kitti_raw(root)
    drive = kitti_drive(root)
    for n in range(2):
        depth_png(root / f"train/{drive.name}/proj_depth/groundtruth/image_02/{n:010d}.png", ramp(n))
    (drive / "image_02/data/0000000002.png").unlink()
    stem = "2011_09_26_drive_0002_sync_{}_0000000005_image_02"
    selection = root / "val_selection_cropped"
    noise_image(selection / f"image/{stem.format('image')}.png", 5)
    depth_png(selection / f"groundtruth_depth/{stem.format('groundtruth_depth')}.png", ramp(5))
    (selection / "intrinsics").mkdir()
    (selection / f"intrinsics/{stem.format('image')}.txt").write_text("30.0 0.0 19.5 0.0 31.0 14.5 0.0 0.0 1.0 ")


def kitti_depth_images(root: Path) -> list[Path]:
    drive = kitti_drive(root)
    stem = "2011_09_26_drive_0002_sync_image_0000000005_image_02.png"
    return [
        *(drive / f"image_02/data/{n:010d}.png" for n in range(2)),
        root / "val_selection_cropped/image" / stem,
    ]


# ---------------------------------------------------------------- nuScenes

#: Ego poses (x, y, yaw in degrees) at the LiDAR's and at the camera's time, of every sample.
EGO = [((10.0, 5.0, 20.0), (10.5, 5.2, 21.0)), ((11.0, 5.4, 22.0), (11.5, 5.6, 23.0)), ((12.0, 6, 24), (12.5, 6, 25))]
EGO_FROM_LIDAR = ([0.9, 0.0, 1.8], [0.0, 0.0, -90.0])  # translation, Euler angles xyz in degrees
EGO_FROM_CAM = ([1.7, 0.0, 1.5], [-90.0, 0.0, -90.0])
K = [[30.0, 0, 19.5], [0, 31.0, 14.5], [0, 0, 1.0]]
RADAR_FIELDS = (
    "x y z dyn_prop id rcs vx vy vx_comp vy_comp is_quality_valid ambig_state x_rms y_rms invalid_state pdh0 vx_rms "
    "vy_rms"
)
_RADAR_SIZE, _RADAR_TYPE = "4 4 4 1 2 4 4 4 4 4 1 1 1 1 1 1 1 1", "F F F I I F F F F F I I I I I I I I"


def wxyz(euler: list[float]) -> list[float]:
    x, y, z, w = Rotation.from_euler("xyz", euler, degrees=True).as_quat()
    return [float(v) for v in (w, x, y, z)]


def nuscenes_points(n: int) -> np.ndarray:
    """In the LiDAR's frame (y forward): a wall and scattered points, and one on the own roof."""
    rng = np.random.default_rng(n)
    x, z = np.meshgrid(np.linspace(-4, 4, 20), np.linspace(-2, 2, 12))
    wall = np.column_stack([x.ravel(), np.full(x.size, 9.0), z.ravel()])
    scattered = np.column_stack([rng.uniform(-9, 9, 100), rng.uniform(3, 30, 100), rng.uniform(-1, 3, 100)])
    return np.vstack([wall, scattered, [[0.1, 0.2, 0.3]]])


def write_radar(path: Path, rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
        f"FIELDS {RADAR_FIELDS}\nSIZE {_RADAR_SIZE}\nTYPE {_RADAR_TYPE}\nCOUNT {' '.join(['1'] * 18)}\n"
        f"WIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA binary\n"
    )
    path.write_bytes(head.encode() + b"".join(struct.pack("<fffbhfffffbbbbbbbb", *row) for row in rows))


def radar_row(x: float, y: float, *, dyn: int = 0, ambig: int = 3, invalid: int = 0) -> tuple[Any, ...]:
    return (x, y, 0.0, dyn, 7, 3.5, 0.0, 0.0, 0.0, 0.0, 1, ambig, 19, 19, invalid, 1, 16, 3)


def build_nuscenes(root: Path) -> None:
    """One scene of three samples with a front camera, LiDAR and front radar; sample 0's LiDAR has a sweep more."""
    tables: dict[str, list[dict[str, Any]]] = {
        "scene": [{"token": "s", "name": "scene-0061", "first_sample_token": "k0", "last_sample_token": "k2"}],
        "sample": [{"token": f"k{n}", "scene_token": "s", "timestamp": 1000 * n} for n in range(FRAMES)],
        "sensor": [
            {"token": "sc", "channel": "CAM_FRONT", "modality": "camera"},
            {"token": "sl", "channel": "LIDAR_TOP", "modality": "lidar"},
            {"token": "sr", "channel": "RADAR_FRONT", "modality": "radar"},
        ],
        "calibrated_sensor": [
            {"token": f"c{s}", "sensor_token": f"s{s}", "translation": t, "rotation": wxyz(r), "camera_intrinsic": k}
            for s, (t, r), k in (
                ("c", EGO_FROM_CAM, K),
                ("l", EGO_FROM_LIDAR, []),
                ("r", ([3.4, 0.0, 0.5], [0.0, 0.0, 0.0]), []),
            )
        ],
        "ego_pose": [],
        "sample_data": [],
    }

    def datum(token: str, n: int, sensor: str, file: str, ego: tuple[float, float, float], *, prev: str = "") -> None:
        x, y, yaw = ego
        pose = {"token": f"e{token}", "translation": [x, y, 0.0], "rotation": wxyz([0, 0, yaw]), "timestamp": 1000 * n}
        tables["ego_pose"].append(pose)
        size = {"width": WIDTH, "height": HEIGHT} if sensor == "c" else {"width": 0, "height": 0}
        tables["sample_data"].append(
            {"token": token, "sample_token": f"k{n}", "ego_pose_token": f"e{token}", "timestamp": 1000 * n}
            | {"calibrated_sensor_token": f"c{sensor}", "is_key_frame": file.startswith("samples"), "prev": prev}
            | {"filename": file, "fileformat": file.rpartition(".")[2], "next": ""}
            | size
        )

    for n, (at_lidar, at_camera) in enumerate(EGO):
        image, sweep = f"samples/CAM_FRONT/front__{n}.png", f"samples/LIDAR_TOP/top__{n}.pcd.bin"
        noise_image(root / image, n)
        write_columns(root / sweep, nuscenes_points(n), 5)
        radar = f"samples/RADAR_FRONT/front__{n}.pcd"
        rows = [radar_row(10, 1), radar_row(12, -2), radar_row(9, 0, invalid=1), radar_row(8, 0, ambig=1)]
        write_radar(root / radar, [*rows, radar_row(7, 0, dyn=7)])
        datum(f"dc{n}", n, "c", image, at_camera)
        datum(f"dl{n}", n, "l", sweep, at_lidar, prev=f"dl{n - 1}" if n else "dlx")
        datum(f"dr{n}", n, "r", radar, at_lidar)
    write_columns(root / "sweeps/LIDAR_TOP/top__x.pcd.bin", nuscenes_points(0), 5)
    datum("dlx", 0, "l", "sweeps/LIDAR_TOP/top__x.pcd.bin", (9.5, 4.8, 19.0))
    for name, rows_of in tables.items():
        write_json(root / f"v1.0-mini/{name}.json", rows_of)


# ---------------------------------------------------------------- DGP


def dgp_pose(euler: list[float], translation: list[float]) -> dict[str, Any]:
    w, x, y, z = wxyz(euler)
    tx, ty, tz = translation
    return {"rotation": {"qw": w, "qx": x, "qy": y, "qz": z}, "translation": {"x": tx, "y": ty, "z": tz}}


def build_dgp(root: Path) -> None:
    scene = root / "scene_01"
    data, samples = [], []
    for n in range(FRAMES):
        image, cloud = f"rgb/CAMERA_01/{n}.png", f"point_cloud/LIDAR/{n}.npz"
        noise_image(scene / image, n)
        (scene / "point_cloud/LIDAR").mkdir(parents=True, exist_ok=True)
        points = nuscenes_points(n)[:-1][:, [1, 0, 2]] * [1, -1, 1]  # x forward here
        np.savez(scene / cloud, data=np.column_stack([points, np.zeros(len(points))]).astype(np.float32))
        at_lidar = dgp_pose([0, 0, 10.0], [5.0 + n, 2.0, 1.8])
        at_camera = dgp_pose([-90.0, 0, -80.0], [5.3 + n, 2.1, 1.5])
        size = {"width": WIDTH, "height": HEIGHT, "channels": 3}
        data += [
            {"key": f"l{n}", "id": {"name": "LIDAR"}, "datum": {"point_cloud": {"filename": cloud, "pose": at_lidar}}},
            {
                "key": f"c{n}",
                "id": {"name": "CAMERA_01"},
                "datum": {"image": {"filename": image, "pose": at_camera} | size},
            },
        ]
        samples.append({"calibration_key": "cal", "datum_keys": [f"l{n}", f"c{n}"], "id": {"index": str(n)}})
    write_json(scene / "scene_ab.json", {"data": data, "samples": samples, "name": "scene_01"})
    lens = {"fx": 30.0, "fy": 31.0, "cx": 19.5, "cy": 14.5, "skew": 0.0}
    nothing = dict.fromkeys(lens, 0.0)
    write_json(scene / "calibration/cal.json", {"names": ["LIDAR", "CAMERA_01"], "intrinsics": [nothing, lens]})
    write_json(root / "scene_dataset_v1.0.json", {"scene_splits": {"0": {"filenames": ["scene_01/scene_ab.json"]}}})


# ---------------------------------------------------------------- OpenCalib and any cloud

OPENCALIB_LENS = [-0.1, 0.02, 0.001, -0.002, 0.0]


def write_pcd(path: Path, points: np.ndarray) -> None:
    """A binary PCD of x, y, z and intensity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (
        "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\n"
        f"TYPE F F F F\nCOUNT 1 1 1 1\nWIDTH {len(points)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {len(points)}\nDATA binary\n"
    )
    path.write_bytes(head.encode() + b"".join(struct.pack("<4f", *p, 1.0) for p in points))


def build_opencalib(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"{n}.png", n)
        write_pcd(root / f"{n}.pcd", kitti_points(n))
    k = {"data": [[30.0, 0, 19.5], [0, 31.0, 14.5], [0, 0, 1]]}
    size = {"img_dist_w": WIDTH, "img_dist_h": HEIGHT}
    param = {"cam_K": k, "cam_dist": {"data": [OPENCALIB_LENS]}, **size}
    write_json(root / "center_camera-intrinsic.json", {"center_camera-intrinsic": {"param": param}})
    param = {"sensor_calib": {"data": CAM_FROM_LIDAR.tolist()}}
    write_json(root / "lidar-to-center_camera-extrinsic.json", {"lidar-to-center_camera-extrinsic": {"param": param}})


def build_pointcloud(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"images/{n}.png", n)
        write_columns(root / f"clouds/{n}.bin", kitti_points(n), 4)
    camera = {"fx": 30.0, "fy": 31.0, "cx": 20.0, "cy": 15.0}
    write_json(root / "calibration.json", {**camera, "cam_from_points": CAM_FROM_LIDAR.tolist()})


def spoil_json(path: Path) -> None:
    json.loads(path.read_text())
    path.write_text(path.read_text()[:-9])


LIDAR: dict[str, Fixture] = {
    "kitti_object": Fixture(
        build_kitti_object,
        lambda root: [root / f"training/image_2/{n:06d}.png" for n in range(FRAMES)],
        lambda root: cut(root / "training/velodyne/000001.bin"),
    ),
    "kitti_depth": Fixture(
        build_kitti_depth,
        kitti_depth_images,
        lambda root: depth_png(
            next(root.glob("train/*/proj_depth/groundtruth/image_02/0000000001.png")), ramp(1, WIDTH // 2, HEIGHT // 3)
        ),
    ),
    "nuscenes": Fixture(
        build_nuscenes,
        lambda root: [root / f"samples/CAM_FRONT/front__{n}.png" for n in range(FRAMES)],
        lambda root: cut(root / "samples/LIDAR_TOP/top__1.pcd.bin"),
    ),
    "dgp": Fixture(
        build_dgp,
        lambda root: [root / f"scene_01/rgb/CAMERA_01/{n}.png" for n in range(FRAMES)],
        lambda root: cut(root / "scene_01/point_cloud/LIDAR/1.npz", 40),
    ),
    "opencalib": Fixture(
        build_opencalib,
        lambda root: [root / f"{n}.png" for n in range(FRAMES)],
        lambda root: cut(root / "1.pcd"),
    ),
    "pointcloud": Fixture(
        build_pointcloud,
        lambda root: [root / f"images/{n}.png" for n in range(FRAMES)],
        lambda root: cut(root / "clouds/1.bin"),
    ),
}
