"""Prompt-only baselines: dense depth from the sparse points alone, without looking at the image.

They show what a learned model adds over plain interpolation. All take `uv` (N, 2) pixels (the centre of the top-left
pixel is at (0.5, 0.5)), `depth` (N,) z-depth in metres and the image size, and return float32 (H, W) metres:
- points whose depth is not finite and positive, or whose pixel is not finite, are no measurement and are left out;
- of points at exactly the same position the nearest one wins, since it hides the others;
- without any point the map is all NaN; otherwise it has a value everywhere, never outside the range of the points.
They raise InputError when the shapes do not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, QhullError, cKDTree

from metricanything.core.errors import InputError

DepthMap = NDArray[np.float32]
Vector = NDArray[np.float64]

_IDW_NEIGHBOURS = 8


def nearest(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) of the nearest point in the image plane."""
    points, values = _measurements(uv, depth)
    if not len(values):
        return _unknown(height, width)
    _, index = cKDTree(points).query(_pixel_centres(height, width))
    return _as_map(values[index], values, height, width)


def linear(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) by linear interpolation over the Delaunay triangles of the points, the nearest point outside.

    Points without area (fewer than three, or all on one line) have no triangles: the nearest point everywhere.
    """
    points, values = _measurements(uv, depth)
    if not len(values):
        return _unknown(height, width)
    pixels = _pixel_centres(height, width)
    try:
        triangles = Delaunay(points)
    except (QhullError, ValueError):  # ValueError for fewer than three points
        dense = np.full(len(pixels), np.nan)
    else:
        dense = LinearNDInterpolator(triangles, values)(pixels)
    outside = np.isnan(dense)
    if outside.any():
        _, index = cKDTree(points).query(pixels[outside])
        dense[outside] = values[index]
    return _as_map(dense, values, height, width)


def idw(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) as the mean of the eight nearest points, weighted by 1 / distance^2 (Shepard 1968)."""
    points, values = _measurements(uv, depth)
    if not len(values):
        return _unknown(height, width)
    neighbours = np.arange(1, min(_IDW_NEIGHBOURS, len(values)) + 1)
    distance, index = cKDTree(points).query(_pixel_centres(height, width), k=neighbours)
    # The floor gives a point that lies on the pixel centre all the weight without dividing by zero.
    weight = 1.0 / np.maximum(distance**2, 1e-12)
    return _as_map((weight * values[index]).sum(axis=1) / weight.sum(axis=1), values, height, width)


@dataclass(frozen=True)
class Baseline:
    """A prompt-only baseline: one line on what it does, and the function `complete(uv, depth, height, width)`."""

    description: str
    complete: Callable[[ArrayLike, ArrayLike, int, int], DepthMap]


#: All prompt-only baselines by name.
BASELINES: dict[str, Baseline] = {
    "nearest": Baseline("depth of the nearest prompt point in the image", nearest),
    "linear": Baseline("linear interpolation over the Delaunay triangles of the prompt, nearest point outside", linear),
    "idw": Baseline("mean of the 8 nearest prompt points, weighted by inverse squared distance", idw),
}


def _measurements(uv: ArrayLike, depth: ArrayLike) -> tuple[Vector, Vector]:
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


def _pixel_centres(height: int, width: int) -> Vector:
    v, u = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([u.ravel(), v.ravel()], axis=1)


def _unknown(height: int, width: int) -> DepthMap:
    return np.full((height, width), np.nan, dtype=np.float32)


def _as_map(dense: Vector, values: Vector, height: int, width: int) -> DepthMap:
    # Rounding may leave the range by an ulp; the promise is kept exactly, in float32.
    low, high = np.float32(values.min()), np.float32(values.max())
    return np.clip(dense.astype(np.float32), low, high).reshape(height, width)
