"""Readers on excerpts of the real data sets, against what was measured or is known of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation
from source_fixtures import require, write_json

from metricanything import sources
from metricanything.core.codecs import read_depth
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points, scatter_min

SHARED = Path(__file__).parents[2] / "shared" / "data"
RAW = SHARED / "raw"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared development data is not beside the repository")


def frames_of(kind: str, folder: str, **options: Any) -> dict[str, Frame]:
    require(kind)
    return {frame.name: frame for frame in sources.read(kind, RAW / folder, **options)}


#: kind, folder, options -> number of frames, a name, its image size, its known depths, their median.
GOLDEN = [
    ("kitti_object", "kitti_object", {}, 3, "image_2/000001", (1242, 375), 18461, 12.50195),
    ("dgp", "dgp_ddad", {"limit": 2}, 2, "scene_01/CAMERA_01/15569195938415230", (1936, 1216), 4809, 11.43599),
    ("record3d", "record3d", {}, 3, "record3d/0", (1440, 1920), 48924, 0.24719),
    ("sun_rgbd", "sunrgbd", {}, 2, "images/img_0063", (561, 427), 239547, 1.958),
    ("open3d_rgbd", "open3d", {}, 5, "open3d/00000", (640, 480), 267129, 1.861),
    ("open3d_rgbd", "realsense", {}, 4, "realsense/000000", (640, 480), 225699, 1.812),
    ("tartanair", "tartanair", {}, 3, "image_left/000000_left", (640, 480), 307200, 0.37109),
    ("opencalib", "opencalib", {}, 1, "calib", (1920, 1200), 10455, 25.55583),
]


@pytest.mark.parametrize(("kind", "folder", "options", "count", "name", "size", "known", "median"), GOLDEN)
def test_golden_numbers(
    kind: str,
    folder: str,
    options: dict[str, Any],
    count: int,
    name: str,
    size: tuple[int, int],
    known: int,
    median: float,
) -> None:
    frames = frames_of(kind, folder, **options)
    frame = frames[name]
    assert len(frames) == count and (frame.width, frame.height) == size
    assert frame.valid.sum() == known and np.median(frame.depth[frame.valid]) == pytest.approx(median, rel=1e-4)


@pytest.mark.parametrize(
    ("folder", "size", "known", "trusted", "median"),
    [("arengine-recorder", (640, 480), 34493, 15485, 1.918), ("standupbrown6", (1440, 1080), 34387, 4303, 2.29)],
)
def test_depth16_of_two_phones(folder: str, size: tuple[int, int], known: int, trusted: int, median: float) -> None:
    """Against the words themselves: most pixels of these recordings bear the code of no confidence."""
    (frame,) = frames_of("depth16", f"android_tof/{folder}", fov_x=65.0, min_confidence=0.0, flying=False).values()
    (sure,) = frames_of("depth16", f"android_tof/{folder}", fov_x=65.0, flying=False).values()
    assert (frame.width, frame.height) == size and frame.notes["depth_grid"] == [240, 180]
    assert (frame.valid.sum(), sure.valid.sum()) == (known, trusted)
    assert np.median(frame.depth[frame.valid]) == pytest.approx(median, abs=5e-4)


def test_camera_height_over_the_road_in_kitti() -> None:
    """The camera is mounted 1.65 m above the ground (Geiger et al., IJRR 2013): the lowest surface ahead says so."""
    for frame in frames_of("kitti_object", "kitti_object").values():
        points = depth_to_points(frame.depth, frame.camera)[frame.valid]
        ahead = points[(np.abs(points[:, 0]) < 3) & (points[:, 2] > 5) & (points[:, 2] < 20) & (points[:, 1] > 1)]
        assert 1.5 < np.median(ahead[:, 1]) < 1.8


# ---------------------------------------------------------------- against other depth of the same place


def at_pixels(truth: np.ndarray, frame: Frame) -> np.ndarray:
    """Ratios of the frame's known depths to a depth map of the same view and any size."""
    v, u = np.nonzero(frame.valid)
    ratio = frame.depth[v, u] / truth[v * truth.shape[0] // frame.height, u * truth.shape[1] // frame.width]
    return ratio[np.isfinite(ratio)]


def test_seven_scenes_is_registered_to_colour() -> None:
    """Against the same frames registered by others; with no baseline, or one of the other sign, less agrees."""
    agreement = []
    for baseline in (0.025, 0.0, -0.025):
        frames = frames_of("seven_scenes", "7scenes", limit=3, baseline=baseline).values()
        truth = {f.name: SHARED / "train/tsdf_7scenes" / f.name.split("-")[-1] / "depth.png" for f in frames}
        ratios = np.concatenate([at_pixels(read_depth(p, 1000.0), f) for f in frames if (p := truth[f.name]).is_file()])
        assert np.median(ratios) == pytest.approx(1, abs=0.005)
        agreement.append(np.mean(np.abs(ratios - 1) < 0.01))
    assert agreement[0] > 0.6 and agreement[0] > agreement[1] + 0.05 > agreement[2] + 0.05


def test_tartanair_is_the_depth_of_the_training_frames() -> None:
    for name, frame in frames_of("tartanair", "tartanair").items():
        number = name.split("/")[-1][:6]
        ratios = at_pixels(read_depth(SHARED / "train/tartanair_p" / number / "depth.png", 1000.0), frame)
        assert np.mean(np.abs(ratios - 1) < 0.02) > 0.8


def seen_from(one: Frame, other: Frame) -> np.ndarray:
    """Ratios of the depths of `one`, moved by the poses into `other`, to the depths nearest in its image."""
    from scipy.spatial import cKDTree

    assert one.world_from_cam is not None and other.world_from_cam is not None
    moved = np.linalg.inv(other.world_from_cam) @ one.world_from_cam
    points = depth_to_points(one.depth, one.camera)[one.valid].astype(np.float64) @ moved[:3, :3].T + moved[:3, 3]
    uv = other.camera.project(points)
    inside = np.isfinite(uv).all(axis=1) & (uv >= 0).all(axis=1) & (uv <= [other.width, other.height]).all(axis=1)
    v, u = np.nonzero(other.valid)
    _, nearest = cKDTree(np.column_stack([u, v]) + 0.5).query(uv[inside][::7])
    return points[inside][::7, 2] / other.depth[v[nearest], u[nearest]]


@pytest.mark.parametrize(
    ("kind", "folder", "names", "share"),
    [
        ("record3d", "record3d", ("record3d/0", "record3d/16"), 0.8),
        ("open3d_rgbd", "open3d", ("open3d/00000", "open3d/00004"), 0.9),
    ],
)
def test_poses_carry_depth_from_view_to_view(kind: str, folder: str, names: tuple[str, str], share: float) -> None:
    frames = frames_of(kind, folder)
    ratio = seen_from(*(frames[name] for name in names))
    assert np.median(ratio) == pytest.approx(1, abs=0.01) and np.mean(np.abs(ratio - 1) < 0.03) > share


# ---------------------------------------------------------------- LiDAR lies on the image

SHIFTS = np.array([(dy, dx) for dy in (-4, 0, 4) for dx in (-4, 0, 4)])  # pixels; the fifth is none


def gradient_under_edges(frame: Frame) -> tuple[np.ndarray, int]:
    """Sums, over points with all others beside them on one side farther, of the image's horizontal gradient (relative
    to its neighbourhood) at the point moved by each of the `SHIFTS`; and how many points there are.
    """
    colour = frame.image.astype(np.float32)
    gradient = np.abs(ndimage.gaussian_filter(colour, (1.5, 1.5, 0), order=(0, 1, 0))).max(axis=2)
    gradient = np.minimum(gradient / (ndimage.uniform_filter(gradient, 61) + 1), 4)
    some, none = np.where(frame.valid, frame.depth, 0), np.where(frame.valid, frame.depth, np.inf)
    total, count = np.zeros(len(SHIFTS)), 0
    nearest, farthest = ndimage.minimum_filter(none, (3, 6)), ndimage.maximum_filter(some, (3, 6))
    for shift in (3, -4):  # the window covers columns -3 to 2: moved to -6 to -1, and to 1 to 6
        beside, seen = np.roll(nearest, shift, axis=1), np.roll(farthest, shift, axis=1) > 0
        edge = (beside > 1.1 * frame.depth) & seen & (frame.depth < 60)
        edge[:6], edge[-6:], edge[:, :6], edge[:, -6:] = False, False, False, False
        v, u = np.nonzero(edge)
        total += gradient[v + SHIFTS[:, :1], u + SHIFTS[:, 1:]].sum(axis=1)
        count += len(v)
    return total, count


@pytest.mark.parametrize(
    ("kind", "folder", "options", "least"),
    [
        ("kitti_object", "kitti_object", {}, 500),
        ("dgp", "dgp_ddad", {}, 5000),
    ],
)
def test_lidar_edges_lie_on_image_edges(kind: str, folder: str, options: dict[str, Any], least: int) -> None:
    """Better than when shifted by 4 px in any of eight directions."""
    totals, counts = zip(*(gradient_under_edges(f) for f in frames_of(kind, folder, **options).values()), strict=True)
    assert sum(counts) > least
    mean = np.sum(totals, axis=0) / sum(counts)
    assert mean[4] > np.delete(mean, 4).max()


def test_opencalib_reflectance_follows_the_image() -> None:
    """One frame has too few edges; but its LiDAR sees the paint on the road: better than shifted by 4 px."""
    require("opencalib")
    from scipy.spatial import cKDTree

    from metricanything.sources.clouds import read_pcd
    from metricanything.sources.pointcloud import matrix

    root = RAW / "opencalib"
    (frame,) = frames_of("opencalib", "opencalib").values()
    points = read_pcd(root / "calib.pcd", ("x", "y", "z", "intensity"))
    stated = json.loads((root / "top_center_lidar-to-center_camera-extrinsic.json").read_text())
    transform = matrix(next(iter(stated.values()))["param"]["sensor_calib"]["data"], root)
    local = points[:, :3] @ transform[:3, :3].T + transform[:3, 3]
    uv = frame.camera.project(local)
    with np.errstate(invalid="ignore"):
        seen = ((uv > 20) & (uv < [frame.width - 20, frame.height - 20])).all(axis=1) & (local[:, 2] < 40)
    uv, reflectance = uv[seen], np.log1p(points[seen, 3])
    rows, columns = np.floor(uv[:, ::-1]).astype(int).T
    known = frame.valid[rows, columns]  # the reader's depth at these points is theirs or a nearer one's
    assert known.mean() > 0.98 and (frame.depth[rows, columns] <= 1.0001 * local[seen, 2])[known].all()
    _, near = cKDTree(uv).query(uv, 30)
    brightness = ndimage.gaussian_filter(frame.image.astype(np.float32).mean(axis=2), 1.0)
    scores = []
    for dy, dx in SHIFTS:
        value = ndimage.map_coordinates(brightness, [uv[:, 1] + dy - 0.5, uv[:, 0] + dx - 0.5], order=1)
        relative = [v - v[near].mean(axis=1) for v in (reflectance, value)]
        scores.append(np.corrcoef(*relative)[0, 1])
    assert scores[4] > 0.5 and scores[4] > np.delete(scores, 4).max()


def test_nuscenes_agrees_with_the_published_transform(tmp_path: Path) -> None:
    """Tables made from the poses of a real sample; the same points under mmdetection3d's `lidar2cam` are the truth."""
    source = RAW / "mmdet3d/nuscenes"
    info = json.loads(next(source.glob("*.infos.json")).read_text())["data_list"][0]
    write_tables(tmp_path, source, info)
    points = np.fromfile(source / info["lidar_points"]["lidar_path"], dtype=np.float32).reshape(-1, 5)[:, :3]
    points = points[(np.abs(points[:, :2]) >= 1).any(axis=1)]
    frames = list(sources.read("nuscenes", tmp_path))
    assert len(frames) == 6
    for frame in frames:
        record = info["images"][frame.name.split("/")[1]]
        transform, k = np.array(record["lidar2cam"]), np.array(record["cam2img"])
        local = points @ transform[:3, :3].T + transform[:3, 3]
        local = local[local[:, 2] > 0]
        u, v, z = (local @ k.T).T
        expected = scatter_min(np.stack([u / z, v / z], axis=1) + 0.5, local[:, 2], frame.height, frame.width)
        both = np.isfinite(expected) & frame.valid
        assert both.sum() > 0.995 * np.isfinite(expected).sum() > 3000
        np.testing.assert_allclose(frame.depth[both], expected[both], atol=1e-3)


def write_tables(root: Path, source: Path, info: dict[str, Any]) -> None:
    """nuScenes tables of one sample; each camera's ego pose follows from the stated `lidar2cam`."""

    def pose(matrix: np.ndarray) -> dict[str, Any]:
        x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
        return {"rotation": [w, x, y, z], "translation": matrix[:3, 3].tolist()}

    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("sensor", "calibrated_sensor", "ego_pose")}
    tables |= {"sample_data": [], "scene": [{"token": "s", "name": "scene-0061"}]}
    tables["sample"] = [{"token": "k", "scene_token": "s"}]
    ego, lidar = np.array(info["ego2global"]), np.array(info["lidar_points"]["lidar2ego"])
    data = [("LIDAR_TOP", info["lidar_points"]["lidar_path"], lidar, ego, [])]
    for channel, record in info["images"].items():
        cam = np.array(record["cam2ego"])
        then = ego @ lidar @ np.linalg.inv(np.array(record["lidar2cam"])) @ np.linalg.inv(cam)
        data.append((channel, record["img_path"], cam, then, record["cam2img"]))
    for channel, file, calibration, ego_then, k in data:
        (root / file).symlink_to((source / file).resolve())
        tables["sensor"].append({"token": channel, "channel": channel})
        calibrated = {"token": f"c{channel}", "sensor_token": channel, "camera_intrinsic": k, **pose(calibration)}
        tables["calibrated_sensor"].append(calibrated)
        tables["ego_pose"].append({"token": f"e{channel}", **pose(ego_then)})
        tables["sample_data"].append(
            {"token": f"d{channel}", "sample_token": "k", "ego_pose_token": f"e{channel}", "prev": "", "filename": file}
            | {"calibrated_sensor_token": f"c{channel}", "is_key_frame": True, "width": 1600, "height": 900}
        )
    for name, rows in tables.items():
        write_json(root / f"v1.0-mini/{name}.json", rows)
