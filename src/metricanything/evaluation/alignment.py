"""Alignment of a depth map to its ground truth before it is measured: what is left is the error of its shape alone.

`pred` and `gt` are z-depths `(H, W)` in metres (`pred` of an affine-invariant model in any unit); which pixels count is
told as in `metrics`: finite positive truth and a True `mask`. Pixels without a usable prediction take no part in a fit
and stay without one. All functions raise InputError when shapes differ.

    aligned = ALIGNMENTS["l1_affine"](pred, gt, mask)
    metrics.evaluate(aligned, gt, mask)

Sources: Eigen et al. 2014 and UniDepth (median scale), Marigold (least squares), MoGe (weighted L1 on a grid of 64 x 64
samples with weights 1 / gt; disparity by least squares over all pixels).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError
from metricanything.evaluation import alignment_l1
from metricanything.evaluation.metrics import counting_pixels, valid_pairs

Array = NDArray[np.float64]

GRID = 64  # samples per side that MoGe's alignments are solved on


def median_scale(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Scale that makes the medians equal, median(gt) / median(pred); NaN when no pixel counts."""
    d, g = _known_pairs(pred, gt, mask)
    return float(np.median(g) / np.median(d)) if d.size else float("nan")


def least_squares_scale(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Scale `s` of least sum (s pred - gt)^2, which is sum(pred gt) / sum(pred^2); NaN when no pixel counts."""
    d, g = _known_pairs(pred, gt, mask)
    return float(d @ g / (d @ d)) if d.size else float("nan")


def least_squares_scale_shift(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> tuple[float, float]:
    """Scale `s` and shift `t` (metres) of least sum (s pred + t - gt)^2; NaN when no pixel counts."""
    return _line(*_known_pairs(pred, gt, mask))


def align_disparity(disparity: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Depth (H, W) in metres of a disparity (inverse depth up to scale and shift, any sign) fitted to 1 / gt.

    Scale and shift of least sum (s disparity + t - 1 / gt)^2. The fitted disparity is not let below 1 / max(gt), since
    next to 0 the smallest error would become any depth.
    """
    x = np.asarray(disparity, dtype=np.float64)
    # Only the truth may tell which pixels count: a disparity relative to a shift can be negative and yet usable.
    g = np.asarray(gt, dtype=np.float64)
    chosen = counting_pixels(x.shape, g, mask) & np.isfinite(x)
    inverse = 1 / g[chosen]
    scale, shift = _line(x[chosen], inverse)
    farthest = inverse.min() if inverse.size else np.nan
    return np.where(np.isfinite(x), 1 / np.maximum(scale * x + shift, farthest), np.nan)


def masked_nearest(mask: ArrayLike, size: int = GRID) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns (K,) of the pixels that represent the cells of a `size` x `size` grid laid over `mask` (H, W).

    A cell takes, of the True pixels in the window of ceil(H / size) x ceil(W / size) pixels around its centre (1 pixel
    where the grid is finer than the image), the one whose centre is nearest; cells without one are left out. Of equally
    near pixels the first in reading order is taken (in the published code float32 rounding decides).
    """
    flags = np.asarray(mask)
    if flags.ndim != 2 or flags.dtype != np.bool_:
        raise InputError(f"mask must be bool (H, W), got {flags.dtype} {flags.shape}")
    if not flags.size:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    rows, row_distance = _windows(flags.shape[0], size)
    cols, col_distance = _windows(flags.shape[1], size)
    inside = (rows[:, None, :, None] >= 0) & (rows < flags.shape[0])[:, None, :, None]
    inside = inside & ((cols >= 0) & (cols < flags.shape[1]))[None, :, None, :]
    i = np.broadcast_to(np.clip(rows, 0, flags.shape[0] - 1)[:, None, :, None], inside.shape)
    j = np.broadcast_to(np.clip(cols, 0, flags.shape[1] - 1)[None, :, None, :], inside.shape)
    distance = row_distance[:, None, :, None] ** 2 + col_distance[None, :, None, :] ** 2
    distance = np.where(inside & flags[i, j], distance, np.inf).reshape(size * size, -1)
    nearest = np.argmin(distance, axis=1)[:, None]
    found = np.isfinite(np.take_along_axis(distance, nearest, axis=1)[:, 0])

    def pick(index: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.take_along_axis(index.reshape(size * size, -1), nearest, axis=1)[found, 0]

    return pick(i), pick(j)


def _windows(length: int, cells: int) -> tuple[NDArray[np.intp], Array]:
    """Pixels (cells, window) that each cell may take along one axis, and their centres' distances from its centre."""
    span = max(1.0, length / cells)
    centre = (np.arange(cells) + 0.5) * (length / cells)
    pixels = np.round(centre - span / 2).astype(np.intp)[:, None] + np.arange(int(np.ceil(span)), dtype=np.intp)
    return pixels, pixels + 0.5 - centre[:, None]


def _grid_samples(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array, Array]:
    """Prediction, truth and weight 1 / truth of the grid's samples, for the solver (which skips unusable ones)."""
    d, g = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    chosen = masked_nearest(counting_pixels(d.shape, g, mask))
    return np.where(d[chosen] > 0, d[chosen], np.nan), g[chosen], 1 / g[chosen]


def _scaled(pred: ArrayLike, scale: float, shift: float = 0.0) -> Array:
    d = np.asarray(pred, dtype=np.float64)
    return np.where(np.isfinite(d) & (d > 0), scale * d + shift, np.nan)


def _l1_scale(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None) -> Array:
    return _scaled(pred, alignment_l1.depth_scale(*_grid_samples(pred, gt, mask)))


def _l1_affine(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None) -> Array:
    return _scaled(pred, *alignment_l1.depth_scale_shift(*_grid_samples(pred, gt, mask)))


def _disparity(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None) -> Array:
    return align_disparity(1 / _scaled(pred, 1.0), gt, mask)


#: Aligned depth (H, W) of (pred, gt, mask) by name; mask may be None. The first three scale, the last scale and shift.
ALIGNMENTS: dict[str, Callable[[Any, Any, Any], Array]] = {
    "median": lambda pred, gt, mask: _scaled(pred, median_scale(pred, gt, mask)),
    "least_squares_scale": lambda pred, gt, mask: _scaled(pred, least_squares_scale(pred, gt, mask)),
    "l1_scale": _l1_scale,
    "least_squares_affine": lambda pred, gt, mask: _scaled(pred, *least_squares_scale_shift(pred, gt, mask)),
    "l1_affine": _l1_affine,
    "disparity": _disparity,
}


def _line(x: Array, y: Array) -> tuple[float, float]:
    """Least-squares line y = s x + t; a constant x has slope 0."""
    if not x.size:
        return float("nan"), float("nan")
    centred = x - x.mean()
    spread = float(centred @ centred)
    scale = float(centred @ (y - y.mean())) / spread if spread > 0 else 0.0
    return scale, float(y.mean() - scale * x.mean())


def _known_pairs(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array]:
    d, g = valid_pairs(pred, gt, mask)
    known = ~np.isnan(d)
    return d[known], g[known]
