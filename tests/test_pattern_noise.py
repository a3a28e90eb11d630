"""Regions, noise and radar: each law against numpy and scipy, on maps where it can be told from everything else."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from pattern_fixtures import draw, hits, sparse_depth
from scipy import stats

from metricanything.patterns.noise import Misregistration, Noisy, Outliers, RangeNoise
from metricanything.patterns.radar import Radar
from metricanything.patterns.regions import FieldOfView, Hole, Range, quantiles
from metricanything.patterns.uniform import Everything

QUIET = Outliers(probability=(0.0, 0.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First row, first column, height and width of the True pixels, which must fill a rectangle."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert mask.sum() == height * width
    return int(rows[0]), int(columns[0]), int(height), int(width)


# ---------------------------------------------------------------- regions


def test_hole_is_prior_depth_anythings_cubic() -> None:
    """A square of the side at a corner uniform in 0..H - side - 1, 0..W - side - 1, and 2000 points around it."""
    depth = torch.ones(400, 60, 90)
    holes = ~Hole(25).inside(depth, generator()).numpy()
    corners = []
    for hole in holes:
        row, column, height, width = box(hole)
        assert (height, width) == (25, 25)
        corners.append((row, column))
    assert set(np.array(corners)[:, 0]) <= set(range(35))
    assert set(np.array(corners)[:, 1]) <= set(range(65))
    observed = np.bincount(np.array(corners)[:, 0], minlength=35)
    assert stats.chisquare(observed).pvalue > 0.01
    prompt = hits("hole-25", torch.ones(8, 60, 90))
    assert prompt.flatten(1).sum(dim=1).tolist() == [2000] * 8
    free = hits("all+hole-25", torch.ones(8, 60, 90))
    assert free.flatten(1).sum(dim=1).tolist() == [60 * 90 - 25**2] * 8


def test_hole_sides_are_shares_of_the_shorter_side() -> None:
    holes = ~Hole(share=(0.2, 0.6)).inside(torch.ones(200, 50, 70), generator()).numpy()
    sides = np.array([box(hole)[2:] for hole in holes])
    assert (sides[:, 0] == sides[:, 1]).all()
    assert sides.min() == 10
    assert sides.max() == 30


def test_hole_larger_than_the_image_leaves_nothing() -> None:
    assert not hits("hole-100", torch.ones(1, 40, 50)).any()


@given(seed=st.integers(0, 99), near=st.integers(1, 8), span=st.integers(1, 4))
def test_range_is_prior_depth_anythings_distance(seed: int, near: int, span: int) -> None:
    """2000 points among lo < depth < hi."""
    depth = sparse_depth(seed, (1, 60, 80), 0.9)
    depth[0, 0, :2] = torch.tensor([near, near + span], dtype=torch.float32)
    values = depth.numpy()
    expected = (values > near) & (values < near + span)
    np.testing.assert_array_equal(hits(f"all+range-{near}-{near + span}", depth), expected)
    drawn = hits(f"range-{near}-{near + span}", depth)
    assert drawn.sum() == min(2000, expected.sum())
    assert not (drawn.numpy() & ~expected).any()


def test_random_range_keeps_between_quantiles() -> None:
    depth = sparse_depth(0, (300, 30, 40), 0.5)
    values = depth.numpy()
    kept = Range(near=(0.0, 0.3), far=(0.6, 1.0)).inside(depth, generator()).numpy()
    low = np.array([(v[np.isfinite(v)] < v[k].min()).mean() for v, k in zip(values, kept, strict=True)])
    high = np.array([(v[np.isfinite(v)] <= v[k].max()).mean() for v, k in zip(values, kept, strict=True)])
    assert stats.kstest(low, "uniform", args=(0, 0.3)).pvalue > 0.01
    assert stats.kstest(high, "uniform", args=(0.6, 0.4)).pvalue > 0.01


@given(seed=st.integers(0, 99), share=st.sampled_from([0.01, 0.5, 1.0]), level=st.floats(0, 1))
def test_quantiles_are_numpys(seed: int, share: float, level: float) -> None:
    depth = sparse_depth(seed, (3, 15, 20), share)
    depth[:, 0, :5] = torch.tensor([0.0, -3.0, torch.inf, -torch.inf, 2.0])
    ours = quantiles(depth, torch.tensor([[level, 0.5]], dtype=torch.float64).expand(3, 2)).numpy()
    for row, values in zip(ours, depth.numpy(), strict=True):
        known = values[np.isfinite(values) & (values > 0)].astype(np.float64)
        np.testing.assert_allclose(row, np.quantile(known, [level, 0.5]), rtol=1e-5)


def test_field_of_view_is_a_window() -> None:
    windows = FieldOfView(width=(0.3, 0.8), height=(0.5, 0.5)).inside(torch.ones(200, 40, 100), generator()).numpy()
    boxes = np.array([box(window) for window in windows])
    assert (boxes[:, 2] == 20).all()
    assert 30 <= boxes[:, 3].min() < 33
    assert 77 < boxes[:, 3].max() <= 80
    assert set(boxes[:, 0]) == set(range(21))
    row, _, height, width = box(hits("all+fov-40", torch.ones(1, 40, 100))[0].numpy())
    assert (row, height, width) == (0, 40, 40)


# ---------------------------------------------------------------- noise


def test_outliers_are_omni_dcs() -> None:
    """src/data/__init__.py, add_noise: with probability p, uniform between the 10th and the 90th percentile."""
    depth = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 2.0, (1, 200, 200)).astype(np.float32) + 0.1)
    prompt = Noisy(Everything(), Outliers(probability=(0.1, 0.1))).draw(depth, generator())
    wrong = (prompt != depth).numpy()
    assert stats.binomtest(int(wrong.sum()), wrong.size, 0.1).pvalue > 0.01
    low, high = np.percentile(depth.numpy(), [10, 90])
    values = prompt.numpy()[wrong]
    assert values.min() >= low - 1e-5
    assert values.max() <= high + 1e-5
    assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 0.01
    extremes = Outliers(probability=(1.0, 1.0), percentiles=(0.0, 100.0)).disturb(depth, depth, generator()).numpy()
    low, high = depth.min().item(), depth.max().item()
    assert stats.kstest(extremes.ravel(), "uniform", args=(low, high - low)).pvalue > 0.01


def test_outlier_probability_varies_between_images() -> None:
    depth = sparse_depth(0, (200, 40, 40), 1.0)
    shares = (Outliers(probability=(0.0, 0.5)).disturb(depth, depth, generator()) != depth).float().mean(dim=(1, 2))
    assert stats.kstest(shares.numpy(), "uniform", args=(0, 0.5)).pvalue > 0.01


def test_range_noise_is_relative() -> None:
    depth = sparse_depth(0, (1, 150, 200), 0.5)
    ratio = RangeNoise(relative=(0.02, 0.02)).disturb(depth, depth, generator()) / depth
    logs = ratio[torch.isfinite(depth)].log().numpy()
    assert len(logs) > 10_000
    assert stats.kstest(logs, "norm", args=(0, 0.02)).pvalue > 0.01


def test_misregistration_moves_all_points_alike() -> None:
    depth = sparse_depth(0, (60, 40, 50), 0.2)
    moved = Misregistration(pixels=(4, 4)).disturb(depth, depth, generator())
    offsets = set()
    for before, after in zip(depth.numpy(), moved.numpy(), strict=True):
        found = []
        for dy in range(-5, 6):
            for dx in range(-5, 6):
                shifted = np.full_like(before, np.nan)
                source = before[max(0, -dy) : 40 - max(0, dy), max(0, -dx) : 50 - max(0, dx)]
                shifted[max(0, dy) : 40 + min(0, dy), max(0, dx) : 50 + min(0, dx)] = source
                if np.array_equal(shifted, after, equal_nan=True):
                    found.append((dy, dx))
        assert len(found) == 1
        offsets.update(found)
    lengths = np.hypot(*np.array(list(offsets)).T)
    assert np.abs(lengths - 4).max() <= np.sqrt(0.5)  # rounded to whole pixels
    assert len(offsets) > 10


def test_suffixes_apply_in_order() -> None:
    """Each suffix wraps what stands before it: outliers are of the map that the part before them was drawn from."""
    depth = sparse_depth(0, (1, 100, 100), 1.0)
    cut_first = draw("all+range-1-3+outliers-100", depth)
    assert float(cut_first[torch.isfinite(cut_first)].max()) > 3
    noisy_first = draw("all+outliers-100+range-1-3", depth)
    assert float(noisy_first[torch.isfinite(noisy_first)].max()) < 3


# ---------------------------------------------------------------- radar


def test_radar_without_errors_is_points_near_the_horizon() -> None:
    depth = sparse_depth(0, (3, 200, 300), 0.5)
    quiet = Radar((60, 60), elevation=0.1, height_error=0, azimuth_error=0, range_error=0, ghosts=QUIET)
    prompt = quiet.draw(depth, generator())
    points = torch.isfinite(prompt)
    assert points.flatten(1).sum(dim=1).tolist() == [60] * 3
    assert torch.equal(prompt[points], depth[points])
    rows = points.nonzero()[:, 1].numpy() + 0.5
    assert (np.arctan(np.abs(rows - 100) / 200) <= 0.1).all()


def test_radar_errors_follow_their_laws() -> None:
    """From a thin line at 50 m: rows spread by f * h / d, columns by f * azimuth, depths by their share."""
    depth = torch.full((1, 1001, 4001), torch.nan)
    depth[0, 500, 2000] = 50.0
    radar = Radar((1, 1), height_error=2.0, azimuth_error=0.03, range_error=0.02, ghosts=QUIET)
    drawn = radar.draw(depth.expand(400, -1, -1)[:, 400:601, 1900:2101].contiguous(), generator())
    # In the crop f is its height, 201 pixels.
    image, row, column = torch.isfinite(drawn).nonzero(as_tuple=True)
    assert len(image) == 400
    uniform = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 400))  # undoes the rounding to whole pixels
    assert stats.kstest(row.numpy() - 100 + uniform[0], "norm", args=(0, 201 * 2.0 / 50)).pvalue > 0.01
    assert stats.kstest(column.numpy() - 100 + uniform[1], "norm", args=(0, 201 * 0.03)).pvalue > 0.01
    logs = (drawn[image, row, column] / 50).log().numpy()
    assert stats.kstest(logs, "norm", args=(0, 0.02)).pvalue > 0.01


def test_radar_is_few_and_ghostly() -> None:
    depth = sparse_depth(0, (50, 120, 160), 1.0)
    counts = hits("radar", depth).flatten(1).sum(dim=1)
    assert int(counts.min()) > 5
    assert int(counts.max()) <= 125
    ghosts = Radar((100, 100), height_error=0, azimuth_error=0, range_error=0, ghosts=Outliers((0.2, 0.2)))
    drawn = ghosts.draw(depth, generator())
    points = torch.isfinite(drawn)
    wrong = (drawn[points] != depth[points]).sum()
    assert stats.binomtest(int(wrong), int(points.sum()), 0.2).pvalue > 0.01
