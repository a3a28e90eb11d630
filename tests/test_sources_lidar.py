"""LiDAR and radar readers: numbers against an independent computation, point cloud files, filters at work."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import source_fixtures_lidar as made
from expectations import assert_refused
from scipy.spatial.transform import Rotation
from source_fixtures import HEIGHT, KITTI_P, KITTI_R, KITTI_RECT, KITTI_T, WIDTH, kitti_points, ramp, write_json

from metricanything import sources
from metricanything.sources.clouds import read_cloud


def nearest_of_pixels(xyz: np.ndarray, matrix: np.ndarray) -> dict[tuple[int, int], float]:
    """Row, column -> smallest depth of points (N, 3) under a matrix (3, 4) to pixels that count centres from 0."""
    best: dict[tuple[int, int], float] = {}
    for point in xyz:
        u, v, z = matrix @ np.append(point, 1)
        if z <= 0:
            continue
        column, row = int(np.floor(u / z + 0.5)), int(np.floor(v / z + 0.5))
        if 0 <= column < WIDTH and 0 <= row < HEIGHT:
            best[row, column] = min(best.get((row, column), np.inf), z)
    return best


def assert_depth(depth: np.ndarray, expected: dict[tuple[int, int], float], removed: int) -> None:
    """All known pixels agree, and no more are missing than points were removed."""
    rows, columns = np.nonzero(np.isfinite(depth))
    for row, column in zip(rows, columns, strict=True):
        assert depth[row, column] == pytest.approx(expected[row, column], rel=1e-5)
    assert len(rows) >= len(expected) - removed and len(rows) > 40


def transform(euler: list[float], translation: list[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", euler, degrees=True).as_matrix()
    matrix[:3, 3] = translation
    return matrix


def test_kitti_object_numbers(tmp_path: Path) -> None:
    made.build_kitti_object(tmp_path)
    frame = next(sources.read("kitti_object", tmp_path, see_through=False))
    rectify, tr = np.eye(4), np.eye(4)
    rectify[:3, :3], tr[:3, :3], tr[:3, 3] = KITTI_RECT, KITTI_R, KITTI_T
    assert_depth(frame.depth, nearest_of_pixels(kitti_points(0), KITTI_P @ rectify @ tr), 0)
    filtered = next(sources.read("kitti_object", tmp_path))
    assert filtered.notes["removed"]["see_through"] > 0 and filtered.valid.sum() < frame.valid.sum()
    assert (frame.camera.cx, frame.camera.cy) == (20, 15)


def test_kitti_depth_numbers(tmp_path: Path) -> None:
    made.build_kitti_depth(tmp_path)
    frames = {f.name: f for f in sources.read("kitti_depth", tmp_path)}
    assert [name.split("/")[0] for name in frames] == ["train", "train", "val_selection_cropped"]
    for frame, n in zip(frames.values(), (0, 1, 5), strict=True):
        expected = np.where(ramp(n) > 0, ramp(n) / 256, np.nan).astype(np.float32)
        np.testing.assert_array_equal(frame.depth, expected)
        assert frame.camera.params == (30, 31, 20, 15)
    assert_refused(lambda: sources.read("kitti_depth", tmp_path, raw=True), "velodyne_raw")


def nuscenes_transform(n: int, k: np.ndarray) -> np.ndarray:
    """LiDAR -> ego -> world -> ego' -> camera -> pixels of sample `n`, as matrices (3, 4)."""
    (xl, yl, al), (xc, yc, ac) = made.EGO[n]
    lidar, cam = (transform(r, t) for t, r in (made.EGO_FROM_LIDAR, made.EGO_FROM_CAM))
    world = transform([0, 0, al], [xl, yl, 0]) @ lidar
    return k @ np.linalg.inv(transform([0, 0, ac], [xc, yc, 0]) @ cam)[:3] @ world


def test_nuscenes_numbers(tmp_path: Path) -> None:
    made.build_nuscenes(tmp_path)
    for n, frame in enumerate(sources.read("nuscenes", tmp_path)):
        expected = nearest_of_pixels(made.nuscenes_points(n)[:-1], nuscenes_transform(n, np.array(made.K)))
        assert_depth(frame.depth, expected, frame.notes["removed"]["see_through"])
        assert frame.name == f"scene-0061/CAM_FRONT/front__{n}"
    assert sources.READERS["nuscenes"].metric


def test_nuscenes_sweeps_follow_the_car(tmp_path: Path) -> None:
    """Two sweeps of one static wall from two places give the same depth at more pixels."""
    made.build_nuscenes(tmp_path)
    x, z = np.meshgrid(np.linspace(-8, 8, 200), np.linspace(-2, 3, 90))
    wall = np.column_stack([x.ravel(), np.full(x.size, 12.0), z.ravel(), np.ones(x.size)])  # in the first LiDAR's frame
    lidar = transform(made.EGO_FROM_LIDAR[1], made.EGO_FROM_LIDAR[0])
    xl, yl, al = made.EGO[0][0]
    here = transform([0, 0, al], [xl, yl, 0]) @ lidar
    before = transform([0, 0, 19.0], [9.5, 4.8, 0]) @ lidar
    there = (wall @ here.T @ np.linalg.inv(before).T)[:, :3]
    ghost = np.array([[0.2, 6.0, 0.1], [0.3, 6.0, 0.1]])  # stood before the wall when the earlier sweep was taken
    made.write_columns(tmp_path / "samples/LIDAR_TOP/top__0.pcd.bin", wall[::2, :3], 5)
    made.write_columns(tmp_path / "sweeps/LIDAR_TOP/top__x.pcd.bin", np.vstack([there[1::2], ghost]), 5)
    one = next(sources.read("nuscenes", tmp_path, limit=1))
    two = next(sources.read("nuscenes", tmp_path, limit=1, sweeps=2))
    assert two.notes["removed"]["ghosts"] == 2
    both = one.valid & two.valid
    np.testing.assert_allclose(two.depth[both], one.depth[both], rtol=0.03)
    assert two.notes["points"] == pytest.approx(2 * one.notes["points"], rel=0.05)
    plane = nearest_of_pixels(wall[:, :3], nuscenes_transform(0, np.array(made.K)))
    assert_depth(two.depth, plane, two.notes["removed"]["see_through"] + len(plane))


def test_nuscenes_radar_keeps_what_the_devkit_keeps(tmp_path: Path) -> None:
    pytest.importorskip("pypcd4")
    made.build_nuscenes(tmp_path)
    frame = next(sources.read("nuscenes", tmp_path, sensor="radar"))
    assert frame.sensor == "radar" and frame.notes["height"] == "unknown"
    (xl, yl, al), (xc, yc, ac) = made.EGO[0]
    cam = transform(made.EGO_FROM_CAM[1], made.EGO_FROM_CAM[0])
    radar = transform([0, 0, al], [xl, yl, 0]) @ transform([0, 0, 0], [3.4, 0, 0.5])
    matrix = np.array(made.K) @ np.linalg.inv(transform([0, 0, ac], [xc, yc, 0]) @ cam)[:3] @ radar
    expected = nearest_of_pixels(np.array([[10.0, 1, 0], [12.0, -2, 0]]), matrix)
    assert {(int(r), int(c)) for r, c in zip(*np.nonzero(frame.valid), strict=True)} == set(expected)
    for place, depth in expected.items():
        assert frame.depth[place] == pytest.approx(depth, rel=1e-6)


def test_nuscenes_mistakes(tmp_path: Path) -> None:
    made.build_nuscenes(tmp_path)
    assert_refused(lambda: sources.read("nuscenes", tmp_path, sensor="sonar"), "lidar or radar")
    assert_refused(lambda: sources.read("nuscenes", tmp_path, sweeps=0), "sweeps")
    assert_refused(lambda: sources.read("nuscenes", tmp_path, camera="CAM_BACK"), "no frames found")
    write_json(tmp_path / "v1.0-mini/ego_pose.json", [])
    assert_refused(lambda: sources.read("nuscenes", tmp_path), "v1.0-mini", "not a readable set of nuScenes tables")


def test_dgp_numbers(tmp_path: Path) -> None:
    made.build_dgp(tmp_path)
    frame = list(sources.read("dgp", tmp_path))[1]
    points = (made.nuscenes_points(1)[:-1][:, [1, 0, 2]] * [1, -1, 1]).astype(np.float32)
    world = transform([0, 0, 10.0], [6.0, 2.0, 1.8])
    cam = transform([-90.0, 0, -80.0], [6.3, 2.1, 1.5])
    k = np.array([[30.0, 0, 19.5], [0, 31.0, 14.5], [0, 0, 1]])
    expected = nearest_of_pixels(points, k @ np.linalg.inv(cam)[:3] @ world)
    assert_depth(frame.depth, expected, frame.notes["removed"]["see_through"])
    np.testing.assert_allclose(frame.world_from_cam, cam, atol=1e-12)
    more = list(sources.read("dgp", tmp_path, sweeps=3))[1]
    assert more.notes["points"] > 2 * frame.notes["points"] and "ghosts" in more.notes["removed"]


def test_opencalib_goes_through_the_distorted_lens(tmp_path: Path) -> None:
    pytest.importorskip("pypcd4")
    cv2 = pytest.importorskip("cv2")
    made.build_opencalib(tmp_path)
    frame = next(sources.read("opencalib", tmp_path, see_through=False))
    local = kitti_points(0) @ made.CAM_FROM_LIDAR[:3, :3].T + made.CAM_FROM_LIDAR[:3, 3]
    local = local[local[:, 2] > 0.5]
    local = local[(np.abs(local[:, :2] / local[:, 2:]) < 0.9).all(axis=1)]
    k = np.array([[30.0, 0, 19.5], [0, 31.0, 14.5], [0, 0, 1]])
    pixels = cv2.projectPoints(local, np.zeros(3), np.zeros(3), k, np.array(made.OPENCALIB_LENS))[0].reshape(-1, 2)
    columns, rows = np.floor(pixels + 0.5).astype(int).T
    inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    assert inside.sum() > 50
    assert (frame.depth[rows[inside], columns[inside]] <= local[inside, 2] * 1.0001).all()
    assert np.isclose(frame.depth[rows[inside], columns[inside]], local[inside, 2], rtol=1e-5).mean() > 0.6


# ---------------------------------------------------------------- files of points


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".las", ".laz", ".npy", ".npz", ".bin", ".pcd.bin"])
def test_every_cloud_format_gives_the_same_points(suffix: str, tmp_path: Path) -> None:
    """Written by the format's own library or byte by byte; a point that is not finite is left out."""
    points = np.round(np.random.default_rng(0).uniform(-50, 50, (30, 3)), 3)
    path = tmp_path / f"cloud{suffix}"
    if suffix == ".ply":
        plyfile = pytest.importorskip("plyfile")
        rows = np.array([tuple(p) for p in points], dtype=[("x", "f8"), ("y", "f8"), ("z", "f8")])
        plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(str(path))
    elif suffix == ".pcd":
        pytest.importorskip("pypcd4")
        made.write_pcd(path, np.vstack([points, [[np.nan, 0, 0]]]))
    elif suffix in (".las", ".laz"):
        laspy = pytest.importorskip("laspy")
        header = laspy.LasHeader(point_format=0, version="1.2")
        header.scales, header.offsets = [0.001] * 3, [100.0, 0.0, 0.0]
        cloud = laspy.LasData(header)
        cloud.x, cloud.y, cloud.z = points.T
        cloud.write(str(path))
    elif suffix == ".npy":
        np.save(path, np.column_stack([points, np.ones(30)]))
    elif suffix == ".npz":
        np.savez(path, points=points)
    else:
        made.write_columns(path, np.vstack([points, [[np.inf, 0, 0]]]), 4 if suffix == ".bin" else 5)
    np.testing.assert_allclose(read_cloud(path), points, atol=1e-5)
    if suffix not in (".npz",):
        path.write_bytes(path.read_bytes()[:-3])
        assert_refused(lambda: read_cloud(path), path.name)


def test_clouds_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(lambda: read_cloud(tmp_path / "a.xyz"), ".ply", ".pcd.bin")
    np.save(tmp_path / "a.npy", np.zeros((4, 2)))
    assert_refused(lambda: read_cloud(tmp_path / "a.npy"), "at least x, y, z")
    for module, suffix in (("pypcd4", "pcd"), ("laspy", "las")):
        monkeypatch.setitem(sys.modules, module, None)
        assert_refused(lambda s=suffix: read_cloud(tmp_path / f"a.{s}"), "metricanything[readers]")


def test_pointcloud_calibrations(tmp_path: Path) -> None:
    made.build_pointcloud(tmp_path)
    first = next(sources.read("pointcloud", tmp_path))
    record = {"fx": 30.0, "fy": 31.0, "cx": 20.0, "cy": 15.0, "sensor": "radar"}
    write_json(
        tmp_path / "calibration/0.json", {**record, "points_from_cam": np.linalg.inv(made.CAM_FROM_LIDAR).tolist()}
    )
    own = next(sources.read("pointcloud", tmp_path))
    np.testing.assert_allclose(own.depth, first.depth, rtol=1e-6)
    assert (first.sensor, own.sensor) == ("lidar", "radar")
    k = np.array([[30.0, 0, 19.5], [0, 31.0, 14.5], [0, 0, 1]])
    expected = nearest_of_pixels(kitti_points(0), k @ made.CAM_FROM_LIDAR[:3])
    assert_depth(first.depth, expected, first.notes["removed"]["see_through"])
    for bad, word in (({}, "cam_from_points"), ({"cam_from_points": np.ones((4, 4)).tolist()}, "rotation")):
        write_json(tmp_path / "calibration/0.json", {**record, **bad})
        assert_refused(lambda: next(sources.read("pointcloud", tmp_path)), "0.json", word)
