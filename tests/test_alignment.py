"""Alignments against exhaustive search, against the published solver's numbers, and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_fixtures import point_maps, scene, sparse_mask
from expectations import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything.evaluation import alignment, alignment_l1, metrics
from metricanything.evaluation.alignment import ALIGNMENTS, masked_nearest


def cost(scale: float, shift: np.ndarray, p: np.ndarray, q: np.ndarray, w: np.ndarray, t: float | None) -> float:
    """The cost that is minimised, one number at a time."""
    total = 0.0
    for i in range(len(w)):
        for c in range(p.shape[1]):
            residual = float(w[i]) * abs(scale * float(p[i, c]) + float(shift[c]) - float(q[i, c]))
            total += residual if t is None else min(t, residual)
    return total


def least_cost(p: np.ndarray, q: np.ndarray, w: np.ndarray, t: float | None, shifted: tuple[int, ...]) -> float:
    """The least cost over all scales that meet one number exactly and, with a shift, over all anchors."""
    best = math.inf
    for k in range(len(w)) if any(shifted) else [None]:
        a, b = (np.zeros(p.shape[1]),) * 2 if k is None else (p[k] * shifted, q[k] * shifted)
        for i in range(len(w)):
            for c in range(p.shape[1]):
                if abs(p[i, c] - a[c]) > 0:
                    scale = (q[i, c] - b[c]) / (p[i, c] - a[c])
                    best = min(best, cost(scale, b - scale * a, p, q, w, t))
    return best


def samples(seed: int, n: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.5, 5, (n, columns)) if columns == 1 else rng.normal([0, 0, 4], 2, (n, 3))
    q = 1.7 * p + 0.4 + rng.standard_t(1.5, p.shape) * 0.3
    return p, q, rng.uniform(0.1, 2, n)


TRUNCATIONS = st.sampled_from([None, 0.01, 0.2, 3.0])


@given(seed=st.integers(0, 10**6), n=st.integers(2, 9), t=TRUNCATIONS)
@settings(deadline=None, max_examples=40)
def test_scale_and_shift_cost_no_more_than_an_exhaustive_search(seed: int, n: int, t: float | None) -> None:
    p, q, w = samples(seed, n, 1)
    none = np.zeros(1)
    scale = alignment_l1.depth_scale(p[:, 0], q[:, 0], w, t)
    assert cost(scale, none, p, q, w, t) == pytest.approx(least_cost(p, q, w, t, (0,)), rel=1e-9)
    scale, shift = alignment_l1.depth_scale_shift(p[:, 0], q[:, 0], w, t)
    assert cost(scale, np.array([shift]), p, q, w, t) == pytest.approx(
        least_cost(p, q, w, t, (1,)), rel=1e-9, abs=1e-12
    )
    p, q, w = samples(seed, n, 3)
    scale = alignment_l1.points_scale(p, q, w, t)
    assert cost(scale, np.zeros(3), p, q, w, t) == pytest.approx(least_cost(p, q, w, t, (0, 0, 0)), rel=1e-9)
    scale, b = alignment_l1.points_scale_z_shift(p, q, w, t)
    assert cost(scale, b, p, q, w, t) == pytest.approx(least_cost(p, q, w, t, (0, 0, 1)), rel=1e-9)
    assert b[0] == b[1] == 0
    scale, b = alignment_l1.points_scale_shift(p, q, w, t)
    assert cost(scale, b, p, q, w, t) == pytest.approx(least_cost(p, q, w, t, (1, 1, 1)), rel=1e-9, abs=1e-12)
    b = alignment_l1.points_shift(p, q, w, t)
    for c in range(3):
        column = np.s_[:, c : c + 1]
        costs = [cost(1, np.array([s]), p[column], q[column], w, t) for s in q[:, c] - p[:, c]]
        assert cost(1, b[c : c + 1], p[column], q[column], w, t) == pytest.approx(min(costs), rel=1e-9)


@given(seed=st.integers(0, 10**6), factor=st.floats(0.1, 10), offset=st.floats(-3, 3))
@settings(deadline=None, max_examples=25)
def test_an_affine_change_of_the_prediction_does_not_matter(seed: int, factor: float, offset: float) -> None:
    p, q, w = samples(seed, 12, 3)
    scale, shift = alignment_l1.points_scale_shift(p, q, w)
    changed_scale, changed_shift = alignment_l1.points_scale_shift(factor * p + offset, q, w)
    before = cost(scale, shift, p, q, w, None)
    assert cost(changed_scale, changed_shift, factor * p + offset, q, w, None) == pytest.approx(before, rel=1e-8)
    once, twice = (alignment_l1.points_scale(x, q, w, 0.3) for x in (p, factor * p))
    assert cost(twice * factor, np.zeros(3), p, q, w, 0.3) == pytest.approx(cost(once, np.zeros(3), p, q, w, 0.3))
    np.testing.assert_allclose(
        alignment_l1.points_shift(p + offset, q, w), alignment_l1.points_shift(p, q, w) - offset, atol=1e-9
    )


def test_outliers_are_left_out_by_truncation_alone() -> None:
    p = np.linspace(1, 5, 41)
    q = 2 * p + 0.5
    q[:25] = 20 + 15 * np.sin(np.arange(25))  # more than half
    assert alignment_l1.depth_scale_shift(p, q, np.ones(41), 0.1) == pytest.approx((2, 0.5))
    assert alignment_l1.depth_scale_shift(p, q, np.ones(41)) != pytest.approx((2, 0.5), rel=0.1)


def test_unusable_samples_do_not_count() -> None:
    p, q, w = samples(3, 20, 3)
    expected = alignment_l1.points_scale_shift(p[5:], q[5:], w[5:], 0.2)
    p[0], q[1, 2], w[2:5] = np.nan, np.inf, [0, -1, np.nan]
    result = alignment_l1.points_scale_shift(p, q, w, 0.2)
    assert result[0] == expected[0]
    np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.parametrize("t", [None, 0.1])
def test_what_nothing_determines_is_nan(t: float | None) -> None:
    empty, none = np.empty((0, 3)), np.empty(0)
    assert math.isnan(alignment_l1.depth_scale(none, none, none, t))
    assert math.isnan(alignment_l1.depth_scale(np.zeros(3), np.ones(3), np.ones(3), t))
    assert math.isnan(alignment_l1.points_scale(empty, empty, none, t))
    scale, shift = alignment_l1.points_scale_shift(empty, empty, none, t)
    assert math.isnan(scale) and np.isnan(shift).all()
    assert np.isnan(alignment_l1.points_shift(empty, empty, none, t)).all()


def test_a_flat_prediction_becomes_the_weighted_median() -> None:
    q, w = np.array([1.0, 2.0, 7.0, 9.0]), np.array([1.0, 1.0, 1.0, 4.0])
    assert alignment_l1.depth_scale_shift(np.full(4, 3.0), q, w) == (0.0, 9.0)


@pytest.mark.parametrize("t", [None, 0.3])
def test_anchors_may_be_tried_in_pieces(monkeypatch: pytest.MonkeyPatch, t: float | None) -> None:
    for seed in range(5):
        p, q, w = samples(seed, 30, 3)
        whole = alignment_l1.points_scale_shift(p, q, w, t)
        monkeypatch.setattr("metricanything.losses.alignment._CHUNK", 4 * p.size)
        pieces = alignment_l1.points_scale_shift(p, q, w, t)
        monkeypatch.undo()
        assert pieces[0] == whole[0]
        np.testing.assert_array_equal(pieces[1], whole[1])


def test_bad_samples_are_refused() -> None:
    assert_refused(lambda: alignment_l1.depth_scale(np.ones(3), np.ones(4), np.ones(3)), "depths (N,)", "(4,)")
    assert_refused(lambda: alignment_l1.points_scale(np.ones(3), np.ones(3), np.ones(3)), "points (N, 3)")
    for t in (0.0, -1.0, math.nan, math.inf):
        assert_refused(lambda t=t: alignment_l1.depth_scale(np.ones(3), np.ones(3), np.ones(3), t), "truncation")


#: What moge.utils.alignment (github.com/microsoft/MoGe) returns in float64 for the scene's samples, weights 1 / depth.
MOGE = {
    None: {
        "depth_scale": 1.1245464880266605,
        "depth_scale_shift": (1.0851957482339034, 0.12037434519607171),
        "points_scale": 1.0923833110834986,
        "points_scale_z_shift": (1.0505047827910037, [0, 0, 0.18775186942078026]),
        "points_scale_shift": (1.0468317642923186, [-0.10294189091794169, 0.050975338854157615, 0.180792224770971]),
        "points_shift": [-0.09769989177584648, 0.04384476691484451, 0.2913092374801636],
    },
    0.05: {
        "depth_scale": 1.1934487465265293,
        "depth_scale_shift": (1.0439137125371327, 0.2052888943937239),
        "points_scale": 1.084933204889136,
        "points_scale_z_shift": (1.044027626154429, [0, 0, 0.20480388004372596]),
        "points_scale_shift": (1.0454675812283585, [-0.10285634941880423, 0.048915996663438266, 0.18541739731852958]),
        "points_shift": [-0.09963241126388311, 0.04501424357295036, 0.30066609382629395],
    },
}


@pytest.mark.parametrize("t", [None, 0.05])
@pytest.mark.parametrize("name", list(MOGE[None]))
def test_equal_to_the_published_solver(name: str, t: float | None) -> None:
    maps = scene()[:2] if name.startswith("depth") else point_maps()
    chosen = masked_nearest(sparse_mask())
    p, q = (x[chosen] for x in maps)
    result, expected = getattr(alignment_l1, name)(p, q, 1 / scene()[1][chosen], t), MOGE[t][name]
    if not isinstance(result, tuple):
        result, expected = (result,), (expected,)
    for value, published in zip(result, expected, strict=True):
        assert value == pytest.approx(published, rel=1e-6, abs=1e-7)


#: rel and delta1 of compute_metrics in moge/test/metrics.py (float32) for the scene's prediction as metric depth.
MOGE_DEPTH = {
    "l1_scale": (0.07903920114040375, 0.9635036587715149),
    "l1_affine": (0.07610078901052475, 0.9635036587715149),
    "disparity": (0.07934616506099701, 0.9635036587715149),
}


@pytest.mark.parametrize("name", list(MOGE_DEPTH))
def test_aligned_depth_measures_as_published(name: str) -> None:
    pred, gt, _ = scene()
    aligned = ALIGNMENTS[name](pred, gt, sparse_mask())
    result = metrics.abs_rel(aligned, gt, sparse_mask()), metrics.delta(aligned, gt, 1, sparse_mask())
    assert result == pytest.approx(MOGE_DEPTH[name], rel=5e-6)


def test_masked_nearest_chooses_the_published_pixels() -> None:
    """Count, sums and a checksum of the indices of utils3d's masked_nearest_resize, to a finer and a coarser grid."""
    v, u = np.mgrid[0:192, 0:320]
    for mask, expected in (
        (sparse_mask(), (192, 4687, 5624, 10743)),
        (np.sin(0.37 * u) * np.cos(0.29 * v) > 0.2, (2724, 259196, 436159, 21797)),
    ):
        i, j = masked_nearest(mask)
        assert (len(i), i.sum(), j.sum(), (i * mask.shape[1] + j) @ np.arange(len(i)) % 100003) == expected


def slow_nearest(mask: np.ndarray, size: int) -> list[tuple[int, int]]:
    """Cell by cell and pixel by pixel; the window's start is rounded half to even."""
    height, width = mask.shape
    chosen = []
    for cell_row in range(size):
        for cell_col in range(size):
            y, x = (cell_row + 0.5) * height / size, (cell_col + 0.5) * width / size
            span_y, span_x = max(1, height / size), max(1, width / size)
            best = None
            for i in range(round(y - span_y / 2), round(y - span_y / 2) + math.ceil(span_y)):
                for j in range(round(x - span_x / 2), round(x - span_x / 2) + math.ceil(span_x)):
                    if 0 <= i < height and 0 <= j < width and mask[i, j]:
                        distance = (i + 0.5 - y) ** 2 + (j + 0.5 - x) ** 2
                        if best is None or distance < best[0]:
                            best = (distance, i, j)
            if best is not None:
                chosen.append(best[1:])
    return chosen


@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_masked_nearest_equals_the_slow_version(seed: int, height: int, width: int, share: float) -> None:
    # Powers of two keep the distances exact, so that ties are ties in both.
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert list(zip(*masked_nearest(mask, 8), strict=True)) == slow_nearest(mask, 8)


def test_masked_nearest_of_nothing() -> None:
    for mask in (np.zeros((5, 7), bool), np.empty((0, 4), bool)):
        assert [len(x) for x in masked_nearest(mask)] == [0, 0]
    assert_refused(lambda: masked_nearest(np.ones((3, 3))), "bool (H, W)", "float64")


def slow_fits(pred: np.ndarray, gt: np.ndarray) -> dict[str, tuple[float, float]]:
    """Scale and shift of the closed forms, from sums of plain floats (normal equations, sorted middle)."""
    pairs = [(float(d), float(g)) for d, g in zip(pred.ravel(), gt.ravel(), strict=True) if d > 0 and math.isfinite(d)]
    n = len(pairs)
    sd, sg = math.fsum(d for d, _ in pairs), math.fsum(g for _, g in pairs)
    sdd, sdg = math.fsum(d * d for d, _ in pairs), math.fsum(d * g for d, g in pairs)
    middle = [(sorted(x)[(n - 1) // 2] + sorted(x)[n // 2]) / 2 for x in zip(*pairs, strict=True)]
    slope = (n * sdg - sd * sg) / (n * sdd - sd * sd)
    return {
        "median": (middle[1] / middle[0], 0.0),
        "least_squares_scale": (sdg / sdd, 0.0),
        "least_squares_affine": (slope, (sg - slope * sd) / n),
    }


@pytest.mark.parametrize("name", ["median", "least_squares_scale", "least_squares_affine"])
def test_closed_forms_equal_the_slow_version(name: str) -> None:
    pred, gt, _ = scene()
    pred[3, :7] = [np.nan, np.inf, 0, -1, -np.inf, np.nan, 0]
    scale, shift = slow_fits(pred, gt)[name]
    expected = np.where(np.isfinite(pred) & (pred > 0), scale * pred.astype(np.float64) + shift, np.nan)
    np.testing.assert_allclose(ALIGNMENTS[name](pred, gt, None), expected, rtol=1e-9)


def test_disparity_equals_the_slow_version() -> None:
    gt = scene()[1]
    disparity = (5 / gt - 4 + 0.3 * np.sin(np.arange(gt.size).reshape(gt.shape))).astype(np.float32)
    disparity[0, 0], disparity[0, 1] = np.nan, -40
    gt[0, 1], gt[1, :5] = np.nan, [0, -1, np.inf, np.nan, 0]
    known = np.isfinite(gt) & (gt > 0) & np.isfinite(disparity)
    a = np.stack([disparity[known], np.ones(known.sum())], axis=1).astype(np.float64)
    scale, shift = np.linalg.lstsq(a, 1 / gt[known].astype(np.float64), rcond=None)[0]
    result = alignment.align_disparity(disparity, gt)
    assert np.isnan(result[0, 0])
    assert result[0, 1] == pytest.approx(gt[known].max()), "clamped"
    for i, j in ((2, 3), (20, 30), (40, 59)):
        fitted = scale * float(disparity[i, j]) + shift
        assert result[i, j] == pytest.approx(1 / max(fitted, 1 / float(gt[known].max())), rel=1e-9)


@pytest.mark.parametrize("name", list(ALIGNMENTS))
@given(factor=st.floats(0.05, 20))
@settings(deadline=None, max_examples=8)
def test_a_scaled_prediction_is_aligned_alike(name: str, factor: float) -> None:
    pred, gt, _ = scene()
    mask = sparse_mask()
    once, twice = (ALIGNMENTS[name](x, gt, mask) for x in (pred.astype(np.float64), factor * pred.astype(np.float64)))
    np.testing.assert_allclose(once, twice, rtol=1e-7)


@pytest.mark.parametrize("name", list(ALIGNMENTS))
def test_alignment_undoes_its_own_distortion_and_minds_the_mask(name: str) -> None:
    _, gt, _ = scene()
    mask = sparse_mask()
    distorted = {"disparity": 1 / (2 / gt + 0.1), "l1_affine": 3 * gt + 2, "least_squares_affine": 3 * gt + 2}
    pred = distorted.get(name, 3 * gt)
    pred[~mask & (np.arange(60) % 3 == 0)] = 77  # not to be looked at
    pred[np.nonzero(mask)[0][0], np.nonzero(mask)[1][0]] = np.nan  # nor this
    aligned = ALIGNMENTS[name](pred, gt, mask)
    counts = mask & np.isfinite(pred)
    np.testing.assert_allclose(aligned[counts], gt[counts], rtol=1e-5)
    assert np.isnan(aligned[np.isnan(pred)]).all()


def test_a_flat_map_becomes_the_mean_of_the_truth() -> None:
    gt = scene()[1].astype(np.float64)
    assert alignment.least_squares_scale_shift(np.full_like(gt, 3.0), gt) == (0.0, pytest.approx(gt.mean()))


@pytest.mark.parametrize("name", list(ALIGNMENTS))
@pytest.mark.parametrize("bad", [np.inf, 0.0, -3.0])
def test_unusable_predictions_take_no_part(name: str, bad: float) -> None:
    pred, gt, _ = scene()
    holes = np.arange(60) % 3 == 0
    with_bad, with_nan = (ALIGNMENTS[name](np.where(holes, x, pred), gt, sparse_mask()) for x in (bad, np.nan))
    np.testing.assert_array_equal(with_bad, with_nan)
    assert np.isfinite(with_nan[:, ~holes]).all()


@pytest.mark.parametrize("name", list(ALIGNMENTS))
def test_nothing_to_align_gives_nothing(name: str) -> None:
    nothing = np.full((4, 5), np.nan)
    assert np.isnan(ALIGNMENTS[name](np.ones((4, 5)), nothing, None)).all()
    assert np.isnan(ALIGNMENTS[name](nothing, np.ones((4, 5)), None)).all()
    assert_refused(lambda: ALIGNMENTS[name](np.ones((4, 5)), np.ones((4, 6)), None), "resize the prediction")
    assert_refused(lambda: ALIGNMENTS[name](np.ones((4, 5)), np.ones((4, 5)), np.ones((4, 5))), "mask must be bool")
