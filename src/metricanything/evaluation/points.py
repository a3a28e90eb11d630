"""Metrics of point maps: pure functions of predicted and true points `(H, W, 3)` in the camera frame, in metres.

A pixel counts when its true point is finite and not the origin and `mask` `(H, W)`, if given, is True there. A pixel
that counts but has no finite prediction is an error, never skipped: it is charged a relative error of 1 and is an
outlier.

Alignments are solved with weighted L1 (see `alignment_l1`) on a grid of 64 x 64 samples with weights 1 / |q|. A metric
point map is measured after a shift, since where the camera's centre lies along its axes is not what is measured.

Every function raises InputError when shapes differ. Source: MoGe (arXiv 2410.19115) and its published evaluation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError
from metricanything.evaluation.alignment import masked_nearest
from metricanything.evaluation.alignment_l1 import points_scale, points_scale_shift, points_shift
from metricanything.evaluation.metrics import counting_pixels

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]

_INLIER = 0.25  # delta1 of points: the error as a share of the shorter vector, or of a segment's diameter
MIN_SEGMENT_PIXELS = 1000
MAX_SEGMENTS = 100
_MIN_SEGMENT_SAMPLES = 10  # grid samples that the alignment of a segment needs


def point_rel(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """rel: mean of |p - q| / |q| without alignment; lower is better; NaN when no pixel counts."""
    p, q, counts = _point_maps(pred, gt, mask)
    return _scores(p[counts], q[counts])["rel"]


def point_delta1(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """delta1: share (0..1) of pixels with |p - q| < min(|p|, |q|) / 4, without alignment; higher is better.

    NaN when no pixel counts.
    """
    p, q, counts = _point_maps(pred, gt, mask)
    return _scores(p[counts], q[counts])["delta1"]


def _shifted(p: Array, samples: tuple[Array, Array, Array]) -> Array:
    return p + points_shift(*samples)


def _scaled(p: Array, samples: tuple[Array, Array, Array]) -> Array:
    return p * points_scale(*samples)


def _scaled_and_shifted(p: Array, samples: tuple[Array, Array, Array]) -> Array:
    scale, shift = points_scale_shift(*samples)
    return p * scale + shift


_ALIGNMENTS: dict[str, Callable[[Array, tuple[Array, Array, Array]], Array]] = {
    "points_metric": _shifted,
    "points_scale_invariant": _scaled,
    "points_affine_invariant": _scaled_and_shifted,
}


def evaluate_points(
    pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None, metric: bool = True
) -> dict[str, float]:
    """rel and delta1 of points after each alignment, all NaN when no pixel counts.

    Names are `points_metric_rel`, `points_metric_delta1` (shift of x, y and z), `points_scale_invariant_...` (scale)
    and `points_affine_invariant_...` (scale and shift). `metric` False leaves out the first two, for a truth or a
    prediction that is not in metres.
    """
    p, q, counts = _point_maps(pred, gt, mask)
    chosen = masked_nearest(counts)
    samples = p[chosen], q[chosen], 1 / _norm(q[chosen])
    return {
        f"{name}_{score}": value
        for name, align in _ALIGNMENTS.items()
        if metric or name != "points_metric"
        for score, value in _scores(align(p[counts], samples), q[counts]).items()
    }


def local_points(
    pred: ArrayLike,
    gt: ArrayLike,
    segments: ArrayLike,
    mask: ArrayLike | None = None,
    min_pixels: int = MIN_SEGMENT_PIXELS,
) -> dict[str, float]:
    """`local_points_rel` and `local_points_delta1`: how well single objects are shaped, wherever they are.

    `segments` (H, W) holds whole numbers; 0 and below belong to no object. Each of the 100 largest segments with
    `min_pixels` pixels and 10 grid samples is aligned by its own scale and shift; its rel is the mean of |p - q| / D
    and its delta1 the share with |p - q| < D / 4, where D is the longest side of the box around its true points. The
    result is the mean over segments; NaN without any.
    """
    p, q, counts = _point_maps(pred, gt, mask)
    ids = np.asarray(segments)
    if ids.shape != counts.shape or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"segments must be whole numbers {counts.shape} like the points, got {ids.dtype} {ids.shape}")
    rows, cols = masked_nearest(counts)
    labels, sizes = np.unique(ids[ids > 0], return_counts=True)
    order = np.argsort(-sizes, kind="stable")[:MAX_SEGMENTS]
    results = []
    for label in labels[order][sizes[order] >= min_pixels]:
        here, sampled = counts & (ids == label), ids[rows, cols] == label
        if sampled.sum() < _MIN_SEGMENT_SAMPLES:
            continue
        diameter = float(np.ptp(q[here], axis=0).max())
        if diameter == 0:
            continue
        i, j = rows[sampled], cols[sampled]
        aligned = _scaled_and_shifted(p[here], (p[i, j], q[i, j], np.full(len(i), 1 / diameter)))
        results.append(_scores(aligned, q[here], diameter))
    return {
        f"local_points_{score}": float(np.mean([r[score] for r in results])) if results else float("nan")
        for score in ("rel", "delta1")
    }


def _point_maps(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array, Bool]:
    """Prediction and truth (H, W, 3) float64 and which pixels count (H, W)."""
    p, q = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    if q.ndim != 3 or q.shape[-1] != 3:
        raise InputError(f"points must be (H, W, 3), got {q.shape}")
    if p.shape != q.shape:
        raise InputError(
            f"predicted points have shape {p.shape} but true points {q.shape}; resize the prediction first"
        )
    # The norm is finite and positive exactly where the point is finite and not the origin.
    return p, q, counting_pixels(q.shape[:2], _norm(q), mask)


def _scores(p: Array, q: Array, diameter: float | None = None) -> dict[str, float]:
    """rel and delta1 of points (N, 3), relative to |q| (and |p|) or to `diameter`."""
    if not len(q):
        return {"rel": float("nan"), "delta1": float("nan")}
    given = np.isfinite(p).all(axis=1)
    error = _norm(p - q)
    size = _norm(q) if diameter is None else np.full(len(q), diameter)
    limit = np.minimum(_norm(p), size) if diameter is None else size
    inlier = given & (error < _INLIER * limit)
    return {"rel": float(np.mean(np.where(given, error / size, 1.0))), "delta1": float(np.mean(inlier))}


def _norm(points: Array) -> Array:
    # Not np.linalg.norm: squares of infinities minus infinities would warn there.
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.sqrt(np.sum(points * points, axis=-1)))
