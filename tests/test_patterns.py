"""Prompt patterns: what every family promises, and the geometry of each against an independent definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from metricanything.core.errors import InputError
from metricanything.patterns import FAMILIES, Family, draw_prompt, get_pattern
from metricanything.patterns.grid import Grid
from metricanything.patterns.lidar import LidarLines
from metricanything.patterns.uniform import Uniform

NAMES = sorted({name for family in FAMILIES.values() for name in (family.name, family.example)})

depths = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=40),
    elements=st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf, 0.3, 2.0, 80.0]),
)


def draw(pattern: str, depth: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return get_pattern(pattern).draw(depth, torch.Generator().manual_seed(seed))


def sparse_depth(seed: int, shape: tuple[int, int, int], share: float) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 9, shape).astype(np.float32)
    depth[rng.random(shape) > share] = np.nan
    return torch.from_numpy(depth)


# ---------------------------------------------------------------- every family


@pytest.mark.parametrize("name", NAMES)
@given(depth=depths, seed=st.integers(0, 2**31))
def test_mask_lies_on_known_depth(name: str, depth: np.ndarray, seed: int) -> None:
    tensor = torch.from_numpy(depth)
    mask = draw(name, tensor, seed)
    assert mask.dtype == torch.bool
    assert mask.shape == tensor.shape
    with np.errstate(invalid="ignore"):
        assert not (mask.numpy() & ~(np.isfinite(depth) & (depth > 0))).any()
    assert torch.equal(mask, draw(name, tensor, seed))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_seeds_and_samples_differ(name: str) -> None:
    """Without a fixed number every family is random: between seeds, and between the images of one batch."""
    depth = torch.ones(3, 120, 160)
    first, second = draw(name, depth, seed=1), draw(name, depth, seed=2)
    assert first.flatten(1).any(dim=1).all()
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1]) or not torch.equal(first[1], first[2])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_family_is_described(family: Family) -> None:
    assert FAMILIES[family.name] is family
    assert family.example.split("-")[0] == family.name
    assert family.description
    assert draw(family.example, torch.ones(1, 96, 128)).any()


def test_names_parse() -> None:
    assert get_pattern("uniform") == Uniform()
    assert get_pattern("uniform-500") == Uniform(points=(500, 500), max_fraction=1.0)
    assert get_pattern("lidar-8") == LidarLines(lines=(8, 8))
    assert get_pattern("grid-16") == Grid(factors=(16, 16))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-",
        "uniform-",
        "uniform-0",
        "uniform-00",
        "uniform-05",
        "uniform--5",
        "uniform-x",
        "uniform-5-5",
        "uniform-²",
        "uniform-1.5",
        "uniform 500",
        "Uniform",
        "radar",
        "lidar8",
        "grid-8\n",
        "uniform-" + "9" * 5000,
    ],
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InputError, match="use for example uniform-500, lidar-8, grid-8") as caught:
        get_pattern(name)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- uniform


@given(
    share=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    count=st.sampled_from([1, 7, 100, 400, 5000]),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_uniform_count_is_exact(share: float, count: int, height: int, width: int, seed: int) -> None:
    depth = sparse_depth(seed, (2, height, width), share)
    mask = draw(f"uniform-{count}", depth, seed)
    known = torch.isfinite(depth).flatten(1).sum(dim=1)
    assert mask.flatten(1).sum(dim=1).tolist() == [min(count, int(n)) for n in known]


@pytest.mark.parametrize("count", [40, 600, 2000])
def test_uniform_is_uniform(count: int) -> None:
    """Counts in 8x8 blocks against a flat law, for each way of choosing: few, a third and nearly all of the pixels."""
    drawn = sum(draw(f"uniform-{count}", torch.ones(1, 48, 64), seed)[0].int() for seed in range(30))
    blocks = drawn.view(6, 8, 8, 8).sum(dim=(1, 3)).flatten().numpy()
    expected = 30 * count / 48
    # Drawing without replacement only lowers the variance, by the share of pixels that stay behind.
    statistic = ((blocks - expected) ** 2 / expected).sum() / (1 - count / (48 * 64))
    assert stats.chi2.cdf(statistic, df=47) == pytest.approx(0.5, abs=0.499)


def test_uniform_reaches_every_pixel() -> None:
    seen = sum(draw("uniform-10", torch.ones(1, 5, 6), seed)[0].int() for seed in range(100))
    assert int(seen.min()) > 0


def test_default_uniform_counts_are_log_uniform() -> None:
    """100 points to 2 % of the pixels, and as many between 100 and the geometric mean as above it."""
    depth = torch.ones(400, 160, 200)
    counts = Uniform().draw(depth, torch.Generator().manual_seed(0)).flatten(1).sum(dim=1).numpy()
    assert counts.min() >= 100
    assert counts.max() <= 0.02 * 160 * 200
    position = np.log(counts / 100) / np.log(6.4)
    assert stats.kstest(position, "uniform").pvalue > 0.01


def test_uniform_bounds() -> None:
    depth = torch.ones(1, 40, 50)
    assert Uniform(points=(30, 30), max_fraction=1.0).draw(depth, torch.Generator()).sum() == 30
    assert Uniform(points=(100, None), max_fraction=0.01).draw(depth, torch.Generator()).sum() == 100


# ---------------------------------------------------------------- lidar


def beams(lines: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates of all beams by rotating the optical axis: first the yaw, then the pitch of the scanner's ray.

    float64, from (sin yaw cos pitch, sin pitch, cos yaw cos pitch) through K = [f 0 w/2; 0 f h/2] with f = h.
    """
    pitch, yaw = np.linspace(-0.5, 0.5, lines), np.linspace(-np.pi / 2.1, np.pi / 2.1, 200)
    ray = np.array([[(np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)) for y in yaw] for p in pitch])
    return height * ray[..., 0] / ray[..., 2] + width / 2, height * ray[..., 1] / ray[..., 2] + height / 2


@pytest.mark.parametrize("lines", [4, 8, 16, 64])
@pytest.mark.parametrize("size", [(480, 640), (352, 1216), (64, 48)])
def test_lidar_pixels_hold_a_beam(lines: int, size: tuple[int, int]) -> None:
    height, width = size
    mask = draw(f"lidar-{lines}", torch.ones(1, height, width))[0].numpy()
    u, v = beams(lines, height, width)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    expected = np.zeros_like(mask)
    expected[v[inside].astype(int), u[inside].astype(int)] = True
    np.testing.assert_array_equal(mask, expected)
    assert mask.sum() <= 200 * lines


@pytest.mark.parametrize("lines", [5, 8, 16])
def test_lidar_pixels_lie_on_pitch_angles(lines: int) -> None:
    """From each pixel back to angles: its pitch interval holds one of the n angles, at most 200 pixels per angle."""
    height, width = 480, 640
    rows, columns = np.nonzero(draw(f"lidar-{lines}", torch.ones(1, height, width))[0].numpy())

    def pitch(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.arctan2(v - height / 2, np.hypot(u - width / 2, height))

    corners = [pitch(columns + du, rows + dv) for du in (0, 1) for dv in (0, 1)]
    low, high = np.min(corners, axis=0) - 1e-9, np.max(corners, axis=0) + 1e-9
    angles = np.linspace(-0.5, 0.5, lines)
    hit = (angles >= low[:, None]) & (angles <= high[:, None])
    assert (hit.sum(axis=1) == 1).all()
    assert hit.sum(axis=0).max() <= 200


@pytest.mark.parametrize(("size", "points", "rounded"), [((480, 640), 468, 468), ((352, 1216), 752, 754)])
def test_lidar_8_point_counts(size: tuple[int, int], points: int, rounded: int) -> None:
    """468 and 754 are the counts of Prior Depth Anything's LiDAR_8.

    It rounds pixel coordinates, which shifts the pattern by half a pixel against pixel centres at (0.5, 0.5) and at
    1216x352 lets in two beams that fall just outside the image.
    """
    height, width = size
    u, v = (np.round(x) for x in beams(8, height, width))
    original = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    assert original.sum() == rounded
    assert draw("lidar-8", torch.ones(1, height, width)).sum() == points


def test_lidar_is_centred() -> None:
    mask = draw("lidar-16", torch.ones(1, 352, 1216))[0]
    assert torch.equal(mask, mask.flip(0, 1))


def test_lidar_jitter_moves_the_scanner() -> None:
    depth = torch.ones(1, 96, 128)
    still = LidarLines(lines=(8, 8)).draw(depth, torch.Generator().manual_seed(0))
    moved = LidarLines(lines=(8, 8), jitter=0.05).draw(depth, torch.Generator().manual_seed(0))
    assert not torch.equal(still, moved)
    assert moved.any()


# ---------------------------------------------------------------- grid


@given(height=st.integers(1, 90), width=st.integers(1, 90), factor=st.integers(1, 100))
def test_grid_positions(height: int, width: int, factor: int) -> None:
    mask = draw(f"grid-{factor}", torch.ones(1, height, width))[0].numpy()
    for axis, length in ((1, height), (0, width)):
        found = np.flatnonzero(mask.any(axis=axis))
        wanted = np.linspace(0, length - 1, max(length // factor, 1))
        assert len(found) == len(wanted)
        assert np.abs(found - wanted).max() <= 0.5 + 1e-9
    assert mask.sum() == max(height // factor, 1) * max(width // factor, 1)


def test_grid_factors_vary() -> None:
    counts = (
        Grid(factors=(4, 32)).draw(torch.ones(60, 128, 128), torch.Generator().manual_seed(0)).flatten(1).sum(dim=1)
    )
    assert 4**2 <= counts.min() < 8**2
    assert 20**2 < counts.max() <= 32**2


# ---------------------------------------------------------------- a prompt from a depth map


@pytest.mark.parametrize("name", [family.example for family in FAMILIES.values()])
def test_draw_prompt_round_trip(name: str) -> None:
    depth = sparse_depth(3, (1, 120, 160), 0.9)[0].numpy()
    depth[:10] = np.inf
    prompt = draw_prompt(depth, name, seed=5)
    mask = draw(name, torch.from_numpy(depth)[None], seed=5)[0].numpy()
    assert (prompt.height, prompt.width) == depth.shape
    assert len(prompt) == mask.sum()
    np.testing.assert_array_equal(prompt.rasterise(120, 160), np.where(mask, depth, np.float32(np.nan)))


def test_draw_prompt_takes_any_view_and_unit_like_values() -> None:
    """Mirrored views have negative strides, which torch refuses; whole metres must not be mistaken for millimetres."""
    depth = np.full((30, 40), 150.0, dtype=np.float32)
    prompt = draw_prompt(depth[::-1, ::-1], "uniform-20", seed=0)
    assert len(prompt) == 20
    assert (prompt.depth == 150).all()


def test_draw_prompt_says_when_nothing_was_hit() -> None:
    with pytest.raises(InputError, match=r"'lidar-2' hits no known pixel of the 40x30 depth map"):
        draw_prompt(np.ones((30, 40), dtype=np.float32), "lidar-2", seed=0)
    with pytest.raises(InputError, match="'uniform-5' hits no known pixel"):
        draw_prompt(np.full((4, 4), np.nan, dtype=np.float32), "uniform-5", seed=0)
