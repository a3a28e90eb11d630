"""Robust alignment of samples: the scale and shift of least weighted absolute error, as MoGe's evaluation uses them.

All functions take predicted samples `pred` and true ones `gt`, depths `(N,)` or points `(N, 3)` in one unit, and a
`weight` `(N,)`; samples that are not finite or whose weight is not a positive number do not count. They minimise

    sum_i w_i |a p_i + b - q_i|                       (truncation None)
    sum_i min(t, w_i |a p_i + b - q_i|)               (truncation t > 0: an outlier costs t and no more)

where the sum also runs over the coordinates of points. The scale `a` may come out negative. A result that no sample
determines is NaN; InputError is raised when shapes do not fit or t is not positive.

The scale is exact: the untruncated cost is least at the weighted median of q / p with weights w |p|, and the truncated
one, piecewise linear in `a`, is evaluated at all its kinks by a sweep over sorted breakpoints. Scale and shift together
are solved as in MoGe: each sample in turn is an anchor that is met exactly, which leaves a scale, and the anchor of
least cost wins. For depths and for a shift along z that is the exact optimum. For a shift of x, y and z it is the least
cost among fits that meet one point, which is what the published numbers are made with; another may cost a little less.
Time is O(N^2 log N): some four seconds for 4096 points on one core, several times that when truncated.

Source: Wang et al. 2024 (MoGe, arXiv 2410.19115), section on alignment and its appendix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError

Array = NDArray[np.float64]

_CHUNK = 2**20  # numbers per array while anchors are tried: bounds the memory


def depth_scale(pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None) -> float:
    """Scale `a` of least sum w |a p - q| for depths (N,)."""
    p, q, w = _samples(pred, gt, weight, truncation)
    return float(_best_scale(p.T, q.T, w[None], truncation)[0][0])


def depth_scale_shift(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None
) -> tuple[float, float]:
    """Scale `a` and shift `b` of least sum w |a p + b - q| for depths or disparities (N,); `b` has their unit."""
    scale, shift = _anchored(*_samples(pred, gt, weight, truncation), np.array([True]), truncation)
    return scale, float(shift[0])


def points_scale(pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None) -> float:
    """Scale `a` of least sum w |a p - q| for points (N, 3), summed over x, y and z."""
    p, q, w = _samples(pred, gt, weight, truncation, points=True)
    return float(_best_scale(p.reshape(1, -1), q.reshape(1, -1), np.repeat(w, 3)[None], truncation)[0][0])


def points_scale_z_shift(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None
) -> tuple[float, Array]:
    """Scale `a` and shift `(0, 0, b)` of least sum w |a p + b - q| for points (N, 3), summed over x, y and z."""
    samples = _samples(pred, gt, weight, truncation, points=True)
    return _anchored(*samples, np.array([False, False, True]), truncation)


def points_scale_shift(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None
) -> tuple[float, Array]:
    """Scale `a` and shift `b` (3,) of least sum w |a p + b - q| for points (N, 3), where one point is met exactly."""
    samples = _samples(pred, gt, weight, truncation, points=True)
    return _anchored(*samples, np.array([True, True, True]), truncation)


def points_shift(pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None) -> Array:
    """Shift `b` (3,) of least sum w |p + b - q| for points (N, 3): per coordinate the weighted median of q - p."""
    p, q, w = _samples(pred, gt, weight, truncation, points=True)
    return _best_scale(np.ones_like(p.T), (q - p).T, np.broadcast_to(w, p.T.shape), truncation)[0]


def _samples(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None, points: bool = False
) -> tuple[Array, Array, Array]:
    """The samples that count as (M, C), (M, C), (M,)."""
    p, q, w = (np.asarray(x, dtype=np.float64) for x in (pred, gt, weight))
    tail = (3,) if points else ()
    if w.ndim != 1 or p.shape != w.shape + tail or q.shape != p.shape:
        kind = "points (N, 3)" if points else "depths (N,)"
        raise InputError(f"alignment needs {kind} and weights (N,), got {p.shape}, {q.shape} and {w.shape}")
    if truncation is not None and not 0 < truncation < np.inf:
        raise InputError(f"the truncation of an alignment must be positive and finite, got {truncation}")
    p, q = p.reshape(len(w), 3 if points else 1), q.reshape(len(w), 3 if points else 1)
    counts = np.isfinite(p).all(axis=1) & np.isfinite(q).all(axis=1) & np.isfinite(w) & (w > 0)
    return p[counts], q[counts], w[counts]


def _anchored(
    p: Array, q: Array, w: Array, shifted: NDArray[np.bool_], truncation: float | None
) -> tuple[float, Array]:
    """The best scale, and shift of the `shifted` coordinates, over all samples as anchors."""
    best, scale, anchor = np.inf, float("nan"), -1
    weights = np.repeat(w, p.shape[1])
    rows = max(1, _CHUNK // max(1, p.size))
    for start in range(0, len(p), rows):
        chosen = slice(start, start + rows)
        x = (p[None] - p[chosen, None] * shifted).reshape(-1, p.size)
        y = (q[None] - q[chosen, None] * shifted).reshape(-1, p.size)
        scales, costs = _best_scale(x, y, np.broadcast_to(weights, x.shape), truncation)
        # Where all predictions are equal any scale costs the same; 0 turns the anchors into constants, the best of
        # which is the weighted median of the truth.
        flat = np.isnan(scales)
        if flat.any():
            scales[flat], costs[flat] = 0.0, _cost(np.zeros(flat.sum()), x[flat], y[flat], weights, truncation)
        k = int(np.argmin(costs))
        if costs[k] < best:
            best, scale, anchor = float(costs[k]), float(scales[k]), start + k
    if anchor < 0:
        return scale, np.full(p.shape[1], np.nan)
    return scale, np.where(shifted, q[anchor] - scale * p[anchor], 0.0)


def _best_scale(x: Array, y: Array, w: Array, truncation: float | None) -> tuple[Array, Array]:
    """Per row of (R, M): the scale `a` of least sum w |a x - y|, and that cost; NaN where no sample tells the scale."""
    slope = w * np.abs(x)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = y / x
        reach = np.zeros_like(slope) if truncation is None else truncation / slope
    tells = (slope > 0) & np.isfinite(ratio) & np.isfinite(reach)
    slope = np.where(tells, slope, 0.0)
    ratio = np.where(tells, ratio, 0.0)
    if x.shape[1] == 0:
        return np.full(len(x), np.nan), np.zeros(len(x))
    if truncation is None:
        order = np.argsort(ratio, axis=1)
        mass = np.cumsum(np.take_along_axis(slope, order, axis=1), axis=1)
        middle = np.argmax(2 * mass >= mass[:, -1:], axis=1)
        scale = np.take_along_axis(ratio, np.take_along_axis(order, middle[:, None], axis=1), axis=1)[:, 0]
    else:
        scale = _sweep(ratio, slope, np.where(tells, reach, 0.0))
    scale = np.where(tells.any(axis=1), scale, np.nan)
    return scale, _cost(scale, x, y, w, truncation)


def _sweep(ratio: Array, slope: Array, reach: Array) -> Array:
    """Per row: the ratio where the truncated cost is least.

    From left to right a sample costs t up to its ratio minus its reach, falls to 0 at its ratio and climbs back to t;
    between these breakpoints the cost is linear, so that a running sum gives it at all of them, up to a constant. It is
    least at a ratio, since it bends downwards at all others.
    """
    place = np.concatenate([ratio - reach, ratio, ratio + reach], axis=1)
    bend = np.concatenate([-slope, 2 * slope, -slope], axis=1)
    order = np.argsort(place, axis=1)
    place, bend = np.take_along_axis(place, order, axis=1), np.take_along_axis(bend, order, axis=1)
    cost = np.cumsum(np.cumsum(bend, axis=1)[:, :-1] * np.diff(place, axis=1), axis=1)
    cost = np.concatenate([np.zeros((len(place), 1)), cost], axis=1)
    return np.take_along_axis(place, np.argmin(cost, axis=1)[:, None], axis=1)[:, 0]


def _cost(scale: Array, x: Array, y: Array, w: Array, truncation: float | None) -> Array:
    residual = w * np.abs(scale[:, None] * x - y)
    return np.sum(residual if truncation is None else np.minimum(residual, truncation), axis=1)
