"""What every baseline does with its points before and after: which ones count, where they fall, what leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError
from metricanything.core.geometry import scatter_min

DepthMap = NDArray[np.float32]
Vector = NDArray[np.float64]


def measurements(uv: ArrayLike, depth: ArrayLike) -> tuple[Vector, Vector]:
    """The usable points: distinct positions (M, 2) and their depth (M,), nearest first at equal positions."""
    points, values = np.asarray(uv, dtype=np.float64), np.asarray(depth, dtype=np.float64)
    if points.size == 0 and values.size == 0:
        return np.empty((0, 2)), np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or values.shape != points.shape[:1]:
        raise InputError(f"prompt needs uv (N, 2) and depth (N,), got {points.shape} and {values.shape}")
    usable = np.isfinite(points).all(axis=1) & np.isfinite(values) & (values > 0)
    points, values = points[usable], values[usable]
    order = np.lexsort((values, points[:, 1], points[:, 0]))
    points, values = points[order], values[order]
    distinct = np.ones(len(values), dtype=bool)
    distinct[1:] = (points[1:] != points[:-1]).any(axis=1)
    return points[distinct], values[distinct]


def pixel_of(points: Vector, height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of the pixel each point lies in; of points beyond the border, the pixel nearest to them."""
    columns, rows = np.floor(points).astype(np.intp).T
    return rows.clip(0, height - 1), columns.clip(0, width - 1)


def rasterise(points: Vector, values: Vector, height: int, width: int) -> DepthMap:
    """Map (H, W) of the points, NaN where there is none; of several in a pixel, the nearest."""
    rows, columns = pixel_of(points, height, width)
    return scatter_min(np.stack([columns, rows], axis=1) + 0.5, values, height, width)


def pixel_centres(height: int, width: int) -> Vector:
    """Pixel coordinates (H * W, 2) of the centres, row by row."""
    v, u = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([u.ravel(), v.ravel()], axis=1)


def unknown(height: int, width: int) -> DepthMap:
    """A map of NaN."""
    return np.full((height, width), np.nan, dtype=np.float32)


def as_map(dense: Vector, values: Vector, height: int, width: int) -> DepthMap:
    """The values as float32 (H, W), inside the range of the points."""
    # Rounding may leave the range by an ulp; the promise is kept exactly, in float32.
    low, high = np.float32(values.min()), np.float32(values.max())
    return np.clip(dense.astype(np.float32), low, high).reshape(height, width)
