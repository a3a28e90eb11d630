"""Readers on excerpts of the real data sets, against what was measured or is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_fixtures import require

from metricanything import sources
from metricanything.core.codecs import read_depth
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points

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
