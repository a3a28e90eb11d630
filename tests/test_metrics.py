"""Metrics against slow loop versions, and the properties they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metricanything.core.errors import InputError
from metricanything.evaluation import metrics

LINEAR = ("abs_rel", "sq_rel", "rmse", "mae", "irmse", "imae", "rmse_log", "log10", "silog")
SHARES = ("delta1", "delta2", "delta3", "tau", "d_auc", "coverage")


def slow(pred: np.ndarray, gt: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    """All metrics, one pixel at a time, in plain Python floats."""
    flags = np.ones(gt.shape, bool) if mask is None else mask
    pairs = [
        (float(d), float(g))
        for d, g, m in zip(pred.ravel(), gt.ravel(), flags.ravel(), strict=True)
        if m and math.isfinite(g) and g > 0
    ]
    n = len(pairs)
    if n == 0:
        return dict.fromkeys(metrics.METRICS, math.nan)
    usable = [math.isfinite(d) and d > 0 for d, _ in pairs]
    error = [d - g if ok else -g for ok, (d, g) in zip(usable, pairs, strict=True)]
    inverse = [1 / d - 1 / g if ok else -1 / g for ok, (d, g) in zip(usable, pairs, strict=True)]
    logs = [math.log(d / g) if ok else None for ok, (d, g) in zip(usable, pairs, strict=True)]
    ratio = [max(d / g, g / d) if ok else math.inf for ok, (d, g) in zip(usable, pairs, strict=True)]
    charged = [math.log(10) if x is None else x for x in logs]
    known = [x for x in logs if x is not None]
    centre = sum(known) / len(known) if known else 0.0
    centred = [math.log(10) if x is None else x - centre for x in logs]

    def mean(values: list[float]) -> float:
        return math.fsum(values) / n

    def share(limit: float) -> float:
        return sum(r < limit for r in ratio) / n

    exponents = [0.01 + i * (5 - 0.01) / 99 for i in range(100)]
    curve = [share(1.25**t) for t in exponents]
    area = sum((curve[i] + curve[i + 1]) / 2 * (exponents[i + 1] - exponents[i]) for i in range(99))
    return {
        "abs_rel": mean([abs(e) / g for e, (_, g) in zip(error, pairs, strict=True)]),
        "sq_rel": mean([e * e / g for e, (_, g) in zip(error, pairs, strict=True)]),
        "rmse": math.sqrt(mean([e * e for e in error])),
        "mae": mean([abs(e) for e in error]),
        "irmse": math.sqrt(mean([e * e for e in inverse])),
        "imae": mean([abs(e) for e in inverse]),
        "rmse_log": math.sqrt(mean([x * x for x in charged])),
        "log10": mean([abs(x) / math.log(10) for x in charged]),
        "silog": 100 * math.sqrt(mean([x * x for x in centred])),
        "delta1": share(1.25),
        "delta2": share(1.25**2),
        "delta3": share(1.25**3),
        "tau": share(1.03),
        "d_auc": area / 5,
        "coverage": sum(usable) / n,
    }


DEPTH = st.one_of(
    st.floats(0.0625, 200, width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0]),
)
MAPS = hnp.arrays(np.float32, (2, 4, 5), elements=DEPTH)
MASKS = st.one_of(st.none(), hnp.arrays(np.bool_, (4, 5)))


@given(maps=MAPS, mask=MASKS)
@settings(deadline=None, max_examples=150)
def test_equal_to_the_slow_version(maps: np.ndarray, mask: np.ndarray | None) -> None:
    pred, gt = maps
    fast, reference = metrics.evaluate(pred, gt, mask), slow(pred, gt, mask)
    assert list(fast) == list(metrics.METRICS)
    for name, value in reference.items():
        assert fast[name] == pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True), name
        assert isinstance(fast[name], float)


def sample(seed: int = 0, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gt = rng.uniform(0.5, 20, (24, 32)).astype(np.float32)
    return (gt * np.exp(rng.normal(0, noise, gt.shape))).astype(np.float32), gt


@given(maps=MAPS, mask=MASKS)
@settings(deadline=None, max_examples=50)
def test_silog_half_equals_the_slow_version(maps: np.ndarray, mask: np.ndarray | None) -> None:
    pred, gt = maps
    flags = np.ones(gt.shape, bool) if mask is None else mask
    logs = [
        math.log(float(d) / float(g)) if math.isfinite(d) and d > 0 else None
        for d, g, m in zip(pred.ravel(), gt.ravel(), flags.ravel(), strict=True)
        if m and math.isfinite(g) and g > 0
    ]
    known = [x for x in logs if x is not None]
    centre = sum(known) / len(known) if known else 0.0
    residual = [centre + math.log(10) if x is None else x for x in logs]
    around = [(x - centre) ** 2 for x in residual]
    expected = math.sqrt(sum(around) / len(around) + centre**2 / 2) if logs else math.nan
    assert metrics.silog_half(pred, gt, mask) == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    if logs and None not in logs:
        plain = sum(x * x for x in residual) / len(residual) - 0.5 * centre**2
        assert metrics.silog_half(pred, gt, mask) == pytest.approx(math.sqrt(max(plain, 0)), rel=1e-6, abs=1e-6)


def test_single_functions_agree_with_evaluate_and_take_the_mask() -> None:
    pred, gt = sample()
    mask = np.random.default_rng(1).random(gt.shape) < 0.5
    everything = metrics.evaluate(pred, gt, mask)
    for name in ("abs_rel", "sq_rel", "rmse", "mae", "irmse", "imae", "rmse_log", "log10", "silog", "tau", "d_auc"):
        assert getattr(metrics, name)(pred, gt, mask) == everything[name]
    for k in (1, 2, 3):
        assert metrics.delta(pred, gt, k, mask) == everything[f"delta{k}"]
    assert metrics.delta(pred, gt, 0.5) == metrics.inlier_share(pred, gt, 1.25**0.5)
    assert metrics.evaluate(pred, gt)["abs_rel"] != everything["abs_rel"]


def test_hand_computed_values() -> None:
    result = metrics.evaluate(np.array([[2.0, 3.0]]), np.array([[1.0, 4.0]]))
    assert result["abs_rel"] == pytest.approx((1 + 0.25) / 2)
    assert result["rmse"] == pytest.approx(1)
    assert result["sq_rel"] == pytest.approx((1 + 0.25) / 2)
    assert result["imae"] == pytest.approx((0.5 + 1 / 12) / 2)
    assert result["log10"] == pytest.approx((math.log10(2) + math.log10(4 / 3)) / 2)
    assert (result["delta1"], result["delta2"], result["delta3"]) == (0.0, 0.5, 0.5)


def test_perfect_prediction() -> None:
    gt = sample()[1]
    result = metrics.evaluate(gt, gt)
    assert all(result[name] == 0 for name in LINEAR)
    assert all(result[name] == 1 for name in SHARES if name != "d_auc")
    assert result["d_auc"] == pytest.approx(0.998)


def test_delta_bound_is_strict() -> None:
    assert metrics.delta([[1.25]], [[1.0]]) == 0.0
    assert metrics.delta([[1.2499999]], [[1.0]]) == 1.0


@given(scale=st.floats(0.01, 100))
@settings(deadline=None, max_examples=40)
def test_scale_behaviour(scale: float) -> None:
    pred, gt = (x.astype(np.float64) for x in sample(2))
    pred[0, :5] = np.nan
    before, rescaled, both = (
        metrics.evaluate(p, g) for p, g in ((pred, gt), (scale * pred, gt), (scale * pred, scale * gt))
    )
    assert rescaled["silog"] == pytest.approx(before["silog"])
    for name in ("abs_rel", "rmse_log", "log10", "silog"):
        assert both[name] == pytest.approx(before[name]), name
    for name in ("rmse", "mae", "sq_rel"):
        assert both[name] == pytest.approx(scale * before[name]), name
    for name in ("irmse", "imae"):
        assert both[name] == pytest.approx(before[name] / scale), name


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -3.0])
def test_missing_prediction_is_charged(bad: float) -> None:
    gt = np.full((2, 2), 4.0)
    result = metrics.evaluate(np.array([[4.0, 4.0], [4.0, bad]]), gt)
    assert result["abs_rel"] == 0.25 and result["mae"] == 1.0 and result["imae"] == 1 / 16
    assert result["delta3"] == 0.75 and result["tau"] == 0.75 and result["coverage"] == 0.75
    assert result["log10"] == pytest.approx(0.25)
    assert result["silog"] == pytest.approx(100 * math.log(10) / 2)


def test_silence_is_worse_than_a_fair_guess() -> None:
    pred, gt = sample(3)
    silent = pred.copy()
    silent[:12] = np.nan
    spoken, quiet = metrics.evaluate(pred, gt), metrics.evaluate(silent, gt)
    assert all(quiet[name] > spoken[name] for name in LINEAR)
    assert all(quiet[name] < spoken[name] for name in SHARES)
    nothing = metrics.evaluate(np.full_like(gt, np.nan), gt)
    assert nothing["silog"] == pytest.approx(100 * math.log(10)) and nothing["abs_rel"] == 1.0


@pytest.mark.parametrize("gt", [np.full((3, 3), np.nan), np.zeros((3, 3)), np.full((3, 3), np.inf), np.empty((0, 0))])
def test_nothing_to_measure_is_nan(gt: np.ndarray) -> None:
    result = metrics.evaluate(np.ones_like(gt), gt)
    assert set(result) == set(metrics.METRICS) and all(math.isnan(v) for v in result.values())


def test_invalid_ground_truth_and_masked_pixels_do_not_matter() -> None:
    pred, gt = sample(4)
    mask = np.ones(gt.shape, bool)
    mask[5:9] = False
    before = metrics.evaluate(pred, gt, mask)
    pred[5:9] = 1e6
    gt[5:7] = 0.01
    assert metrics.evaluate(pred, gt, mask) == before
    gt[5:9] = np.array([np.nan, np.inf, 0, -1], np.float32)[:, None]
    assert metrics.evaluate(pred, gt) == before


def test_inputs_are_left_alone_and_shapes_checked() -> None:
    pred, gt = sample(5)
    pred[0, 0], gt[0, 1] = np.nan, np.inf
    copies = pred.copy(), gt.copy()
    metrics.evaluate(pred, gt)
    np.testing.assert_array_equal(pred, copies[0])
    np.testing.assert_array_equal(gt, copies[1])
    with pytest.raises(InputError, match="resize the prediction"):
        metrics.abs_rel(pred[:, :-1], gt)
    with pytest.raises(InputError, match="mask must be bool"):
        metrics.rmse(pred, gt, np.ones(gt.shape, np.uint8))
    with pytest.raises(InputError, match="mask must be bool"):
        metrics.delta(pred, gt, 1, np.ones((3, 3), bool))


def test_directions_name_existing_metrics() -> None:
    assert set(SHARES) == metrics.HIGHER_IS_BETTER
    assert set(LINEAR) | set(SHARES) == set(metrics.METRICS)
