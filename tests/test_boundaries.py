"""Boundary scores against pixel-by-pixel versions, against the published code's numbers, and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_fixtures import scene
from expectations import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metricanything.evaluation.boundaries import boundary_f1, boundary_recall, disc_boundary_f1

THRESHOLDS = [1.05 + 0.2 * k / 9 for k in range(10)]
STEPS = [(0, 1), (0, -1), (1, 0), (-1, 0)]


def exceeds(far: float, near: float, t: float) -> bool:
    if not (far > 0 and near > 0) or near == math.inf:  # NaN compares False
        return False
    return far / near > t


def slow_f1(pred: np.ndarray, gt: np.ndarray, mask: np.ndarray) -> float:
    """Depth Pro's score, pair by pair."""
    height, width = gt.shape
    score = weights = 0.0
    any_pair = False
    for t in THRESHOLDS:
        precision = recall = 0.0
        for dy, dx in STEPS:
            hit = predicted = true = 0
            for i in range(height):
                for j in range(width):
                    y, x = i + dy, j + dx
                    if not (0 <= y < height and 0 <= x < width and mask[i, j] and mask[y, x]):
                        continue
                    if not (gt[i, j] > 0 and gt[y, x] > 0):
                        continue
                    any_pair = True
                    p, g = exceeds(pred[y, x], pred[i, j], t), exceeds(gt[y, x], gt[i, j], t)
                    hit, predicted, true = hit + (p and g), predicted + p, true + g
            precision += hit / max(predicted, 1) / 4
            recall += hit / max(true, 1) / 4
        score += t * (2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        weights += t
    return score / weights if any_pair else math.nan


def slow_recall(pred: np.ndarray, alpha: np.ndarray, mask: np.ndarray) -> float:
    """Depth Pro's recall of a mask's outline; runs of edges are walked one by one."""
    height, width = pred.shape
    score = weights = 0.0
    any_pair = False
    for t in THRESHOLDS:
        recall = 0.0
        for dy, dx in STEPS:
            kept = set()
            lines = (
                [[(i, j) for j in range(width)] for i in range(height)]
                if dx
                else [[(i, j) for i in range(height)] for j in range(width)]
            )
            for line in lines:
                run: list[tuple[float, tuple[int, int]]] = []
                for i, j in [*line, (-9, -9)]:
                    y, x = i + dy, j + dx
                    inside = i >= 0 and 0 <= y < height and 0 <= x < width
                    if inside and exceeds(pred[y, x], pred[i, j], t):
                        run.append((pred[y, x] / pred[i, j], (i, j)))
                    elif run:
                        strongest = max(r for r, _ in run)
                        kept.add(next(at for r, at in run if r == strongest))
                        run = []
            hit = true = 0
            for i in range(height):
                for j in range(width):
                    y, x = i + dy, j + dx
                    if not (0 <= y < height and 0 <= x < width and mask[i, j] and mask[y, x]):
                        continue
                    if math.isnan(alpha[i, j]) or math.isnan(alpha[y, x]):
                        continue
                    any_pair = True
                    if alpha[i, j] > 0.1 and not alpha[y, x] > 0.1:
                        true, hit = true + 1, hit + ((i, j) in kept)
            recall += hit / max(true, 1) / 4
        score, weights = score + t * recall, weights + t
    return score / weights if any_pair else math.nan


def slow_disc(pred: np.ndarray, gt: np.ndarray, radius: int, mask: np.ndarray) -> float:
    """MoGe-2's score, pair by pair."""
    height, width = gt.shape
    known = mask & np.isfinite(gt) & (gt > 0)
    score = weights = 0.0
    any_pair = False
    for t in THRESHOLDS:
        hit = predicted = true = 0
        for i in range(radius, height - radius):
            for j in range(radius, width - radius):
                for y in range(i - radius, i + radius + 1):
                    for x in range(j - radius, j + radius + 1):
                        distance = math.hypot(y - i, x - j)
                        if known[i, j] and known[y, x] and 0 < distance <= radius:
                            any_pair = True
                            p, g = exceeds(pred[y, x], pred[i, j], t), exceeds(gt[y, x], gt[i, j], t)
                            hit, predicted, true = hit + (p and g), predicted + p, true + g
        score += (t - 1) * (2 * hit / (predicted + true) if hit else 0.0)
        weights += t - 1
    return score / weights if any_pair else math.nan


# No two ratios of these are equal and none is a threshold, so that rounding decides nothing.
DEPTH = st.one_of(
    st.sampled_from([1.0, 1.09, 1.15, 1.31, 1.83, 3.0, 6.0]), st.sampled_from([math.nan, math.inf, 0.0, -1.0])
)
MAPS = hnp.arrays(np.float64, (2, 6, 7), elements=DEPTH)
MASKS = hnp.arrays(np.bool_, (6, 7), elements=st.sampled_from([True, True, True, False]))


@given(maps=MAPS, mask=MASKS)
@settings(deadline=None, max_examples=60)
def test_f1_equals_the_slow_version(maps: np.ndarray, mask: np.ndarray) -> None:
    assert boundary_f1(*maps, mask) == pytest.approx(slow_f1(*maps, mask), nan_ok=True)


@given(maps=MAPS, mask=MASKS, radius=st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_disc_f1_equals_the_slow_version(maps: np.ndarray, mask: np.ndarray, radius: int) -> None:
    assert disc_boundary_f1(*maps, radius, mask) == pytest.approx(slow_disc(*maps, radius, mask), nan_ok=True)


@given(pred=hnp.arrays(np.float64, (6, 7), elements=DEPTH), seed=st.integers(0, 10**6), mask=MASKS)
@settings(deadline=None, max_examples=60)
def test_recall_equals_the_slow_version(pred: np.ndarray, seed: int, mask: np.ndarray) -> None:
    alpha = np.random.default_rng(seed).choice([0.0, 0.05, 0.4, 1.0, np.nan], (6, 7))
    assert boundary_recall(pred, alpha, mask) == pytest.approx(slow_recall(pred, alpha, mask), nan_ok=True)


def test_equal_to_the_published_code() -> None:
    """SI_boundary_F1 and SI_boundary_Recall of eval/boundary_metrics.py (github.com/apple/ml-depth-pro), boundary_f1 of
    moge/test/metrics.py (github.com/microsoft/MoGe, float32) for radii 1 to 3."""
    pred, gt, mask = scene()
    assert boundary_f1(pred, gt) == pytest.approx(0.8596230630822544, rel=1e-9)
    assert boundary_recall(pred, np.where(gt < 2.5, 0.9, 0)) == pytest.approx(0.9531131239935587, rel=1e-9)
    assert boundary_recall(pred, gt < 2.5) == boundary_recall(pred, np.where(gt < 2.5, 0.9, 0))
    published = (0.8678267099763649, 0.8139726502416361, 0.7782382408244037)
    assert [disc_boundary_f1(pred, gt, r, mask) for r in (1, 2, 3)] == pytest.approx(published, rel=1e-6)


SCORES = {
    "f1": boundary_f1,
    "disc1": lambda pred, gt, mask=None: disc_boundary_f1(pred, gt, 1, mask),
    "disc2": lambda pred, gt, mask=None: disc_boundary_f1(pred, gt, 2, mask),
}


@pytest.mark.parametrize("name", list(SCORES))
@given(power=st.integers(-8, 8))
@settings(deadline=None, max_examples=10)
def test_scale_does_not_matter_and_turns_do_not_either(name: str, power: int) -> None:
    pred, gt, mask = scene()
    score = SCORES[name](pred, gt, mask)
    assert SCORES[name](pred * 2.0**power, gt * 2.0**-power, mask) == score
    assert SCORES[name](pred.T, gt.T, mask.T) == pytest.approx(score)
    assert SCORES[name](pred[::-1], gt[::-1], mask[::-1]) == pytest.approx(score)


@pytest.mark.parametrize("name", list(SCORES))
def test_perfect_and_blurred(name: str) -> None:
    _, gt, mask = scene()
    blurred = gt.copy()
    blurred[:, 1:-1] = (gt[:, 2:] + gt[:, :-2] + gt[:, 1:-1]) / 3
    assert SCORES[name](gt, gt, mask) == pytest.approx(1)
    assert 0 < SCORES[name](blurred, gt, mask) < 0.95
    assert SCORES[name](np.ones_like(gt), gt, mask) == 0


@pytest.mark.parametrize("name", list(SCORES))
def test_unknown_truth_never_counts(name: str) -> None:
    pred, gt, mask = scene()
    before = SCORES[name](pred, gt, mask)
    assert before != SCORES[name](pred, gt)
    wild = np.where(mask, pred, 1000.0 ** np.sin(np.arange(pred.size)).reshape(pred.shape))
    assert SCORES[name](wild, gt, mask) == before
    for unknown in (np.nan, 0.0, -2.0):
        assert SCORES[name](wild, np.where(mask, gt, unknown)) == before


@pytest.mark.parametrize("name", list(SCORES))
def test_missing_predictions_lose_their_edges(name: str) -> None:
    _, gt, _ = scene()
    pred = gt.copy()
    pred[12:36, 43:47] = np.nan
    assert 0 < SCORES[name](pred, gt) < 1


def test_a_ratio_of_just_the_threshold_is_no_edge() -> None:
    step = np.tile(np.arange(5) >= 2, (5, 1))
    pred, gt = np.where(step, 1.25, 1.0), np.where(step, 2.0, 1.0)
    assert boundary_f1(pred, gt) == pytest.approx(1 / 4 * (1 - 1.25 / 11.5)), "the last of ten thresholds is missed"
    assert disc_boundary_f1(pred, gt, 1) == pytest.approx(1 - 0.25 / 1.5)


def test_sky_is_known_in_the_adjacent_score_alone() -> None:
    gt = np.full((8, 8), 5.0)
    gt[:3] = np.inf
    assert boundary_f1(gt, gt) == pytest.approx(1 / 4), "one direction of four has edges"
    assert boundary_f1(np.full((8, 8), 5.0), gt) == 0
    assert disc_boundary_f1(gt, gt, 1) == 0, "no edge among finite depths"


def test_a_slope_is_one_edge_of_a_mask() -> None:
    depth = np.tile(np.cumprod([1, 1, 1.3, 1.35, 1.3, 1, 1]), (5, 1))
    at = {k: np.tile(np.arange(7) < k, (5, 1)) for k in (2, 3, 4)}
    found = {k: boundary_recall(depth, mask) for k, mask in at.items()}
    assert found == {2: 0, 3: pytest.approx(1 / 4), 4: 0}


def test_nothing_to_measure() -> None:
    ones, unknown = np.ones((5, 6)), np.full((5, 6), np.nan)
    for score in SCORES.values():
        assert math.isnan(score(ones, unknown)) and math.isnan(score(ones, ones, np.zeros((5, 6), bool)))
        assert score(unknown, np.where(np.arange(6) < 3, 1.0, 2.0) * ones) == 0
    assert math.isnan(boundary_recall(ones, unknown))
    assert math.isnan(disc_boundary_f1(ones, ones, 3)), "no pixel is 3 from every border"
    assert math.isnan(boundary_f1(np.ones((1, 1)), np.ones((1, 1))))


def test_bad_input_is_refused() -> None:
    ones = np.ones((5, 6))
    for score in (*SCORES.values(), boundary_recall):
        assert_refused(lambda score=score: score(ones, np.ones((6, 5))), "(5, 6)", "(6, 5)")
        assert_refused(lambda score=score: score(np.ones(4), np.ones(4)), "(H, W)")
        assert_refused(lambda score=score: score(ones, ones, ones), "mask must be bool")
    assert_refused(lambda: disc_boundary_f1(ones, ones, 0), "radius", "0")
