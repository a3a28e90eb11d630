"""Filters of raw 3D against brute-force references and planted faults."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points
from metricanything.sources import filters
from metricanything.sources.lidar import project_cloud
from metricanything.sources.undistort import pinhole_of, undistort

WIDTH, HEIGHT = 64, 48
CAMERA = Camera.pinhole(50, 52, 31, 25, WIDTH, HEIGHT)


def test_drop_counts_each_pixel_once_and_keeps_the_sky() -> None:
    depth = np.array([[1, 2, np.nan], [3, np.inf, 4]], dtype=np.float32)
    everything, first = np.ones((2, 3), dtype=bool), np.zeros((2, 3), dtype=bool)
    first[0, :] = True
    left, counts = filters.drop(depth, first=first, second=everything)
    assert counts == {"first": 2, "second": 2}
    np.testing.assert_array_equal(np.isnan(left), [[True, True, True], [True, False, True]])
    assert left[1, 1] == np.inf


def test_flying_pixels_are_those_planted_between_two_surfaces() -> None:
    depth = np.full((HEIGHT, WIDTH), 4.0, dtype=np.float32)
    depth[10:30, 20:40] = 1.5
    clean = filters.flying_pixels(depth)
    assert not clean.any()
    depth[10:30, 19] = 2.3  # a column of mixtures along the left edge of the box
    depth[5, 5] = 2.0  # and one speckle
    expected = np.zeros_like(clean)
    expected[10:30, 19] = expected[5, 5] = True
    np.testing.assert_array_equal(filters.flying_pixels(depth), expected)


@given(st.floats(0, 2 * np.pi), st.floats(0, 1.45))
def test_planes_have_no_flying_pixels(direction: float, tilt: float) -> None:
    """However slanted: up to 83 degrees against the optical axis."""
    normal = np.array([np.sin(tilt) * np.cos(direction), np.sin(tilt) * np.sin(direction), np.cos(tilt)])
    rays = CAMERA.rays().astype(np.float64)
    inverse = (rays / rays[..., 2:]) @ normal / 3
    depth = np.where(inverse > 1e-3, 1 / np.maximum(inverse, 1e-3), np.nan).astype(np.float32)
    wrong = filters.flying_pixels(depth)
    # At the vanishing line a plane does change by more than the tolerance from pixel to pixel.
    steep = np.abs(np.gradient(inverse)).max(axis=0) > 0.02 * np.abs(inverse)
    assert not (wrong & ~steep & (inverse > 0.05)).any()


def test_low_confidence_takes_nan_too() -> None:
    confidence = np.array([[0, 1, 2, np.nan]])
    np.testing.assert_array_equal(filters.low_confidence(confidence, 1), [[True, False, False, True]])


def sphere(count: int, radius: float, seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def test_ghosts_are_points_in_seen_free_space() -> None:
    walls = sphere(400_000, 20.0, 0)
    ghosts = sphere(50, 8.0, 1) * [1, 1, 0.5]  # away from the poles, where the few walls leave cells empty
    static = sphere(500, 19.5, 2)  # within a tenth of the wall's range
    behind = sphere(50, 30.0, 3)
    found = filters.ghost_points(np.concatenate([ghosts, static, behind]), walls)
    np.testing.assert_array_equal(found, np.arange(600) < 50)


def test_ghosts_are_unknown_where_the_reference_saw_nothing() -> None:
    half = sphere(400_000, 20.0, 0)
    half = half[half[:, 0] > 0]
    points = np.array([[-5.0, 0.3, 0.2], [5.0, 0.3, 0.2], [-5.0, 0.0, 0.0]])
    np.testing.assert_array_equal(filters.ghost_points(points, half), [False, True, False])


# ---------------------------------------------------------------- several views


def slanted(camera: Camera, world_from_cam: np.ndarray) -> np.ndarray:
    """z-depth float32 (H, W) of the plane n·X = 5 in world coordinates, by intersecting rays in float64."""
    normal = np.array([0.2, -0.3, 1.0])
    rays = camera.unproject(camera.pixel_grid())
    world = rays @ world_from_cam[:3, :3].T
    length = (5 - normal @ world_from_cam[:3, 3]) / (world @ normal)
    return (length * rays[..., 2]).astype(np.float32)


def views(camera: Camera) -> list[filters.View]:
    made = []
    for n, shift in enumerate([(0, 0, 0), (0.4, 0, 0), (0, -0.3, 0.1)]):
        angle = 0.05 * n
        pose = np.eye(4)
        pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        pose[:3, 3] = shift
        made.append(filters.View(slanted(camera, pose), camera, pose))
    return made


@pytest.mark.parametrize(
    "camera", [CAMERA, Camera.kannala_brandt(40, 40, 32, 24, WIDTH, HEIGHT, distortion=(0.05, -0.01, 0, 0))]
)
def test_consistent_views_of_a_plane_confirm_each_other(camera: Camera) -> None:
    first, second, third = views(camera)
    bad = filters.inconsistent(first, [second, third], agreeing=2)
    points = depth_to_points(first.depth, camera).astype(np.float64)
    seen = np.ones((HEIGHT, WIDTH), dtype=bool)
    for other in (second, third):  # an independent answer: a pixel is confirmed exactly where all others see it
        local = (points - other.world_from_cam[:3, 3]) @ other.world_from_cam[:3, :3]
        uv = camera.project(local)
        seen &= ((uv > 0.5) & (uv < [WIDTH - 0.5, HEIGHT - 0.5])).all(axis=-1)
    assert not (bad & seen).any() and seen.mean() > 0.6
    assert bad[~seen].mean() > 0.5


def test_planted_errors_are_not_confirmed() -> None:
    first, second, third = views(CAMERA)
    depth = first.depth.copy()
    depth[20:28, 30:38] *= 1.1
    bad = filters.inconsistent(filters.View(depth, CAMERA, first.world_from_cam), [second, third], agreeing=1)
    assert bad[20:28, 30:38].all() and not bad[18:19, 30:38].any()


# ---------------------------------------------------------------- projection and undistortion


def test_projection_counts_what_shines_through() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 81), np.linspace(-1, 1, 81))
    wall = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, 3.0)])
    cloud = np.concatenate([wall, [[0.02, 0.01, 9.0], [0.0, 0.0, -4.0], [99.0, 0, 3.0]]])
    depth, notes = project_cloud(cloud, np.eye(4), CAMERA)
    assert notes["removed"] == {"see_through": 1} and np.nanmax(depth) == 3
    kept, notes = project_cloud(cloud, np.eye(4), CAMERA, see_through=False)
    assert "removed" not in notes and np.isfinite(kept).sum() >= np.isfinite(depth).sum()


FISHEYE = Camera.kannala_brandt(30, 30, 32, 24, WIDTH, HEIGHT, distortion=(0.02, -0.005, 0, 0))
BARREL = Camera.opencv(50, 52, 31, 25, WIDTH, HEIGHT, distortion=(-0.2, 0.05, 0.001, -0.002))


@pytest.mark.parametrize("camera", [FISHEYE, BARREL])
@pytest.mark.parametrize("sensor", ["synthetic", "lidar"])
def test_undistorted_plane_lies_on_the_same_plane(camera: Camera, sensor: str) -> None:
    depth = slanted(camera, np.eye(4))
    depth = np.where(depth > 0, depth, np.nan).astype(np.float32)
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[..., 0] = np.arange(WIDTH) * 3
    sigma = depth * np.float32(0.1)
    frame = Frame("a/1", image, depth, camera, "captured", sensor, "s", "l", sigma=sigma)  # type: ignore[arg-type]
    new = undistort(frame)
    assert new.camera == pinhole_of(camera) and new.camera.model == "pinhole"
    assert new.sigma is not None
    truth = slanted(new.camera, np.eye(4))
    known = new.valid
    assert known.mean() > 0.3
    # In inverse depth a plane is linear: the error is that of a place at most half a pixel of the coarser grid away.
    down, across = np.gradient(1 / truth.astype(np.float64))
    rays = camera.unproject(camera.pixel_grid())
    stretch = np.nanmax(np.abs(np.gradient(new.camera.project(rays), axis=(0, 1))))
    error = np.abs(1 / new.depth.astype(np.float64) - 1 / truth)
    assert error[known].max() <= 0.5 * max(stretch, 1) * (np.abs(down) + np.abs(across)).max() * 1.01
    assert np.median((np.abs(new.depth - truth) / truth)[known]) < 0.01
    np.testing.assert_allclose(new.sigma[known], 0.1 * new.depth[known], rtol=1e-5)
    # Colours: the red ramp, at a new pixel, is that of the column the old camera saw there.
    rays = new.camera.unproject(new.camera.pixel_grid())
    column = camera.project(rays)[..., 0] - 0.5
    inner = (column > 1) & (column < WIDTH - 2) & (new.image[..., 0] > 0)
    assert np.abs(new.image[..., 0] - 3 * column)[inner].max() <= 0.51 and inner.mean() > 0.3


def test_pinhole_frames_stay_as_they_are() -> None:
    depth = np.ones((HEIGHT, WIDTH), dtype=np.float32)
    frame = Frame("a", np.zeros((HEIGHT, WIDTH, 3), np.uint8), depth, CAMERA, "captured", "tof", "s", "l")
    assert undistort(frame) is frame
