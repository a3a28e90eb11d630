"""SparsePrompt: only measurements come in, none is invented, none is lost where the grid is fine enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt

examples = settings(deadline=None, max_examples=40, derandomize=True)
CAMERA = Camera.pinhole(60.0, 60.0, 32.0, 24.0, 64, 48)

#: Sparse maps in metres: mostly unknown in one of its spellings, with at least one measurement.
sparse_maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.one_of(st.sampled_from([0.0, np.nan, np.inf, -np.inf, -1.0]), st.floats(0.125, 15.875, width=32)),
).filter(lambda depth: bool((np.isfinite(depth) & (depth > 0)).any()))


def measured(depth: np.ndarray) -> np.ndarray:
    return np.isfinite(depth) & (depth > 0)


# ---------------------------------------------------------------- from a depth map


@examples
@given(sparse_maps)
def test_from_depth_keeps_the_measurements_and_only_them(depth: np.ndarray) -> None:
    prompt = SparsePrompt.from_depth(depth)
    assert len(prompt) == measured(depth).sum()
    assert (prompt.height, prompt.width) == depth.shape
    assert prompt.uv.dtype == prompt.depth.dtype == np.float32
    assert prompt.sigma is None
    np.testing.assert_array_equal(prompt.depth, depth[measured(depth)])
    expected = np.where(measured(depth), depth, np.float32(np.nan))
    np.testing.assert_array_equal(prompt.rasterise(*depth.shape), expected)


@examples
@given(sparse_maps, st.integers(1, 30), st.integers(1, 30))
def test_rasterise_invents_no_value(depth: np.ndarray, height: int, width: int) -> None:
    prompt = SparsePrompt.from_depth(depth)
    grid = prompt.rasterise(height, width)
    assert grid.shape == (height, width)
    assert grid.dtype == np.float32
    values = grid[np.isfinite(grid)]
    assert not np.isinf(grid).any()
    assert 1 <= len(values) <= len(prompt)
    assert np.isin(values, prompt.depth).all()
    assert values.min() == prompt.depth.min()  # the nearest is never covered
    if height >= depth.shape[0] and width >= depth.shape[1]:
        np.testing.assert_array_equal(np.sort(values), np.sort(prompt.depth))  # fine enough: none is lost


def test_nearest_wins_in_a_shared_pixel() -> None:
    prompt = SparsePrompt.from_pixels([[0.5, 0.5], [3.5, 0.5], [3.5, 3.5]], [5.0, 2.0, 7.0], (4, 4))
    np.testing.assert_array_equal(prompt.rasterise(1, 1), [[2]])
    np.testing.assert_array_equal(prompt.rasterise(2, 2), [[5, 2], [np.nan, 7]])


def test_other_layouts_of_a_depth_map() -> None:
    depth = np.array([[0, 2.0, 3.0]])
    for view in (
        depth,
        depth[..., None],
        depth[None],
        depth.tolist(),
        depth.astype(np.float16),
        depth.astype(np.uint8),
    ):
        prompt = SparsePrompt.from_depth(view)
        assert (prompt.height, prompt.width, prompt.depth.tolist()) == (1, 3, [2, 3])
    np.testing.assert_array_equal(prompt.uv, [[1.5, 0.5], [2.5, 0.5]])


@pytest.mark.parametrize("depth", [np.ones(4), np.ones((2, 3, 4)), np.ones((2, 2, 2, 2)), 3.0, np.ones((2, 2), bool)])
def test_what_is_no_depth_map(depth: np.ndarray) -> None:
    with pytest.raises(InputError, match="depth"):
        SparsePrompt.from_depth(depth)


@pytest.mark.parametrize("value", [0, np.nan, np.inf, -np.inf, -2.0])
def test_a_map_without_measurement_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="no measurement"):
        SparsePrompt.from_depth(np.full((4, 5), value))
    with pytest.raises(InputError, match="no point"):
        SparsePrompt.from_pixels([[1.0, 1.0]], [value], (4, 5))


# ---------------------------------------------------------------- units


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32, np.float64])
def test_millimetres_are_refused_with_the_remedy_and_taken_when_stated(kind: type) -> None:
    depth = np.array([[0, 1200, 3400, 2500]], kind)
    with pytest.raises(InputError, match="millimetres") as error:
        SparsePrompt.from_depth(depth)
    assert "'mm'" in str(error.value) and "--prompt-unit" in str(error.value)
    assert "1000" not in str(error.value)  # which would be wrong for centimetres
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="millimetres"):
        SparsePrompt.from_pixels([[0.5, 0.5]], depth[0, 1:2], (1, 4))
    for unit, factor in (("mm", 0.001), ("cm", 0.01), ("m", 1)):
        np.testing.assert_allclose(SparsePrompt.from_depth(depth, unit=unit).depth, depth[0, 1:] * factor, rtol=1e-6)
    with pytest.raises(InputError, match="unit"):
        SparsePrompt.from_depth(depth, unit="inch")  # type: ignore[arg-type]


def test_points_in_millimetres_are_refused_and_taken_when_stated() -> None:
    points = np.array([[900.0, 600.0, 3000.0], [0.0, 0.0, 2000.5]])
    with pytest.raises(InputError, match="millimetres"):
        SparsePrompt.from_points(points, CAMERA)
    with pytest.raises(InputError, match="unit 'inch' is unknown"):
        SparsePrompt.from_points(points, CAMERA, unit="inch")  # type: ignore[arg-type]
    prompt = SparsePrompt.from_points(points, CAMERA, unit="mm")
    np.testing.assert_allclose(prompt.depth, [3, 2.0005], rtol=1e-6)
    np.testing.assert_allclose(prompt.uv[0], [32 + 60 * 0.9 / 3, 24 + 60 * 0.6 / 3], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.3, 5, 80])
def test_plausible_metres_are_not_refused(scale: float) -> None:
    """A close-up, a room and a street."""
    depth = np.random.default_rng(0).uniform(0.5, 1, (20, 20)) * scale
    assert len(SparsePrompt.from_depth(depth)) == 400


# ---------------------------------------------------------------- from points


def pose(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    transform = np.eye(4)
    transform[:3, :3] = q * np.sign(np.linalg.det(q))
    transform[:3, 3] = rng.normal(size=3)
    return transform


def test_points_behind_or_outside_are_left_out() -> None:
    points = np.array(
        [[0, 0, 5.0], [0, 0, -5.0], [0, 0, 0], [50, 0, 5.0], [0, -50, 5.0], [np.nan, 0, 5], [0, 0, np.inf]]
    )
    prompt = SparsePrompt.from_points(points, CAMERA)
    assert prompt.depth.tolist() == [5]
    np.testing.assert_allclose(prompt.uv, [[32, 24]])
    assert (prompt.height, prompt.width) == (48, 64)


@examples
@given(st.integers(0, 1000), st.booleans())
def test_extrinsics_bring_the_points_into_the_camera(seed: int, short: bool) -> None:
    rng = np.random.default_rng(seed)
    in_camera = rng.uniform((-1, -1, 3), (1, 1, 9), (40, 3))
    cam_from_points = pose(seed)
    elsewhere = (in_camera - cam_from_points[:3, 3]) @ cam_from_points[:3, :3]
    transform = cam_from_points[:3] if short else cam_from_points
    prompt = SparsePrompt.from_points(elsewhere, CAMERA, cam_from_points=transform, remove_hidden=False)
    np.testing.assert_allclose(prompt.depth, in_camera[:, 2], rtol=1e-5)
    np.testing.assert_allclose(prompt.uv, CAMERA.project(in_camera), atol=1e-3)


def test_hidden_points_are_removed_unless_kept_on_purpose() -> None:
    u, v = (a.ravel() for a in np.meshgrid(np.arange(20, 40) + 0.5, np.arange(15, 35) + 0.5))
    rays = CAMERA.unproject(np.stack([u, v], axis=-1))
    rays /= rays[:, 2:]
    points = np.concatenate([rays * 3, rays * 12])
    assert SparsePrompt.from_points(points, CAMERA).depth.max() == pytest.approx(3)
    assert len(SparsePrompt.from_points(points, CAMERA, remove_hidden=False)) == 800


def test_a_floor_before_a_low_camera_is_kept() -> None:
    """A robot vacuum's view: every third pixel down, the floor is a good deal nearer."""
    camera = Camera.pinhole(300, 300, 160, 120, 320, 240)
    u, v = (a.ravel() for a in np.meshgrid(np.arange(320) + 0.5, np.arange(123, 240) + 0.5))
    depth = 0.3 * 300 / (v - 120)
    points = np.stack([(u - 160) / 300 * depth, np.full_like(u, 0.3), depth], axis=-1)
    assert depth.max() > 20
    assert len(SparsePrompt.from_points(points, camera)) == len(points)


def test_fisheye_points_have_z_depth() -> None:
    camera = Camera.kannala_brandt(20, 20, 32, 24, 64, 48, distortion=(0, 0, 0, 0))
    angle = np.deg2rad([10, 60, 85, 95])  # the last one is seen, but behind the image plane
    points = 4 * np.stack([np.sin(angle), np.zeros(4), np.cos(angle)], axis=-1)
    prompt = SparsePrompt.from_points(points, camera)
    np.testing.assert_allclose(prompt.depth, 4 * np.cos(angle[:3]), rtol=1e-6)


def test_points_that_miss_the_image_are_refused() -> None:
    for points in (np.array([[0, 0, -5.0]]), np.zeros((0, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(InputError, match="cam_from_points"):
            SparsePrompt.from_points(points, CAMERA)
    for bad in (np.ones((4, 2)), np.ones(3)):
        with pytest.raises(InputError, match="points"):
            SparsePrompt.from_points(bad, CAMERA)
    with pytest.raises(InputError, match=r"points\[:, :3\]"):  # with reflectance, as a sweep is stored
        SparsePrompt.from_points(np.ones((5, 4)), CAMERA)
    for transform in (np.eye(3), np.full((4, 4), np.nan)):
        with pytest.raises(InputError, match="cam_from_points"):
            SparsePrompt.from_points(np.array([[0, 0, 5.0]]), CAMERA, cam_from_points=transform)


# ---------------------------------------------------------------- from pixels


def test_from_pixels_drops_unknown_depths() -> None:
    prompt = SparsePrompt.from_pixels(
        [[1, 1], [2, 2], [3, 3], [4, 4], [-9, 9]], [1.5, 0, np.nan, 2.5, np.inf], (10, 12), sigma=[1, 2, 3, 4, 5]
    )
    assert prompt.depth.tolist() == [1.5, 2.5]
    assert prompt.uv.tolist() == [[1, 1], [4, 4]]
    assert prompt.sigma is not None
    assert prompt.sigma.tolist() == [1, 4]
    assert (prompt.height, prompt.width) == (10, 12)


def test_from_pixels_outside_the_image_is_refused() -> None:
    for uv in ([[12.5, 1.0]], [[1.0, 10.5]], [[-0.1, 1.0]], [[np.nan, 1.0]]):
        with pytest.raises(InputError, match="outside"):
            SparsePrompt.from_pixels(uv, [2.0], (10, 12))
    assert len(SparsePrompt.from_pixels([[12.0, 10.0], [0.0, 0.0]], [2.0, 2.0], (10, 12))) == 2  # the borders belong
    for uv, depth in (([[1.0, 1.0]], [1.0, 2.0]), ([1.0, 1.0], [1.0]), ([[1.0, 1.0, 1.0]], [1.0])):
        with pytest.raises(InputError, match="uv"):
            SparsePrompt.from_pixels(uv, depth, (10, 12))


@pytest.mark.parametrize(
    "bad",
    [[[1.0, 2.0, 3.0], [1.0, 2.0]], [["a", "b", "c"]], [[None, 1.0, 2.0]], "points.ply", None, {"x": 1}],
    ids=["ragged", "text", "none inside", "path", "none", "dict"],
)
def test_what_is_no_array_of_numbers(bad: object) -> None:
    def refused(call: object, *arguments: object, **options: object) -> None:
        with pytest.raises(InputError, match="prompt: ") as error:
            call(*arguments, **options)  # type: ignore[operator]
        assert "\n" not in str(error.value)

    point = np.array([[0, 0, 5.0]])
    refused(SparsePrompt.from_points, bad, CAMERA)
    refused(SparsePrompt.from_pixels, bad, [1.0], (10, 12))
    refused(SparsePrompt.from_pixels, [[1.0, 1.0]], bad, (10, 12))
    refused(SparsePrompt.from_depth, bad)
    if bad is not None:
        refused(SparsePrompt.from_points, point, CAMERA, cam_from_points=bad)
        refused(SparsePrompt.from_points, point, CAMERA, sigma=bad)
    refused(SparsePrompt.from_points, point, bad)
    refused(SparsePrompt.from_pixels, [[1.0, 1.0]], [1.0], bad)


# ---------------------------------------------------------------- sigma, scale, and the bare record


def test_sigma_follows_its_points() -> None:
    depth = np.array([[0, 2.0], [3.0, np.nan]])
    from_depth = SparsePrompt.from_depth(depth, sigma=depth / 10)
    np.testing.assert_allclose(from_depth.sigma, [0.2, 0.3], rtol=1e-6)
    points = np.array([[0, 0, -5.0], [0, 0, 5.0], [1, 0, 6.0]])
    np.testing.assert_allclose(SparsePrompt.from_points(points, CAMERA, sigma=[0.1, 0.2, 0.3]).sigma, [0.2, 0.3])
    tripled = from_depth.scaled(3)
    np.testing.assert_allclose(tripled.depth, [6, 9], rtol=1e-6)
    np.testing.assert_allclose(tripled.sigma, [0.6, 0.9], rtol=1e-6)
    np.testing.assert_array_equal(tripled.uv, from_depth.uv)
    assert SparsePrompt.from_depth(depth).scaled(2).sigma is None


@pytest.mark.parametrize("sigma", [np.ones((3, 3)), np.ones(1), np.ones((2, 2, 2))])
def test_sigma_of_another_shape_is_refused(sigma: np.ndarray) -> None:
    with pytest.raises(InputError, match="sigma"):
        SparsePrompt.from_depth(np.full((2, 2), 3.0), sigma=sigma)
    with pytest.raises(InputError, match="sigma"):
        SparsePrompt.from_pixels([[0.5, 0.5], [1.5, 1.5]], [3.0, 3.0], (2, 2), sigma=sigma)
    with pytest.raises(InputError, match="sigma"):
        SparsePrompt.from_points(np.array([[0, 0, 5.0], [0.1, 0, 5.0]]), CAMERA, sigma=sigma)


def test_an_empty_prompt_rasterises_to_nothing() -> None:
    empty = SparsePrompt(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), 4, 5)
    assert len(empty) == 0
    assert np.isnan(empty.rasterise(8, 10)).all()
    assert len(empty.scaled(2)) == 0


def test_a_contradictory_record_is_refused() -> None:
    uv, depth = np.zeros((2, 2), np.float32), np.ones(2, np.float32)
    for bad in ((uv[:1], depth), (uv[:, :1], depth), (uv, depth[:1]), (uv, depth * 0), (uv, depth * np.nan)):
        with pytest.raises(InputError, match="prompt"):
            SparsePrompt(*bad, 4, 5)
    with pytest.raises(InputError, match="sigma"):
        SparsePrompt(uv, depth, 4, 5, sigma=depth[:1])
