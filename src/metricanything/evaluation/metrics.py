"""Depth metrics of one image: pure functions of a prediction and its ground truth.

`pred` and `gt` are z-depth in metres, of one shape (usually `(H, W)`). A pixel counts when its ground truth is finite
and positive and `mask`, if given, is True there. No alignment is done: what is measured is metric depth. Average
the results over the images of a set, then over sets (the convention of MoGe, UniDepth, Marigold and OMNI-DC).

A pixel that counts but has no usable prediction (NaN, infinite or not positive) is an error, never skipped, so that a
model cannot win by staying silent where it is unsure. It is charged
- as depth 0 in the linear metrics: a relative error of 100 %, an absolute error of the whole depth;
- as inverse depth 0 in the inverse metrics: an error of 1 / gt;
- as a residual of one decade (a factor of 10) in the logarithmic metrics; in the two SILogs, which look at the spread
  of the residuals, a decade away from the mean residual of the given predictions: of an image, or, pooled, of all;
- as an outlier in the inlier shares (delta, tau, d_auc).
`coverage` is the share of counting pixels that have a prediction.

Every function returns a float, NaN when no pixel counts, and raises InputError when shapes differ.
Formulas: Eigen et al. 2014 (AbsRel, SqRel, RMSE, RMSElog, delta, SILog), Uhrig et al. 2017 (iRMSE, iMAE),
Piccinelli et al. 2024 (tau, d_auc).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError

Vector = NDArray[np.float64]

DECADE = float(np.log(10.0))  # logarithmic residual charged for a missing prediction
_AUC_EXPONENTS = np.linspace(0.01, 5.0, 100)


def valid_pairs(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> tuple[Vector, Vector]:
    """Prediction and ground truth (N,) float64 of the pixels that count; NaN where the prediction is unusable.

    Raises InputError when `pred`, `gt` and `mask` differ in shape or when `mask` is not boolean.
    """
    d, g = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    counts = counting_pixels(d.shape, g, mask)
    d, g = d[counts], g[counts]
    return np.where(np.isfinite(d) & (d > 0), d, np.nan), g


def counting_pixels(shape: tuple[int, ...], gt: Vector, mask: ArrayLike | None = None) -> NDArray[np.bool_]:
    """Which pixels count, of the shape of `gt`: finite positive truth and, if given, a True `mask`.

    Raises InputError when the prediction's `shape` or that of `mask` is not that of `gt`, or `mask` is not boolean.
    """
    if shape != gt.shape:
        raise InputError(f"prediction has shape {shape} but ground truth {gt.shape}; resize the prediction first")
    counts = np.isfinite(gt) & (gt > 0)
    if mask is None:
        return counts
    chosen = np.asarray(mask)
    if chosen.shape != gt.shape or chosen.dtype != np.bool_:
        raise InputError(f"mask must be bool {gt.shape} like the ground truth, got {chosen.dtype} {chosen.shape}")
    return counts & chosen


def abs_rel(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """AbsRel: mean of |pred - gt| / gt; lower is better."""
    d, g = valid_pairs(pred, gt, mask)
    return _mean(np.abs(linear_error(d, g)) / g)


def sq_rel(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """SqRel: mean of (pred - gt)^2 / gt in metres; lower is better."""
    d, g = valid_pairs(pred, gt, mask)
    return _mean(linear_error(d, g) ** 2 / g)


def mae(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """MAE: mean of |pred - gt| in metres; lower is better."""
    return _mean(np.abs(linear_error(*valid_pairs(pred, gt, mask))))


def rmse(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """RMSE: root of the mean of (pred - gt)^2 in metres; lower is better."""
    return _rms(linear_error(*valid_pairs(pred, gt, mask)))


def imae(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """iMAE: mean of |1 / pred - 1 / gt| in 1/m (the KITTI tables use 1/km: multiply by 1000); lower is better."""
    return _mean(np.abs(inverse_error(*valid_pairs(pred, gt, mask))))


def irmse(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """iRMSE: root of the mean of (1 / pred - 1 / gt)^2 in 1/m (KITTI: 1/km, multiply by 1000); lower is better."""
    return _rms(inverse_error(*valid_pairs(pred, gt, mask)))


def log10(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """log10: mean of |log10 pred - log10 gt|; lower is better."""
    residual = log_residual(*valid_pairs(pred, gt, mask))
    return _mean(np.abs(charge_decade(residual))) / DECADE


def rmse_log(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """RMSElog: root of the mean of (ln pred - ln gt)^2; lower is better."""
    return _rms(charge_decade(log_residual(*valid_pairs(pred, gt, mask))))


def log_moments(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, float, float]:
    """What both SILogs are made of, as means over all pixels that count, so that images can be pooled.

    mean of e^2, mean of e, and mean of 1 where there is a prediction, e = ln pred - ln gt; 0 where there is none.
    """
    residual = log_residual(*valid_pairs(pred, gt, mask))
    known = ~np.isnan(residual)
    e = np.where(known, residual, 0.0)
    return _mean(e**2), _mean(e), _mean(known.astype(np.float64))


def silog_of_moments(moments: tuple[float, ...]) -> float:
    """SILog of `log_moments`, of one image or averaged with their pixels over several."""
    return 100.0 * float(np.sqrt(_log_variance(*moments)[0]))


def silog_half_of_moments(moments: tuple[float, ...]) -> float:
    """Eigen's SILog of `log_moments`, of one image or averaged with their pixels over several."""
    variance, centre = _log_variance(*moments)
    return float(np.sqrt(variance + centre**2 / 2))


def _log_variance(square: float, total: float, share: float) -> tuple[float, float]:
    """Variance of e about the mean of the given predictions, the missing a decade from it; and that mean."""
    centre = total / share if share else 0.0
    return max(square - total * centre, 0.0) + (1 - share) * DECADE**2, centre


def silog(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """SILog: 100 times the standard deviation of ln pred - ln gt; unchanged when `pred` is scaled; lower is better.

    Missing predictions are a decade away from the mean residual of the others (so they cannot lower it).
    """
    return silog_of_moments(log_moments(pred, gt, mask))


def silog_half(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """SILog as Eigen et al. train with and the Booster script of MetricAnything reports it; lower is better.

    sqrt(mean(e^2) - mean(e)^2 / 2) with e = ln pred - ln gt: half of the scale's error stays in, and no factor of 100.
    Missing predictions are a decade away from the mean residual of the others.
    """
    return silog_half_of_moments(log_moments(pred, gt, mask))


def inlier_share(pred: ArrayLike, gt: ArrayLike, ratio: float, mask: ArrayLike | None = None) -> float:
    """Share (0..1) of pixels with max(pred / gt, gt / pred) < `ratio`; higher is better.

    Ratio 1.03 is tau of UniDepth; OMNI-DC also reports 1.02, 1.05 and 1.10.
    """
    return _mean((symmetric_ratio(*valid_pairs(pred, gt, mask)) < ratio).astype(np.float64))


def delta(pred: ArrayLike, gt: ArrayLike, k: float = 1, mask: ArrayLike | None = None) -> float:
    """delta_k: share (0..1) of pixels with max(pred / gt, gt / pred) < 1.25^k; higher is better."""
    return inlier_share(pred, gt, 1.25**k, mask)


def tau(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """tau: share (0..1) of pixels within 3 %, max(pred / gt, gt / pred) < 1.03; higher is better."""
    return inlier_share(pred, gt, 1.03, mask)


def d_auc(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """d_auc: area (0..1) under delta_k for 100 exponents k from 0.01 to 5, divided by 5; higher is better.

    A perfect prediction has 0.998, because the area starts at 0.01.
    """
    ratio = np.sort(symmetric_ratio(*valid_pairs(pred, gt, mask)))
    if not ratio.size:
        return float("nan")
    shares = np.searchsorted(ratio, 1.25**_AUC_EXPONENTS, side="left") / ratio.size
    return float(np.sum((shares[1:] + shares[:-1]) / 2 * np.diff(_AUC_EXPONENTS)) / 5)


def coverage(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Share (0..1) of the pixels that count which have a usable prediction; higher is better."""
    return _mean((~np.isnan(valid_pairs(pred, gt, mask)[0])).astype(np.float64))


#: The metrics that `evaluate` reports, in the order of its result.
METRICS: dict[str, Callable[[Any, Any], float]] = {
    "abs_rel": abs_rel,
    "sq_rel": sq_rel,
    "rmse": rmse,
    "mae": mae,
    "irmse": irmse,
    "imae": imae,
    "rmse_log": rmse_log,
    "log10": log10,
    "silog": silog,
    "delta1": lambda pred, gt: delta(pred, gt, 1),
    "delta2": lambda pred, gt: delta(pred, gt, 2),
    "delta3": lambda pred, gt: delta(pred, gt, 3),
    "tau": tau,
    "d_auc": d_auc,
    "coverage": coverage,
}
#: Metrics of which more is better; of all others, less is.
HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3", "tau", "d_auc", "coverage"})


def evaluate(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> dict[str, float]:
    """All `METRICS` of one image by name; all NaN when no pixel counts."""
    d, g = valid_pairs(pred, gt, mask)
    return {name: metric(d, g) for name, metric in METRICS.items()}


def linear_error(d: Vector, g: Vector) -> Vector:
    """d - g of `valid_pairs` (N,) in metres; a missing prediction is depth 0."""
    return np.where(np.isnan(d), 0.0, d) - g


def inverse_error(d: Vector, g: Vector) -> Vector:
    """1 / d - 1 / g of `valid_pairs` (N,) in 1/m; a missing prediction is inverse depth 0."""
    return np.where(np.isnan(d), 0.0, 1.0 / d) - 1.0 / g


def log_residual(d: Vector, g: Vector) -> Vector:
    """ln d - ln g of `valid_pairs` (N,); NaN for a missing prediction."""
    return np.asarray(np.log(d) - np.log(g))


def charge_decade(residual: Vector) -> Vector:
    """Logarithmic residuals (N,) with a decade in the place of NaN."""
    return np.where(np.isnan(residual), DECADE, residual)


def symmetric_ratio(d: Vector, g: Vector) -> Vector:
    """max(d / g, g / d) of `valid_pairs` (N,); infinite for a missing prediction."""
    return np.where(np.isnan(d), np.inf, np.maximum(d / g, g / d))


def _mean(values: Vector) -> float:
    return float(values.mean()) if values.size else float("nan")


def _rms(values: Vector) -> float:
    return float(np.sqrt(_mean(values**2)))
