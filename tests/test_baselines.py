"""Prompt-only baselines: exact cases, promises shared by all, and degenerate prompts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything.core.errors import InputError
from metricanything.inference.baselines import BASELINES, idw, linear, nearest

H, W = 24, 32


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


def test_pixel_centre_convention() -> None:
    """A point at (0.5, 0.5) is the top-left pixel, one at (W - 0.5, H - 0.5) the bottom-right."""
    for baseline in BASELINES.values():
        dense = baseline.complete([[0.5, 0.5], [W - 0.5, H - 0.5], [0.5, H - 0.5]], [1, 2, 3], H, W)
        assert (dense[0, 0], dense[-1, -1], dense[-1, 0]) == pytest.approx((1, 2, 3))


@pytest.mark.parametrize("name", BASELINES)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), on_pixels=st.booleans())
@settings(deadline=None, max_examples=40)
def test_promises_of_every_baseline(name: str, seed: int, n: int, on_pixels: bool) -> None:
    uv, depth = prompt(n, seed)
    if on_pixels:  # many ties, lines and duplicates
        uv = np.floor(uv / 4) * 4 + 0.5
    dense = BASELINES[name].complete(uv, depth, H, W)
    assert dense.shape == (H, W) and dense.dtype == np.float32
    assert np.isfinite(dense).all() and dense.min() >= depth.min() and dense.max() <= depth.max()
    order = np.random.default_rng(seed).permutation(n)
    if not on_pixels:  # the order of the points does not matter
        np.testing.assert_allclose(BASELINES[name].complete(uv[order], depth[order], H, W), dense, rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
def test_given_points_are_kept(name: str) -> None:
    rng = np.random.default_rng(5)
    cells = rng.choice(H * W, 50, replace=False)
    uv = np.stack([cells % W, cells // W], axis=1) + 0.5
    depth = rng.uniform(1, 9, 50).astype(np.float32)
    dense = BASELINES[name].complete(uv, depth, H, W)
    np.testing.assert_allclose(dense[cells // W, cells % W], depth, rtol=1e-5)


@pytest.mark.parametrize("name", BASELINES)
class TestDegeneratePrompts:
    def test_no_point_is_unknown(self, name: str) -> None:
        dense = BASELINES[name].complete(np.empty((0, 2)), np.empty(0), H, W)
        assert dense.shape == (H, W) and dense.dtype == np.float32 and np.isnan(dense).all()
        assert np.isnan(BASELINES[name].complete([], [], H, W)).all()

    def test_unusable_points_are_left_out(self, name: str) -> None:
        uv = [[3, 3], [9, 9], [12, 4], [20, 20], [np.nan, 5]]
        dense = BASELINES[name].complete(uv, [2.0, np.nan, 0.0, np.inf, 7.0], H, W)
        assert (dense == 2).all()

    def test_two_points(self, name: str) -> None:
        dense = BASELINES[name].complete([[4.5, 4.5], [28.5, 20.5]], [1.0, 3.0], H, W)
        assert dense[4, 4] == pytest.approx(1) and dense[20, 28] == pytest.approx(3) and np.isfinite(dense).all()

    def test_collinear_points(self, name: str) -> None:
        u = np.arange(0.5, W, 3)
        for uv in (np.stack([u, np.full_like(u, 7.5)], 1), np.stack([u, u / 3 + 0.1], 1)):
            dense = BASELINES[name].complete(uv, np.linspace(1, 5, len(u)), H, W)
            assert np.isfinite(dense).all() and dense[0, 0] < dense[0, -1]

    def test_nearest_duplicate_wins(self, name: str) -> None:
        uv = [[4.5, 4.5], [4.5, 4.5], [4.5, 4.5], [28.5, 20.5], [28.5, 2.5]]
        dense = BASELINES[name].complete(uv, [9.0, 2.0, 5.0, 3.0, 3.0], H, W)
        assert dense[4, 4] == pytest.approx(2) and dense.max() <= 3

    def test_wrong_shapes(self, name: str) -> None:
        for uv, depth in (([[1, 2, 3]], [1.0]), ([[1, 2]], [1.0, 2.0]), ([1, 2], [1.0]), ([[1, 2]], 1.0)):
            with pytest.raises(InputError, match="prompt needs"):
                BASELINES[name].complete(uv, depth, H, W)


def test_registry_describes_itself() -> None:
    assert list(BASELINES) == ["nearest", "linear", "idw"]
    assert all(b.description and "\n" not in b.description for b in BASELINES.values())
