"""Baselines: exact cases, promises shared by all, and degenerate prompts."""

from __future__ import annotations

import numpy as np
import pytest
from expectations import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything.core.errors import InputError
from metricanything.inference.baselines import (
    BASELINES,
    fitted,
    guided,
    idw,
    linear,
    morphological,
    nearest,
    prompt_only,
)

H, W = 24, 32
SLANT = (5 + np.add.outer(0.1 * np.arange(H), 0.2 * np.arange(W))).astype(np.float32)
#: Those whose map is made of the points alone; all but the last keep the points exactly.
INTERPOLATING = ("nearest", "linear", "idw", "guided", "morphological")


def prompt(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (n, 2)) * (W, H), rng.uniform(0.5, 20, n).astype(np.float32)


def centres() -> np.ndarray:
    return np.array([[(u + 0.5, v + 0.5) for u in range(W)] for v in range(H)])


def test_nearest_equals_brute_force() -> None:
    uv, depth = prompt(60)
    distance = np.linalg.norm(centres()[:, :, None] - uv, axis=-1)
    np.testing.assert_array_equal(nearest(uv, depth, H, W), depth[distance.argmin(-1)])


def test_linear_reproduces_a_plane_inside_the_hull() -> None:
    def plane(uv: np.ndarray) -> np.ndarray:
        return 3 + 0.05 * uv[..., 0] - 0.02 * uv[..., 1]

    corners = np.array([[0, 0], [W, 0], [0, H], [W, H]], float)
    uv = np.concatenate([prompt(40)[0], corners])
    np.testing.assert_allclose(linear(uv, plane(uv), H, W), plane(centres()), rtol=1e-6)


def test_linear_uses_the_nearest_point_outside_the_hull() -> None:
    uv, depth = np.array([[10.0, 10], [14, 10], [10, 14]]), np.array([1.0, 2, 3])
    dense = linear(uv, depth, H, W)
    assert dense[0, 0] == 1 and dense[10, W - 1] == 2 and dense[H - 1, 10] == 3
    assert dense[11, 11] == pytest.approx(1 + 1.5 / 4 + 2 * 1.5 / 4)


def test_idw_equals_the_formula() -> None:
    uv, depth = prompt(50, seed=3)
    distance = np.linalg.norm(centres()[:, :, None] - uv, axis=-1)
    expected = np.empty((H, W))
    for v in range(H):
        for u in range(W):
            chosen = np.argsort(distance[v, u])[:8]
            weight = distance[v, u, chosen] ** -2
            expected[v, u] = (weight * depth[chosen]).sum() / weight.sum()
    np.testing.assert_allclose(idw(uv, depth, H, W), expected, rtol=1e-5)


def complete(name: str, uv: object, depth: object) -> np.ndarray:
    """A baseline with all it could want: a grey image, and a prediction of a slanted plane without gaps."""
    image = np.full((H, W, 3), 128, np.uint8)
    return BASELINES[name].complete(uv, depth, H, W, image=image, prediction=SLANT)


@pytest.mark.parametrize("name", INTERPOLATING)
def test_pixel_centre_convention(name: str) -> None:
    """A point at (0.5, 0.5) is the top-left pixel, one at (W - 0.5, H - 0.5) the bottom-right."""
    dense = complete(name, [[0.5, 0.5], [W - 0.5, H - 0.5], [0.5, H - 0.5]], [1, 2, 3])
    assert (dense[0, 0], dense[-1, -1], dense[-1, 0]) == pytest.approx((1, 2, 3), rel=1e-4)


@pytest.mark.parametrize("name", BASELINES)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), on_pixels=st.booleans())
@settings(deadline=None, max_examples=40)
def test_promises_of_every_baseline(name: str, seed: int, n: int, on_pixels: bool) -> None:
    uv, depth = prompt(n, seed)
    if on_pixels:  # many ties, lines and duplicates
        uv = np.floor(uv / 4) * 4 + 0.5
    dense = complete(name, uv, depth)
    assert dense.shape == (H, W) and dense.dtype == np.float32
    assert np.isfinite(dense).all() and dense.min() > 0
    if BASELINES[name].needs != "prediction":
        assert dense.min() >= depth.min() and dense.max() <= depth.max()
    order = np.random.default_rng(seed).permutation(n)
    if not on_pixels:  # the order of the points does not matter
        np.testing.assert_allclose(complete(name, uv[order], depth[order]), dense, rtol=1e-5)
    # Metres in, metres out: the map scales with the points.
    np.testing.assert_allclose(complete(name, uv, depth * np.float32(3)), 3 * dense, rtol=1e-4)


@pytest.mark.parametrize("name", INTERPOLATING[:-1])
def test_given_points_are_kept(name: str) -> None:
    rng = np.random.default_rng(5)
    cells = rng.choice(H * W, 50, replace=False)
    uv = np.stack([cells % W, cells // W], axis=1) + 0.5
    depth = rng.uniform(1, 9, 50).astype(np.float32)
    dense = complete(name, uv, depth)
    np.testing.assert_allclose(dense[cells // W, cells % W], depth, rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
class TestUnusablePrompts:
    def test_no_point_is_unknown(self, name: str) -> None:
        dense = complete(name, np.empty((0, 2)), np.empty(0))
        assert dense.shape == (H, W) and dense.dtype == np.float32 and np.isnan(dense).all()
        assert np.isnan(complete(name, [], [])).all()

    def test_unusable_points_are_left_out(self, name: str) -> None:
        uv = [[3, 3], [9, 9], [12, 4], [20, 20], [np.nan, 5]]
        dense = complete(name, uv, [2.0, np.nan, 0.0, np.inf, 7.0])
        np.testing.assert_array_equal(dense, complete(name, [[3, 3]], [2.0]))

    def test_wrong_shapes(self, name: str) -> None:
        for uv, depth in (([[1, 2, 3]], [1.0]), ([[1, 2]], [1.0, 2.0]), ([1, 2], [1.0]), ([[1, 2]], 1.0)):
            with pytest.raises(InputError, match="prompt needs"):
                complete(name, uv, depth)

    def test_one_point_is_met(self, name: str) -> None:
        assert complete(name, [[9.5, 7.5]], [4.0])[7, 9] == pytest.approx(4)

    def test_points_beyond_the_border_count(self, name: str) -> None:
        dense = complete(name, [[-3, 5], [W + 2, 5]], [2.0, 4.0])
        assert np.isfinite(dense).all() and (dense > 0).all()


@pytest.mark.parametrize("name", INTERPOLATING)
class TestDegeneratePrompts:
    def test_two_points(self, name: str) -> None:
        dense = complete(name, [[4.5, 4.5], [28.5, 20.5]], [1.0, 3.0])
        assert (
            dense[4, 4] == pytest.approx(1, rel=1e-3)
            and dense[20, 28] == pytest.approx(3, rel=1e-3)
            and np.isfinite(dense).all()
        )

    def test_collinear_points(self, name: str) -> None:
        u = np.arange(0.5, W, 3)
        for uv in (np.stack([u, np.full_like(u, 7.5)], 1), np.stack([u, u / 3 + 0.1], 1)):
            dense = complete(name, uv, np.linspace(1, 5, len(u)))
            assert np.isfinite(dense).all() and dense[0, 0] < dense[0, -1]

    def test_nearest_duplicate_wins(self, name: str) -> None:
        uv = [[4.5, 4.5], [4.5, 4.5], [4.5, 4.5], [28.5, 20.5], [28.5, 2.5]]
        dense = complete(name, uv, [9.0, 2.0, 5.0, 3.0, 3.0])
        assert dense[4, 4] == pytest.approx(2) and dense.max() <= 3


def test_registry_describes_itself() -> None:
    assert {"nearest", "linear", "idw", "morphological", "guided", "fitted"} <= set(BASELINES)
    assert set(prompt_only()) == set(INTERPOLATING)
    assert all(b.description and "\n" not in b.description for b in BASELINES.values())


class TestMorphological:
    def test_near_surfaces_win_and_grow(self) -> None:
        dense = morphological([[8.5, 8.5], [10.5, 8.5]], [9.0, 2.0], H, W)
        assert dense[8, 8] < 5  # two pixels from the near point, inside its diamond: the far one behind it is covered

    def test_a_dense_plane_stays(self) -> None:
        v, u = np.mgrid[0:H, 0:W]
        dense = morphological(np.stack([u.ravel(), v.ravel()], 1) + 0.5, SLANT.ravel(), H, W)
        inner = (slice(6, -6), slice(6, -6))
        assert np.abs(dense - SLANT)[inner].max() < 0.1 * 2 + 0.2 * 2  # the dilation of 2 pixels, at most

    def test_one_point_fills_any_size(self) -> None:
        assert (morphological([[0.5, 0.5]], [3.0], 300, 500) == 3).all()


class TestGuided:
    @staticmethod
    def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A dark surface at 2 m before a bright one at 8 m, with 60 points."""
        truth = np.where(np.arange(W) + 0 * np.arange(H)[:, None] < 13 + np.arange(H)[:, None] / 3, 2.0, 8.0)
        image = np.repeat(np.where(truth < 5, 40, 200)[..., None], 3, axis=-1).astype(np.uint8)
        cells = np.random.default_rng(1).choice(H * W, 60, replace=False)
        return truth, image, np.stack([cells % W, cells // W], 1) + 0.5, truth.ravel()[cells]

    def test_follows_the_edge_of_the_image(self) -> None:
        truth, image, uv, depth = self.scene()
        with_image = np.abs(guided(uv, depth, H, W, image=image) - truth).mean()
        assert with_image < 0.01
        assert np.abs(idw(uv, depth, H, W) - truth).mean() > 20 * with_image

    def test_a_flat_image_says_nothing(self) -> None:
        truth, _, uv, depth = self.scene()
        flat = guided(uv, depth, H, W, image=np.full((H, W, 3), 9, np.uint8))
        assert np.abs(flat - truth).mean() > 0.1

    def test_a_wrong_image_is_refused(self) -> None:
        for image in (np.zeros((H, W), np.uint8), np.zeros((H, W + 1, 3), np.uint8), np.zeros((H, W, 3))):
            assert_refused(lambda image=image: guided([[1, 1]], [1.0], H, W, image=image), "uint8")


class TestFitted:
    @staticmethod
    def points(truth: np.ndarray, n: int = 40, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
        cells = np.random.default_rng(seed).choice(H * W, n, replace=False)
        return np.stack([cells % W, cells // W], 1) + 0.5, truth.ravel()[cells]

    def test_recovers_scale_and_shift_in_depth(self) -> None:
        uv, depth = self.points(SLANT)
        np.testing.assert_allclose(fitted(uv, depth, H, W, prediction=0.01 * SLANT + 7), SLANT, rtol=1e-4)

    def test_recovers_scale_and_shift_in_disparity(self) -> None:
        uv, depth = self.points(SLANT)
        relative = 1 / (30 / SLANT + 4)
        np.testing.assert_allclose(fitted(uv, depth, H, W, prediction=relative, space="disparity"), SLANT, rtol=1e-4)
        off = fitted(uv, depth, H, W, prediction=relative)  # the wrong space leaves an error
        assert np.abs(off - SLANT).max() > 0.05

    def test_outliers_do_not_turn_the_robust_fit(self) -> None:
        uv, depth = self.points(SLANT)
        depth = depth.copy()
        depth[:8] /= 4
        for shift in (True, False):
            robust = fitted(uv, depth, H, W, prediction=SLANT / 2, shift=shift)
            plain = fitted(uv, depth, H, W, prediction=SLANT / 2, shift=shift, robust=False)
            assert np.abs(robust / SLANT - 1).max() < 0.01 < 0.1 < np.abs(plain / SLANT - 1).max()

    def test_without_robustness_it_is_relative_least_squares(self) -> None:
        rng = np.random.default_rng(4)
        uv, depth = self.points(SLANT * rng.uniform(0.9, 1.1, SLANT.shape))
        rows, columns = uv[:, 1].astype(int), uv[:, 0].astype(int)
        system = np.stack([SLANT[rows, columns], np.ones(len(depth))], 1) / depth[:, None]
        scale, shift = np.linalg.lstsq(system, np.ones(len(depth)), rcond=None)[0]
        dense = fitted(uv, depth, H, W, prediction=SLANT, robust=False)
        np.testing.assert_allclose(dense, scale * SLANT + shift, rtol=1e-5)

    def test_gaps_of_the_prediction_are_filled_but_are_no_evidence(self) -> None:
        uv, depth = self.points(SLANT)
        holes = np.where(np.arange(W) < 8, np.nan, 3 * SLANT).astype(np.float32)
        dense = fitted(uv, depth, H, W, prediction=holes)
        np.testing.assert_allclose(dense[:, 8:], SLANT[:, 8:], rtol=1e-4)
        assert np.isfinite(dense).all()

    def test_one_depth_fits_the_scale_alone(self) -> None:
        dense = fitted([[4.5, 4.5]], [2 * SLANT[4, 4]], H, W, prediction=SLANT)
        np.testing.assert_allclose(dense, 2 * SLANT, rtol=1e-5)

    def test_a_prediction_that_cannot_be_used_is_refused(self) -> None:
        for prediction, word in ((np.ones((H, W + 1)), "must be"), (np.full((H, W), np.nan), "no finite positive")):
            assert_refused(lambda p=prediction: fitted([[1, 1]], [1.0], H, W, prediction=p), word)


@pytest.mark.parametrize("name", [name for name, b in BASELINES.items() if b.needs != "prompt"])
def test_what_a_baseline_needs_is_asked_for(name: str) -> None:
    assert_refused(lambda: BASELINES[name].complete([[1, 1]], [1.0], H, W), f"needs {BASELINES[name].needs}=")


def test_linear_over_a_dense_map_with_a_hole_is_what_all_triangles_give() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:40, 0:50]
    known = (rows - 20) ** 2 + (columns - 25) ** 2 > 64
    plane = 2 + 0.03 * rows + 0.02 * columns
    uv = np.stack([columns, rows], axis=-1)[known] + 0.5
    np.testing.assert_allclose(linear(uv, plane[known], 40, 50), plane, rtol=1e-5)
    # Patches at random places: few of their corners lie on one circle, where several triangulations are as good.
    known = np.zeros_like(known)
    for row, column in rng.integers(0, (36, 46), (12, 2)):
        known[row : row + 4, column : column + 4] = True
    uv, rough = np.stack([columns, rows], axis=-1)[known] + 0.5, rng.uniform(1, 3, known.shape)
    dense = linear(uv, rough[known], 40, 50)
    np.testing.assert_allclose(dense[known], rough[known], rtol=1e-6)
    # A little off the pixel centres no point is left out.
    every = linear(uv + rng.normal(0, 1e-7, uv.shape), rough[known], 40, 50)
    assert np.mean(np.abs(dense - every)[~known] < 1e-4) > 0.95
