"""Pure functions between depth maps, points, pixels and cameras.

Conventions as in docs/conventions.md: OpenCV camera frame, metres, first pixel centre at (0.5, 0.5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.camera import Camera

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]

_WINDOW_RADIUS, _WINDOW_WIDTH = 3, 1242  # pixels
_WITHIN_PIXEL = 2.0  # a plane's depth changes by this factor within one pixel only in the last one before its horizon


# ---------------------------------------------------------------- depth and points


def depth_to_points(depth: NDArray[Any], camera: Camera) -> Float32:
    """Points (H, W, 3) float32 in the camera frame of a z-depth map (H, W); NaN where either is unknown.

    Infinite depth gives infinite points. Pixels that look sideways or backwards (z <= 0) have no z-depth: NaN.
    """
    plane, z = camera.plane(), np.asarray(depth, dtype=np.float32)
    points = np.empty((*z.shape, 3), np.float32)
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):  # whole maps: a third of the time of pairs
            np.multiply(plane[..., axis], z, out=points[..., axis])
    points[..., 2] = np.where(np.isnan(plane[..., 0]), np.float32(np.nan), z)
    points[np.isposinf(z)] = np.inf
    return points


def distance_to_depth(distance: NDArray[Any], camera: Camera) -> Float32:
    """z-depth (H, W) of Euclidean distances along the rays (H, W); NaN where the ray has z <= 0."""
    z = camera.rays()[..., 2]
    return np.asarray(np.where(z > 0, distance * z, np.nan), dtype=np.float32)


def depth_to_distance(depth: NDArray[Any], camera: Camera) -> Float32:
    """Euclidean distance along the rays (H, W) of a z-depth map (H, W)."""
    z = camera.rays()[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(z > 0, depth / z, np.nan), dtype=np.float32)


def depth_to_normals(depth: NDArray[Any], camera: Camera) -> Float32:
    """Unit surface normals (H, W, 3) float32 that face the camera, by central differences of the points.

    NaN at the image border and where a neighbour is unknown.
    """
    points = depth_to_points(depth, camera).astype(np.float64)
    normals = np.full(points.shape, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        across = points[1:-1, 2:] - points[1:-1, :-2]
        down = points[2:, 1:-1] - points[:-2, 1:-1]
        n = np.cross(down, across)
        n /= np.linalg.norm(n, axis=-1, keepdims=True)
        n[~np.isfinite(depth[1:-1, 1:-1])] = np.nan
        away = np.sum(n * points[1:-1, 1:-1], axis=-1, keepdims=True) > 0
    normals[1:-1, 1:-1] = np.where(away, -n, n)
    return normals.astype(np.float32)


def depth_edges(depth: NDArray[Any], rtol: float = 0.1) -> Bool:
    """(H, W) bool, True where the depth range in the 3x3 neighbourhood exceeds `rtol` times the depth.

    Unknown and infinite pixels, and pixels beside one, count as edges (the rule MoGe uses to cut meshes, rtol 0.1).
    """
    known = np.isfinite(depth)
    filled = np.where(known, depth, np.inf)
    padded = np.pad(filled, 1, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    with np.errstate(invalid="ignore"):
        spread = windows.max(axis=(-2, -1)) - windows.min(axis=(-2, -1))
        return np.asarray(~known | ~(spread <= rtol * filled))


# ---------------------------------------------------------------- points on the pixel grid


def pixel_index(uv: ArrayLike, height: int, width: int) -> tuple[NDArray[np.int64], Bool]:
    """Flat index (N,) of the pixel that holds each `uv` (N, 2), and a bool (N,), False outside the image.

    The right and bottom borders of the image belong to its last pixels.
    """
    uv = np.asarray(uv, dtype=np.float64).reshape(-1, 2)
    u, v = uv[:, 0], uv[:, 1]
    inside = (u >= 0) & (u <= width) & (v >= 0) & (v <= height)
    column = np.minimum(np.where(inside, u, 0).astype(np.int64), width - 1)
    row = np.minimum(np.where(inside, v, 0).astype(np.int64), height - 1)
    return row * width + column, inside


def scatter_min(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> Float32:
    """Depth map (height, width) float32 of points at pixels `uv` (N, 2): the nearest wins, NaN where none falls.

    Values are copied, never interpolated; points outside the image or without a finite positive depth are left out.
    """
    values = np.asarray(depth, dtype=np.float32).reshape(-1)
    index, inside = pixel_index(uv, height, width)
    keep = inside & np.isfinite(values) & (values > 0)
    grid = np.full(height * width, np.inf, dtype=np.float32)
    np.minimum.at(grid, index[keep], values[keep])
    grid[np.isinf(grid)] = np.nan
    return grid.reshape(height, width)


def visible_points(
    uv: ArrayLike, depth: ArrayLike, height: int, width: int, *, radius: int | None = None, ratio: float = 1.15
) -> Bool:
    """(N,) bool: False for points that lie behind a nearer surface seen by the same sensor.

    A LiDAR beside the camera sees behind foreground objects, and its points shine through them in the image. A point
    is taken as hidden when points nearer by more than the factor `ratio` surround it within `radius` pixels: no half
    of the window is free of them. A slanted plane, such as the ground before a low camera, is nearer on one side only
    (its inverse depth is linear in the pixels), so however steep it is, it does not hide itself. By default the window
    is that of VPP4DC's filter (Bartolomei et al., 3DV 2024: 7x7 in images of KITTI's width), scaled with the width;
    the threshold is relative so that one serves rooms and streets. Points outside the image count as visible.
    """
    values = np.asarray(depth, dtype=np.float32).reshape(-1)
    nearest = scatter_min(uv, values, height, width)
    index, inside = pixel_index(uv, height, width)
    if radius is None:
        radius = max(1, round(_WINDOW_RADIUS * width / _WINDOW_WIDTH))
    surrounded = _surrounded(nearest, radius, ratio).reshape(-1)[index]
    covered = values > _WITHIN_PIXEL * nearest.reshape(-1)[index]
    return np.asarray(~inside | ~(surrounded | covered))


def _surrounded(nearest: Float32, radius: int, ratio: float) -> Bool:
    """(H, W) bool: pixels whose depth exceeds `ratio` times that of others around it, less than 180 degrees apart."""
    # Continued beyond the borders, where nothing is seen, as it is there.
    padded = np.pad(np.where(np.isnan(nearest), np.inf, nearest), radius, mode="edge")
    size = 2 * radius + 1
    # Few pixels have anything nearer in their window; a separable minimum (rows, then columns) finds them.
    across = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1).min(axis=-1)
    front = np.lib.stride_tricks.sliding_window_view(across, size, axis=0).min(axis=-1)
    rows, columns = np.nonzero(nearest > ratio * front)
    depth = nearest[rows, columns]
    dy, dx = (offset.ravel() for offset in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    angle = np.arctan2(dy, dx)
    first, last, gap = np.full(len(depth), np.nan), np.full(len(depth), np.nan), np.zeros(len(depth))
    for k in np.argsort(angle, kind="stable"):
        nearer = depth > ratio * padded[rows + radius + dy[k], columns + radius + dx[k]]
        first = np.where(nearer & np.isnan(first), angle[k], first)
        gap = np.where(nearer, np.fmax(gap, angle[k] - last), gap)
        last = np.where(nearer, angle[k], last)
    gap = np.fmax(gap, first + 2 * np.pi - last)
    result = np.zeros(nearest.shape, dtype=bool)
    result[rows, columns] = gap < np.pi - 1e-6
    return result
