"""Point metrics against slow loops, against the published code's numbers, and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_fixtures import point_maps, scene, segments, sparse_mask
from expectations import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metricanything.evaluation import alignment_l1, points
from metricanything.evaluation.alignment import masked_nearest
from metricanything.evaluation.points import evaluate_points, local_points, point_delta1, point_rel

NAMES = [
    f"points_{kind}_{score}"
    for kind in ("metric", "scale_invariant", "affine_invariant")
    for score in ("rel", "delta1")
]


def slow_scores(p: np.ndarray, q: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """rel and delta1, one pixel at a time."""
    relative, inliers = [], []
    for a, b, m in zip(p.reshape(-1, 3), q.reshape(-1, 3), mask.ravel(), strict=True):
        if not m or not all(math.isfinite(x) for x in b) or not any(b):
            continue
        given_point = all(math.isfinite(x) for x in a)
        error = math.dist(a, b) if given_point else math.inf
        relative.append(error / math.hypot(*b) if given_point else 1.0)
        inliers.append(given_point and error < 0.25 * min(math.hypot(*a), math.hypot(*b)))
    n = len(relative)
    return (math.fsum(relative) / n, sum(inliers) / n) if n else (math.nan, math.nan)


NUMBER = st.one_of(st.floats(-8, 8).map(lambda x: round(x, 3)), st.sampled_from([math.nan, math.inf, 0.0]))
MASKS = hnp.arrays(np.bool_, (3, 4))


@given(maps=hnp.arrays(np.float64, (2, 3, 4, 3), elements=NUMBER), mask=MASKS)
@settings(deadline=None, max_examples=80)
def test_equal_to_the_slow_version(maps: np.ndarray, mask: np.ndarray) -> None:
    result = point_rel(*maps, mask), point_delta1(*maps, mask)
    assert result == pytest.approx(slow_scores(*maps, mask), rel=1e-9, nan_ok=True)


@given(seed=st.integers(0, 10**6), chosen=st.integers(0, 3))
@settings(deadline=None, max_examples=12)
def test_alignments_are_those_of_the_grid(seed: int, chosen: int) -> None:
    """Each pixel of a 4 x 4 map is a sample 256 times, which alters no alignment."""
    rng = np.random.default_rng(seed)
    q = rng.normal([0, 0, 4], 1, (4, 4, 3))
    p = 1.4 * q + 0.2 + rng.normal(0, 0.3, q.shape)
    mask = np.isin(np.arange(16), rng.choice(16, chosen, replace=False)).reshape(4, 4)
    p[0, 0] = np.nan
    weight = np.where(mask, 1 / np.linalg.norm(q, axis=-1), 0).ravel()
    flat = p.reshape(-1, 3), q.reshape(-1, 3), weight
    shift, scale = alignment_l1.points_shift(*flat), alignment_l1.points_scale(*flat)
    affine = alignment_l1.points_scale_shift(*flat)
    expected = [*slow_scores(p + shift, q, mask), *slow_scores(p * scale, q, mask)]
    expected += slow_scores(p * affine[0] + affine[1], q, mask)
    result = evaluate_points(p, q, mask)
    assert list(result) == NAMES
    np.testing.assert_allclose([result[name] for name in NAMES], expected, rtol=1e-7)


#: compute_metrics of moge/test/metrics.py (github.com/microsoft/MoGe, float32) for the scene's points as metric points.
MOGE = {
    "points_metric_rel": 0.08915863931179047,
    "points_metric_delta1": 0.9635036587715149,
    "points_scale_invariant_rel": 0.10212478041648865,
    "points_scale_invariant_delta1": 0.9635036587715149,
    "points_affine_invariant_rel": 0.08103224635124207,
    "points_affine_invariant_delta1": 0.9635036587715149,
    "local_points_rel": 0.1960393562912941,
    "local_points_delta1": 0.616666667163372,
}


def test_equal_to_the_published_code() -> None:
    pred, gt = point_maps()
    result = evaluate_points(pred, gt, sparse_mask())
    result |= local_points(pred, gt, segments(), sparse_mask(), min_pixels=1)
    assert result == pytest.approx(MOGE, rel=5e-6)


def slow_local(p: np.ndarray, q: np.ndarray, ids: np.ndarray, mask: np.ndarray, labels: list[int]) -> list[float]:
    """Mean over the segments of rel and delta1; the solver is tested elsewhere."""
    rows, cols = masked_nearest(mask)
    rels, shares = [], []
    for label in labels:
        at = [(i, j) for i, j in zip(rows, cols, strict=True) if ids[i, j] == label]
        inside = [(i, j) for i in range(48) for j in range(60) if mask[i, j] and ids[i, j] == label]
        sides = [max(q[i, j, c] for i, j in inside) - min(q[i, j, c] for i, j in inside) for c in range(3)]
        diameter = float(max(sides))
        sampled = [np.array([x[i, j] for i, j in at], np.float64) for x in (p, q)]
        scale, shift = alignment_l1.points_scale_shift(*sampled, np.ones(len(at)))
        errors = [math.dist(scale * p[i, j].astype(np.float64) + shift, q[i, j]) / diameter for i, j in inside]
        rels.append(sum(errors) / len(errors))
        shares.append(sum(e < 0.25 for e in errors) / len(errors))
    return [sum(rels) / len(rels), sum(shares) / len(shares)]


def test_local_points_equal_the_slow_version_and_leave_out_small_segments() -> None:
    p, q = point_maps()
    mask = scene()[2] & (np.arange(60) % 4 == 0)
    for least, labels in ((1, [1, 2]), (720, [2])):
        result = local_points(p, q, segments(), mask, min_pixels=least)
        assert list(result) == ["local_points_rel", "local_points_delta1"]
        expected = slow_local(p, q, segments(), mask, labels)
        np.testing.assert_allclose(list(result.values()), expected, rtol=1e-6)
    assert all(math.isnan(x) for x in local_points(p, q, segments(), mask).values()), "none has 1000 pixels"


def test_of_many_segments_the_largest_count(monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = point_maps()
    largest = local_points(p, q, np.where(segments() == 2, 2, 0), sparse_mask(), min_pixels=1)
    assert largest != local_points(p, q, segments(), sparse_mask(), min_pixels=1)
    monkeypatch.setattr(points, "MAX_SEGMENTS", 1)
    assert largest == local_points(p, q, segments(), sparse_mask(), min_pixels=1)


def test_a_segment_without_extent_does_not_count() -> None:
    p, q = point_maps()
    q[segments() == 1] = [0, 0, 2]
    expected = local_points(p, q, np.where(segments() == 2, 2, 0), sparse_mask(), min_pixels=1)
    assert local_points(p, q, segments(), sparse_mask(), min_pixels=1) == expected


def test_local_points_do_not_mind_where_an_object_is_but_its_shape() -> None:
    _, q = point_maps()
    ids, mask = segments(), sparse_mask()
    p = q.astype(np.float64).copy()
    p[ids == 1] = 2 * p[ids == 1] + [1, 2, 3]
    p[ids == 2] = 0.3 * p[ids == 2] - 0.2
    result = local_points(p, q, ids, mask, min_pixels=1)
    assert result["local_points_rel"] == pytest.approx(0, abs=1e-6) and result["local_points_delta1"] == 1
    p[ids == 1, 0] *= -1
    assert local_points(p, q, ids, mask, min_pixels=1)["local_points_rel"] > 0.05


@given(scale=st.floats(0.2, 5), shift=st.tuples(*[st.floats(-1, 1)] * 3))
@settings(deadline=None, max_examples=10)
def test_each_alignment_undoes_what_it_is_for(scale: float, shift: tuple[float, float, float]) -> None:
    q = point_maps()[1].astype(np.float64)
    mask = sparse_mask()
    assert evaluate_points(q + shift, q, mask)["points_metric_rel"] == pytest.approx(0, abs=1e-9)
    assert evaluate_points(q * scale, q, mask)["points_scale_invariant_rel"] == pytest.approx(0, abs=1e-9)
    both = evaluate_points(q * scale + shift, q, mask)
    assert both["points_affine_invariant_rel"] == pytest.approx(0, abs=1e-9)
    if abs(scale - 1) > 0.1:
        assert evaluate_points(q * scale, q, mask)["points_metric_rel"] > 0.01


def test_delta1_is_relative_to_the_shorter_vector() -> None:
    q = np.array([[[0, 0, 4.0], [0, 0, 4.0], [0, 0, 4.0]]])
    p = np.array([[[0, 0, 4.99], [0, 0, 3.25], [0, 0, 3.15]]])  # |p - q| / min: 0.2475, 0.2308, 0.2698
    assert point_delta1(p, q) == pytest.approx(2 / 3)
    assert point_rel(p, q) == pytest.approx((0.99 + 0.75 + 0.85) / 12)


def test_missing_predictions_are_charged() -> None:
    _, q = point_maps()
    mask = sparse_mask()
    p = q.copy()
    rows, cols = np.nonzero(mask)
    p[rows[:10], cols[:10], 1] = np.nan
    share = 10 / mask.sum()
    for name, value in evaluate_points(p, q, mask).items():
        assert value == pytest.approx(share if name.endswith("rel") else 1 - share, abs=1e-6), name
    nothing = evaluate_points(np.full_like(q, np.nan), q, mask)
    assert [nothing[name] for name in NAMES] == [1, 0] * 3
    silent = local_points(np.full_like(q, np.nan), q, segments(), mask, min_pixels=1)
    assert silent == {"local_points_rel": 1, "local_points_delta1": 0}


def test_not_metric_leaves_out_the_metric_points() -> None:
    p, q = point_maps()
    assert list(evaluate_points(p, q, sparse_mask(), metric=False)) == NAMES[2:]


def test_nothing_to_measure_is_nan() -> None:
    p, q = point_maps()
    for truth, mask in ((np.full_like(q, np.nan), None), (q, np.zeros(q.shape[:2], bool)), (np.zeros_like(q), None)):
        result = evaluate_points(p, truth, mask) | local_points(p, truth, segments(), mask, min_pixels=1)
        assert len(result) == 8 and all(math.isnan(x) for x in result.values())
        assert math.isnan(point_rel(p, truth, mask)) and math.isnan(point_delta1(p, truth, mask))


def test_bad_input_is_refused() -> None:
    p, q = point_maps()
    assert_refused(lambda: point_rel(p[1:], q), "resize the prediction", "(47, 60, 3)")
    assert_refused(lambda: point_rel(p[..., 0], q[..., 0]), "(H, W, 3)")
    assert_refused(lambda: evaluate_points(p, q, np.ones((48, 60))), "mask must be bool")
    assert_refused(lambda: local_points(p, q, np.ones((48, 60))), "segments", "float64")
    assert_refused(lambda: local_points(p, q, segments()[1:]), "segments", "(47, 60)")
