"""Pictures of depth, errors and prompt points say what they are meant to say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything.core.colour import colourise_depth, colourise_error, overlay_points
from metricanything.core.errors import InputError

WHITE = [255, 255, 255]


def test_near_is_red_far_is_blue_and_unknown_is_white() -> None:
    depth = np.array([[1.0, 2.0, 50.0, np.nan, np.inf, 0.0, -1.0]], np.float32)
    picture = colourise_depth(depth)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, 7, 3)
    near, _, far = picture[0, :3].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0]
    assert (picture[0, 3:] == WHITE).all()
    assert not (picture[0, :3] == WHITE).all(axis=-1).any()


def test_colour_is_linear_in_inverse_depth() -> None:
    """With the grey map, whose value is its place: 0 at `near`, 255 at `far`, and clipped beyond."""
    inverse = np.linspace(1.2, 0.0125, 200)
    picture = colourise_depth(1 / inverse[None], near=1.0, far=50.0, cmap="gray")[0, :, 0]
    expected = np.clip((1 - inverse) / (1 - 0.02), 0, 1) * 255
    assert np.abs(picture - expected).max() <= 0.5 + 1e-6


def test_bounds_are_quantiles_so_that_outliers_do_not_fade_the_picture() -> None:
    depth = np.random.default_rng(0).uniform(2, 4, (100, 100))
    clean = colourise_depth(depth, cmap="gray").astype(int)
    depth[:1, :50] = 0.01  # 0.5 % of the pixels
    assert np.abs(colourise_depth(depth, cmap="gray")[1:] - clean[1:]).max() <= 4


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_maps_without_contrast(value: float) -> None:
    picture = colourise_depth(np.full((3, 4), value, np.float32))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1
    assert (picture == WHITE).all() == (not np.isfinite(value))


def test_error_colours() -> None:
    picture = colourise_error(np.array([[0.0, 0.1, -0.1, 0.2, 5.0, np.inf, np.nan]]), limit=0.2)
    brightness = picture.sum(axis=-1)[0]
    assert brightness[0] < brightness[1] == brightness[2] < brightness[3] == brightness[4] == brightness[5]
    assert picture[0, 6].tolist() == WHITE
    assert picture[0, 3].tolist() != WHITE


def test_unknown_colour_map_is_named() -> None:
    with pytest.raises(InputError, match="turbo_x"):
        colourise_depth(np.ones((2, 2)), cmap="turbo_x")


def test_dots_lie_at_their_pixels_with_the_nearest_on_top() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    uv, depth = np.array([[10.5, 5.5], [11.5, 5.5], [25.0, 15.9]]), np.array([2.0, 1.0, 8.0])
    picture = overlay_points(image, uv, depth, radius=1)
    assert (image == 0).all()  # the input is untouched
    colours = colourise_depth(depth[None])[0]
    painted = {(r, c) for r, c in zip(*np.nonzero(picture.any(axis=-1)), strict=True)}
    plus = {(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)}
    assert painted == {(r + dr, c + dc) for r, c in ((5, 10), (5, 11), (15, 25)) for dr, dc in plus}
    assert (picture[5, 10:13] == colours[1]).all()
    assert (picture[5, 9] == colours[0]).all()
    assert (picture[15, 25] == colours[2]).all()
    alone = overlay_points(image, uv[:1], depth[:1], radius=0, near=1, far=8)
    assert alone.any(axis=-1).sum() == 1
    np.testing.assert_array_equal(alone[5, 10], colourise_depth(depth[None, :1], near=1, far=8)[0, 0])


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 40), st.integers(0, 5), st.integers(0, 1000))
def test_any_points_can_be_drawn(n: int, radius: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    uv, depth = rng.uniform(-20, 50, (n, 2)), rng.uniform(-1, 9, n)
    wild = rng.random(n) < 0.2
    uv[wild] = rng.choice([np.nan, np.inf, -1e30, 1e30], (int(wild.sum()), 2))
    image = rng.integers(0, 256, (9, 13, 3)).astype(np.uint8)
    picture = overlay_points(image, uv, depth, radius)
    cell = np.floor(np.clip(np.nan_to_num(uv, nan=1e9), -1e9, 1e9))
    v, u = np.mgrid[:9, :13]
    reach = (u[..., None] - cell[:, 0]) ** 2 + (v[..., None] - cell[:, 1]) ** 2 <= radius**2
    np.testing.assert_array_equal(picture[~reach.any(axis=-1)], image[~reach.any(axis=-1)])
