"""Readers on excerpts of the real data sets, against what was measured or is known of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_fixtures import require

from metricanything import sources
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
    ("dgp", "dgp_ddad", {}, 27, "scene_01/CAMERA_01/15569195938415230", (1936, 1216), 4809, 11.43599),
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
