"""Robust alignment of samples: the scale and shift of least weighted absolute error, as MoGe's evaluation uses them.

All functions take predicted samples `pred` and true ones `gt`, depths `(N,)` or points `(N, 3)` in one unit, and a
`weight` `(N,)`; samples that are not finite or whose weight is not a positive number do not count. They minimise

    sum_i w_i |a p_i + b - q_i|                       (truncation None)
    sum_i min(t, w_i |a p_i + b - q_i|)               (truncation t > 0: an outlier costs t and no more)

where the sum also runs over the coordinates of points. The scale `a` may come out negative. A result that no sample
determines is NaN; InputError is raised when shapes do not fit or t is not positive.

`losses.alignment` solves them, with all samples as anchors. The scale is exact, and so is scale and shift for depths
and for a shift along z. For a shift of x, y and z it is the least cost among fits that meet one point, which is what
the published numbers are made with; another may cost a little less. Time is O(N^2 log N).

Source: Wang et al. 2024 (MoGe, arXiv 2410.19115), section on alignment and its appendix.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError
from metricanything.losses.alignment import align, best_scale

Array = NDArray[np.float64]


def depth_scale(pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None) -> float:
    """Scale `a` of least sum w |a p - q| for depths (N,)."""
    p, q, w = _samples(pred, gt, weight, truncation)
    return float(_best_scale(p.T, q.T, w[None], truncation)[0])


def depth_scale_shift(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None
) -> tuple[float, float]:
    """Scale `a` and shift `b` of least sum w |a p + b - q| for depths or disparities (N,); `b` has their unit."""
    scale, shift = _anchored(*_samples(pred, gt, weight, truncation), (True,), truncation)
    return scale, float(shift[0])


def points_scale(pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None) -> float:
    """Scale `a` of least sum w |a p - q| for points (N, 3), summed over x, y and z."""
    p, q, w = _samples(pred, gt, weight, truncation, points=True)
    return float(_best_scale(p.reshape(1, -1), q.reshape(1, -1), np.repeat(w, 3)[None], truncation)[0])


def points_scale_z_shift(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None
) -> tuple[float, Array]:
    """Scale `a` and shift `(0, 0, b)` of least sum w |a p + b - q| for points (N, 3), summed over x, y and z."""
    samples = _samples(pred, gt, weight, truncation, points=True)
    return _anchored(*samples, (False, False, True), truncation)


def points_scale_shift(
    pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None
) -> tuple[float, Array]:
    """Scale `a` and shift `b` (3,) of least sum w |a p + b - q| for points (N, 3), where one point is met exactly."""
    samples = _samples(pred, gt, weight, truncation, points=True)
    return _anchored(*samples, (True, True, True), truncation)


def points_shift(pred: ArrayLike, gt: ArrayLike, weight: ArrayLike, truncation: float | None = None) -> Array:
    """Shift `b` (3,) of least sum w |p + b - q| for points (N, 3): per coordinate the weighted median of q - p."""
    p, q, w = _samples(pred, gt, weight, truncation, points=True)
    return _best_scale(np.ones_like(p.T), (q - p).T, np.broadcast_to(w, p.T.shape), truncation)


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


def _anchored(p: Array, q: Array, w: Array, shifted: tuple[bool, ...], truncation: float | None) -> tuple[float, Array]:
    """The best scale, and shift of the `shifted` coordinates, over all samples as anchors."""
    if not len(w):
        return float("nan"), np.full(p.shape[1], np.nan)
    samples, truth, weight = (torch.from_numpy(x)[None] for x in (p, q, w))
    scale, shift = align(samples, truth, weight, shifted, truncation)
    return float(scale), shift[0].numpy()


def _best_scale(x: Array, y: Array, w: Array, truncation: float | None) -> Array:
    """Per row of (R, M): the scale `a` of least sum w |a x - y|; NaN where no sample tells the scale."""
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    p, q, weight = (torch.from_numpy(np.ascontiguousarray(v)) for v in (x, y, w))
    index = best_scale(p, q, weight, truncation)[0][:, None]
    scale = q.gather(1, index.clamp_min(0)) / p.gather(1, index.clamp_min(0))
    return torch.where(index >= 0, scale, torch.nan)[:, 0].numpy()
