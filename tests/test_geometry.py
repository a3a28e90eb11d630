"""Geometry: depth, points and normals agree with each other and with brute force; focal and shift are recovered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything.core import geometry
from metricanything.core.camera import Camera

examples = settings(deadline=None, max_examples=40, derandomize=True)

PINHOLE = Camera.pinhole(60.0, 62.0, 31.0, 25.0, 64, 48)
FISHEYE = Camera.kannala_brandt(20.0, 20.0, 32.0, 24.0, 64, 48, distortion=(0.01, 0.0, 0.0, 0.0))
BARREL = Camera.opencv(60.0, 60.0, 32.0, 24.0, 64, 48, distortion=(-0.1, 0.02, 1e-3, -1e-3))
PANORAMA = Camera.equirectangular(64, 48)
CAMERAS = {"pinhole": PINHOLE, "fisheye": FISHEYE, "barrel": BARREL, "panorama": PANORAMA}


def wavy_depth(camera: Camera, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 80, (camera.height, camera.width)).astype(np.float32)


# ---------------------------------------------------------------- depth and points


@pytest.mark.parametrize("name", CAMERAS)
def test_points_of_a_depth_map_project_back_to_their_pixels(name: str) -> None:
    camera, depth = CAMERAS[name], wavy_depth(CAMERAS[name])
    points = geometry.depth_to_points(depth, camera)
    assert points.dtype == np.float32
    forward = camera.unproject(camera.pixel_grid())[..., 2] > 1e-3
    np.testing.assert_allclose(points[forward][:, 2], depth[forward], rtol=1e-6)
    np.testing.assert_allclose(camera.project(points)[forward], camera.pixel_grid()[forward], atol=2e-3)
    sideways = camera.rays()[..., 2] <= 0
    assert np.isnan(points[sideways]).all()
    assert sideways.any() == (name in ("panorama", "fisheye"))


def test_pinhole_points_are_the_textbook_formula() -> None:
    depth = wavy_depth(PINHOLE)
    u, v = np.arange(64) + 0.5, np.arange(48)[:, None] + 0.5
    expected = np.stack([(u - 31) / 60 * depth, (v - 25) / 62 * depth, depth], axis=-1)
    np.testing.assert_allclose(geometry.depth_to_points(depth, PINHOLE), expected, rtol=1e-5, atol=1e-6)


def test_unknown_and_infinite_depth_stay_so_in_points() -> None:
    depth = wavy_depth(PINHOLE)
    depth[3, 4], depth[5, 6] = np.nan, np.inf
    points = geometry.depth_to_points(depth, PINHOLE)
    assert np.isnan(points[3, 4]).all()
    assert np.isposinf(points[5, 6]).all()
    assert np.isfinite(points).all(axis=-1).sum() == depth.size - 2


@pytest.mark.parametrize("name", CAMERAS)
def test_distance_is_the_length_of_the_point(name: str) -> None:
    camera, depth = CAMERAS[name], wavy_depth(CAMERAS[name])
    distance = geometry.depth_to_distance(depth, camera)
    forward = camera.rays()[..., 2] > 0
    length = np.linalg.norm(geometry.depth_to_points(depth, camera).astype(np.float64), axis=-1)
    np.testing.assert_allclose(distance[forward], length[forward], rtol=1e-5)
    np.testing.assert_allclose(geometry.distance_to_depth(distance, camera)[forward], depth[forward], rtol=1e-5)
    assert np.isnan(distance[~forward]).all()


@examples
@given(st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)), st.floats(1, 20), st.sampled_from(["pinhole", "barrel"]))
def test_normals_of_a_plane(tilt: tuple[float, float], away: float, name: str) -> None:
    """The plane n . x = n . (0, 0, away), seen from its front."""
    camera, normal = CAMERAS[name], np.array([*tilt, -1.0]) / np.linalg.norm([*tilt, 1.0])
    rays = camera.unproject(camera.pixel_grid())
    slope = rays @ normal
    depth = np.where(slope < -0.2, normal[2] * away / slope * rays[..., 2], np.nan).astype(np.float32)
    normals = geometry.depth_to_normals(depth, camera)
    known = np.isfinite(normals).all(axis=-1)
    assert known.sum() > 0.5 * depth.size
    np.testing.assert_allclose(normals[known], np.broadcast_to(normal, (known.sum(), 3)), atol=2e-3)
    border = np.ones_like(known)
    border[1:-1, 1:-1] = False
    assert not known[border].any()


def test_normals_face_the_camera_and_respect_unknown_neighbours() -> None:
    depth = wavy_depth(PINHOLE)
    depth[10, 10] = np.nan
    normals, points = geometry.depth_to_normals(depth, PINHOLE), geometry.depth_to_points(depth, PINHOLE)
    known = np.isfinite(normals).all(axis=-1)
    towards = np.sum(normals[known].astype(np.float64) * points[known], axis=-1) / points[known][:, 2]
    assert (towards <= 1e-5).all()
    np.testing.assert_allclose(np.linalg.norm(normals[known], axis=-1), 1, atol=1e-5)
    assert not known[[9, 11, 10, 10, 10], [10, 10, 9, 11, 10]].any()  # its neighbours and the pixel itself


def test_edges_are_where_the_depth_jumps() -> None:
    depth = np.full((9, 12), 2.0, np.float32)
    depth[:, 6:] = 4.0
    np.testing.assert_array_equal(np.nonzero(geometry.depth_edges(depth).any(axis=0))[0], [5, 6])
    assert geometry.depth_edges(depth)[:, 5:7].all()
    assert not geometry.depth_edges(depth, rtol=1.1).any()
    ramp = 2.0 * 1.02 ** np.arange(12) * np.ones((9, 1))
    assert not geometry.depth_edges(ramp).any()
    for hole in (np.nan, np.inf):
        holed = np.full((9, 12), 2.0, np.float32)
        holed[4, 4] = hole
        ring = np.zeros((9, 12), bool)
        ring[3:6, 3:6] = True
        known = np.isfinite(holed)
        np.testing.assert_array_equal(geometry.depth_edges(holed)[known], ring[known])


# ---------------------------------------------------------------- points on the grid


@st.composite
def scattered(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Points in and around a small image, several to a pixel, some without a usable depth."""
    height, width, n = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    uv = rng.uniform(-2, 11, (n, 2))
    whole = rng.random(n) < 0.2
    uv[whole] = np.round(uv[whole])  # exactly on pixel borders
    depth = rng.uniform(0.1, 50, n).astype(np.float32)
    bad = rng.random(n) < 0.2
    depth[bad] = rng.choice([0, -1, np.nan, np.inf], int(bad.sum()))
    return uv, depth, height, width


@examples
@given(scattered())
def test_scatter_min_is_the_loop(case: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    uv, depth, height, width = case
    expected = np.full((height, width), np.nan, np.float32)
    for (u, v), d in zip(uv, depth, strict=True):
        if 0 <= u <= width and 0 <= v <= height and np.isfinite(d) and d > 0:
            row, column = min(int(v), height - 1), min(int(u), width - 1)
            expected[row, column] = np.fmin(expected[row, column], d)
    np.testing.assert_array_equal(geometry.scatter_min(uv, depth, height, width), expected)


@examples
@given(scattered())
def test_scatter_min_does_not_depend_on_the_order(case: tuple[np.ndarray, np.ndarray, int, int]) -> None:
    uv, depth, height, width = case
    order = np.random.default_rng(0).permutation(len(depth))
    np.testing.assert_array_equal(
        geometry.scatter_min(uv, depth, height, width), geometry.scatter_min(uv[order], depth[order], height, width)
    )


def test_points_far_outside_or_nowhere_are_left_out() -> None:
    uv = [[1e30, 1], [-1e30, 1], [np.nan, 1], [1, np.inf], [-1e-9, 1], [1, 1]]
    index, inside = geometry.pixel_index(uv, 3, 4)
    assert inside.tolist() == [False] * 5 + [True]
    assert index[-1] == 5
    grid = geometry.scatter_min(uv, np.arange(1, 7), 3, 4)
    assert np.isfinite(grid).sum() == 1
    assert grid[1, 1] == 6


def surrounded(depth: float, nearest: np.ndarray, row: int, column: int, radius: int) -> bool:
    """Whether no closed half plane through the pixel holds all nearer ones, which go on beyond the borders."""
    nearer = []
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            r = min(max(row + y, 0), nearest.shape[0] - 1)
            c = min(max(column + x, 0), nearest.shape[1] - 1)
            if depth > np.float32(1.15) * nearest[r, c]:
                nearer.append((x, y))
    # If there is such a half plane, one has a nearer pixel on its border.
    normals = [normal for x, y in nearer for normal in ((y, -x), (-y, x))]
    return bool(nearer) and all(any(a * x + b * y < 0 for x, y in nearer) for a, b in normals)


@examples
@given(scattered(), st.integers(0, 3))
def test_visible_points_is_the_loop(case: tuple[np.ndarray, np.ndarray, int, int], radius: int) -> None:
    uv, depth, height, width = case
    usable = np.isfinite(depth) & (depth > 0)
    uv, depth = uv[usable], depth[usable]
    nearest = geometry.scatter_min(uv, depth, height, width)
    expected = []
    for (u, v), d in zip(uv, depth, strict=True):
        if not (0 <= u <= width and 0 <= v <= height):
            expected.append(True)
            continue
        row, column = min(int(v), height - 1), min(int(u), width - 1)
        front = nearest[row, column]
        expected.append(bool(d <= 2 * front) and not surrounded(front, nearest, row, column, radius))
    result = geometry.visible_points(uv, depth, height, width, radius=radius, ratio=1.15)
    assert result.tolist() == expected


def test_points_behind_a_nearer_plane_are_hidden() -> None:
    """A near fence over the left half; the far wall is seen at the right, and hidden between the pickets."""
    u, v = (a.ravel() for a in np.meshgrid(np.arange(100) + 0.5, np.arange(60) + 0.5))
    wall = np.stack([u, v], axis=-1)
    fence = wall[(u < 50) & (u % 4 < 1)]
    uv, depth = np.concatenate([wall, fence]), np.concatenate([np.full(len(wall), 20.0), np.full(len(fence), 5.0)])
    visible = geometry.visible_points(uv, depth, 60, 100, radius=3)
    assert visible[len(wall) :].all()
    assert not visible[: len(wall)][u < 48].any()
    assert visible[: len(wall)][u > 53].all()


@pytest.mark.parametrize("width", [320, 1242, 2484])
def test_points_behind_a_foreground_object_are_hidden(width: int) -> None:
    """A box scanned by the lines of a LiDAR that scale with the image, and a wall whose points shine through it."""
    height, step = width * 3 // 4, width / 1242
    lines = np.arange(height / 4, height * 3 / 4, 2.5 * step)
    columns = np.arange(width / 4, width * 3 / 4, 2.5 * step)
    box = np.stack([a.ravel() for a in np.meshgrid(columns, lines)], axis=-1)
    wall = np.random.default_rng(0).uniform((0, 0), (width, height), (3000, 2))
    uv, depth = np.concatenate([box, wall]), np.concatenate([np.full(len(box), 6.0), np.full(len(wall), 18.0)])
    visible = geometry.visible_points(uv, depth, height, width)
    centre = np.array([width / 2, height / 2])
    off = np.abs(wall - centre) / (width / 4, height / 4)
    behind, beside = off.max(axis=1) < 0.97, off.max(axis=1) > 1.03
    assert visible[: len(box)].all()
    assert visible[len(box) :][beside].all()
    assert visible[len(box) :][behind].mean() < 0.02


def ground(height: float, roll: float, scan: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of a level floor that a camera (f = 300, 320x240) sees from `height` metres above it."""
    if scan == "pixels":
        x, y = np.meshgrid((np.arange(320) + 0.5 - 160) / 300, (np.arange(240) + 0.5 - 120) / 300)
    elif scan == "random":
        x, y = np.random.default_rng(0).uniform((-160 / 300, -0.4), (160 / 300, 0.4), (40_000, 2)).T
    else:  # lines of a LiDAR at the camera
        azimuth, elevation = np.meshgrid(np.deg2rad(np.arange(-28, 28, 0.2)), np.deg2rad(np.arange(0, 21, 0.4)))
        x, y = np.tan(azimuth), np.tan(elevation) / np.cos(azimuth)
    drop = x * np.sin(roll) + y * np.cos(roll)
    below = drop > 0.5 / 300  # the last half pixel before the horizon holds everything up to infinity
    return np.stack([x * 300 + 160, y * 300 + 120], axis=-1)[below], height / drop[below]


@pytest.mark.parametrize("scan", ["pixels", "random", "lidar"])
@pytest.mark.parametrize("height", [0.1, 0.3, 1.6])
@pytest.mark.parametrize("roll", [0.0, 0.3])
def test_the_ground_does_not_hide_itself(height: float, roll: float, scan: str) -> None:
    """At no distance: three pixels lower the floor is far nearer, but on one side only."""
    uv, depth = ground(height, roll, scan)
    visible = geometry.visible_points(uv, depth, 240, 320)
    for near, far in ((0, 2), (2, 5), (5, 15), (15, np.inf)):
        ring = (depth >= near) & (depth < far)
        assert not ring.any() or visible[ring].mean() >= 0.99
    assert geometry.visible_points(uv, depth, 240, 320, radius=3).mean() >= 0.99


def test_a_slanted_surface_does_not_hide_itself() -> None:
    u, v = (a.ravel() for a in np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5))
    slanted = 1.6 * 80 / (v + 20)  # a road below a camera at 1.6 m
    assert geometry.visible_points(np.stack([u, v], axis=-1), slanted, 60, 80, radius=3).all()
