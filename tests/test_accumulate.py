"""Sums over images: equal to measuring all at once, in any order and across processes, and to the published pooling."""

from __future__ import annotations

import itertools
import json
import math
import statistics

import numpy as np
import pytest
from evaluation_fixtures import scene
from expectations import assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metricanything.evaluation import metrics
from metricanything.evaluation.accumulate import ImageMeans, Moments, PooledMetrics
from metricanything.evaluation.radar import range_errors

DEPTH = st.one_of(st.floats(0.0625, 200, width=32), st.sampled_from([math.nan, math.inf, 0.0, -1.0]))
IMAGES = st.lists(hnp.arrays(np.float32, (2, 2, 3), elements=DEPTH), max_size=5)


def pooled_of(images: list) -> PooledMetrics:
    pooled = PooledMetrics()
    for image in images:
        pooled.add(*image)
    return pooled


def slow_pooled(pred: np.ndarray, gt: np.ndarray) -> dict[str, float]:
    """What `evaluate` and `silog_half` say of all pixels in one image; both are tested against loops elsewhere."""
    result = metrics.evaluate(pred, gt) | {"silog_half": metrics.silog_half(pred, gt)}
    del result["d_auc"]
    return result


@given(images=IMAGES)
@settings(deadline=None, max_examples=80)
def test_pooled_is_as_if_all_were_one_image(images: list[np.ndarray]) -> None:
    pooled = pooled_of(images)
    pred, gt = (np.concatenate([x[k].ravel() for x in images] or [np.empty(0)]) for k in (0, 1))
    expected = slow_pooled(pred, gt)
    assert set(pooled.result()) == set(expected)
    assert pooled.result() == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)
    assert pooled.pixels == np.count_nonzero(np.isfinite(gt) & (gt > 0))


#: eval_depth of student_depthmap/eval.py (github.com/metric-anything/metric-anything) in float64, two images pooled.
BOOSTER = {
    "delta1": 0.8549467921257019,
    "delta2": 0.8994875550270081,
    "delta3": 1.0,
    "abs_rel": 0.16307178350841114,
    "sq_rel": 0.13232241068648704,
    "rmse": 0.7018621332167628,
    "mae": 0.5842662115641171,
    "rmse_log": 0.2212935984631706,
    "log10": 0.07668133366517378,
    "silog_half": 0.19601240159256467,
}


def test_equal_to_the_published_pooling() -> None:
    pred, gt, mask = (x.astype(np.float64) if x.dtype != bool else x for x in scene())
    pooled = pooled_of([(pred, gt, mask), (0.7 * pred[:20], gt[:20], ~mask[:20])])
    result = pooled.result()
    for name, value in BOOSTER.items():  # its shares are float32
        assert result[name] == pytest.approx(value, rel=1e-6 if name.startswith("delta") else 1e-12), name


@given(images=IMAGES, order=st.randoms(use_true_random=False), cut=st.integers(0, 5))
@settings(deadline=None, max_examples=50)
def test_order_and_processes_do_not_matter(images: list[np.ndarray], order, cut: int) -> None:
    shuffled = images.copy()
    order.shuffle(shuffled)
    first, second = pooled_of(shuffled[:cut]), pooled_of(shuffled[cut:])
    first.merge(PooledMetrics.from_dict(json.loads(json.dumps(second.to_dict()))))
    assert first.result() == pytest.approx(pooled_of(images).result(), rel=1e-9, abs=1e-9, nan_ok=True)
    means, whole = ImageMeans(), ImageMeans()
    for image in images:
        whole.add(metrics.evaluate(*image))
    for part in (shuffled[:cut], shuffled[cut:]):
        some = ImageMeans()
        for image in part:
            some.add(metrics.evaluate(*image))
        means.merge(ImageMeans.from_dict(json.loads(json.dumps(some.to_dict(), allow_nan=False))))
    assert set(means.result()) == set(whole.result())
    for name, values in whole.result().items():
        assert means.result()[name] == pytest.approx(values, rel=1e-9, abs=1e-9, nan_ok=True)


def test_json_is_exact() -> None:
    pooled = pooled_of([scene()])
    text = json.dumps(pooled.to_dict(), allow_nan=False)
    assert PooledMetrics.from_dict(json.loads(text)).result() == pooled.result()
    again = pooled_of([scene()] * 4).to_dict()
    assert {k: len(v) for k, v in again.items()} == dict.fromkeys(pooled.to_dict(), 3), "memory does not grow"


def test_large_offsets_do_not_cancel() -> None:
    """A spread of 1e-3 around a mean of 1e6: the plain sum of squares would lose it."""
    moments = Moments()
    values = [1e6 + 1e-3 * (-1) ** k for k in range(1000)]
    for value in values:
        moments.add(value)
    assert moments.mean == pytest.approx(1e6, rel=1e-15)
    assert moments.squares / 1000 == pytest.approx(1e-6, rel=1e-3)


@given(values=st.lists(st.one_of(st.floats(-100, 100), st.just(math.nan)), max_size=8))
@settings(deadline=None, max_examples=60)
def test_image_means_equal_the_slow_version(values: list[float]) -> None:
    means = ImageMeans()
    for value in values:
        means.add({"a": value, "b": 2.0})
    known = [v for v in values if not math.isnan(v)]
    if not values:
        assert means.result() == {}
        return
    mean = statistics.fmean(known) if known else math.nan
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    expected = {"count": len(known), "mean": mean, "standard_error": error}
    assert means.result()["a"] == pytest.approx(expected, rel=1e-7, abs=1e-7, nan_ok=True)
    assert means.result()["b"]["mean"] == 2 and means.result()["b"]["count"] == len(values)


def test_names_may_differ_between_images() -> None:
    means = ImageMeans()
    means.add({"a": 1.0})
    means.add({"a": 3.0, "f1": 0.5})
    assert means.result()["a"] == {"count": 2, "mean": 2.0, "standard_error": 1.0}
    assert means.result()["f1"]["count"] == 1


def test_pooled_weighs_pixels_and_means_weigh_images() -> None:
    gt = [np.full((1, 1), 2.0), np.full((3, 3), 2.0)]
    pred = [np.full((1, 1), 4.0), np.full((3, 3), 2.0)]
    pooled, means = pooled_of(list(zip(pred, gt, strict=True))), ImageMeans()
    for d, g in zip(pred, gt, strict=True):
        means.add(metrics.evaluate(d, g))
    assert pooled.result()["abs_rel"] == pytest.approx(0.1) and means.result()["abs_rel"]["mean"] == 0.5


def test_nothing_is_nan_and_bad_records_are_refused() -> None:
    assert all(math.isnan(v) for v in PooledMetrics().result().values())
    assert_refused(lambda: PooledMetrics().add(np.ones((2, 2)), np.ones((2, 3))), "resize the prediction")
    assert_refused(lambda: ImageMeans().add({"a": 1.0, "b": math.inf}), "b", "infinite")
    good = {"count": 1, "mean": 2.0, "squares": 0.0}
    assert_refused(lambda: PooledMetrics.from_dict({"abs_rel": good}), "pooled metrics")
    bad: list = [{"a": {"count": 1}}, {"a": 3}, [1], {"a": good | {"count": "x"}}]
    bad += [{"a": good | {k: v}} for k, v in itertools.product(["mean", "squares"], [math.nan, math.inf])]
    bad += [{"a": good | {"count": -1}}, {"a": good | {"squares": -1.0}}]
    for record in bad:
        assert_refused(lambda record=record: ImageMeans.from_dict(record), "accumulated metrics")


RANGE_NAMES = [f"{name}_mm_0_{far}" for far in (50, 70, 80) for name in ("mae", "rmse")]


@given(maps=hnp.arrays(np.float32, (2, 3, 4), elements=DEPTH), mask=st.none() | hnp.arrays(np.bool_, (3, 4)))
@settings(deadline=None, max_examples=60)
def test_range_errors_equal_the_slow_version(maps: np.ndarray, mask: np.ndarray | None) -> None:
    pred, gt = maps
    flags = np.ones(gt.shape, bool) if mask is None else mask
    expected = []
    for far in (50, 70, 80):
        errors = [
            1000 * float(g) - (1000 * float(d) if math.isfinite(d) and d > 0 else 0)
            for d, g, m in zip(pred.ravel(), gt.ravel(), flags.ravel(), strict=True)
            if m and 0 < g < far
        ]
        n = len(errors) or math.nan
        expected += [sum(map(abs, errors)) / n, math.sqrt(sum(e * e for e in errors) / n)]
    result = range_errors(pred, gt, mask)
    assert list(result) == RANGE_NAMES
    assert list(result.values()) == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_range_errors_are_in_millimetres_and_ranges_open() -> None:
    result = range_errors([[51.0, 10.5, 79.0]], [[50.0, 10.0, 80.0]])
    rmse = math.sqrt((1000**2 + 500**2) / 2)
    assert list(result.values()) == pytest.approx([500, 500, 750, rmse, 750, rmse])
    assert_refused(lambda: range_errors(np.ones((2, 2)), np.ones((2, 3))), "resize the prediction")
    assert_refused(lambda: range_errors(np.ones((2, 2)), np.ones((2, 2)), np.ones((2, 2))), "mask must be bool")
