"""Interpolation of the points in the image plane, without looking at the image: nearest, linear, IDW."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator
from scipy.spatial import Delaunay, QhullError, cKDTree

from metricanything.inference.baselines.measurements import (
    DepthMap,
    Vector,
    as_map,
    measurements,
    pixel_centres,
    pixel_of,
    unknown,
)

Bool = NDArray[np.bool_]

_IDW_NEIGHBOURS = 8


def nearest(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) of the nearest point in the image plane."""
    points, values = measurements(uv, depth)
    if not len(values):
        return unknown(height, width)
    _, index = cKDTree(points).query(pixel_centres(height, width))
    return as_map(values[index], values, height, width)


def linear(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) by linear interpolation over the Delaunay triangles of the points, the nearest point outside.

    Points without area (fewer than three, or all on one line) have no triangles: the nearest point everywhere.
    """
    points, values = measurements(uv, depth)
    if not len(values):
        return unknown(height, width)
    pixels = pixel_centres(height, width)
    needed, rows, columns = _bordering(points, height, width)
    try:
        triangles = Delaunay(points[needed])
    except (QhullError, ValueError):  # ValueError for fewer than three points
        dense = np.full(len(pixels), np.nan)
    else:
        dense = LinearNDInterpolator(triangles, values[needed])(pixels)
    inner = rows[~needed] * width + columns[~needed]
    dense[inner] = values[~needed]
    outside = np.isnan(dense)
    if outside.any():
        _, index = cKDTree(points).query(pixels[outside])
        dense[outside] = values[index]
    return as_map(dense, values, height, width)


def _bordering(points: Vector, height: int, width: int) -> tuple[Bool, NDArray[np.intp], NDArray[np.intp]]:
    """Which points (N,) may shape triangles over pixels without a point, and the row and column of each.

    On pixel centres, a point whose eight neighbours are points as well has triangles between those alone. Dense maps
    have mostly such points, and triangulating them takes minutes.
    """
    rows, columns = pixel_of(points, height, width)
    taken = np.zeros((height, width), dtype=bool)
    if (points == np.stack([columns, rows], axis=1) + 0.5).all():
        taken[rows, columns] = True
    return ~ndimage.binary_erosion(taken, np.ones((3, 3)))[rows, columns], rows, columns


def idw(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) as the mean of the eight nearest points, weighted by 1 / distance^2 (Shepard 1968)."""
    points, values = measurements(uv, depth)
    if not len(values):
        return unknown(height, width)
    neighbours = np.arange(1, min(_IDW_NEIGHBOURS, len(values)) + 1)
    distance, index = cKDTree(points).query(pixel_centres(height, width), k=neighbours)
    # The floor gives a point that lies on the pixel centre all the weight without dividing by zero.
    weight = 1.0 / np.maximum(distance**2, 1e-12)
    return as_map((weight * values[index]).sum(axis=1) / weight.sum(axis=1), values, height, width)
