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


# ---------------------------------------------------------------- depth and points


def depth_to_points(depth: NDArray[Any], camera: Camera) -> Float32:
    """Points (H, W, 3) float32 in the camera frame of a z-depth map (H, W); NaN where either is unknown.

    Infinite depth gives infinite points. Pixels that look sideways or backwards (z <= 0) have no z-depth: NaN.
    """
    rays = camera.rays()
    with np.errstate(divide="ignore", invalid="ignore"):
        unit_z = np.where(rays[..., 2:] > 0, rays / rays[..., 2:], np.float32(np.nan))
        points = unit_z * depth[..., None]
    points[np.isposinf(depth)] = np.inf
    return points.astype(np.float32)


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
    uv: ArrayLike, depth: ArrayLike, height: int, width: int, *, radius: int = 3, ratio: float = 1.15
) -> Bool:
    """(N,) bool: False for points that lie behind a nearer surface seen by the same sensor.

    A LiDAR beside the camera sees behind foreground objects, and its points shine through them in the image. A point
    is taken as hidden when another within `radius` pixels is nearer by more than the factor `ratio`. The window is that
    of VPP4DC's filter (Bartolomei et al., 3DV 2024: 7x7); the threshold is relative so that one serves rooms and
    streets. Points outside the image count as visible.
    """
    values = np.asarray(depth, dtype=np.float32).reshape(-1)
    nearest = scatter_min(uv, values, height, width)
    padded = np.pad(np.where(np.isnan(nearest), np.inf, nearest), radius, constant_values=np.inf)
    size = 2 * radius + 1
    # Separable minimum: rows, then columns.
    rows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1).min(axis=-1)
    front = np.lib.stride_tricks.sliding_window_view(rows, size, axis=0).min(axis=-1)
    index, inside = pixel_index(uv, height, width)
    return np.asarray(~inside | (values <= ratio * front.reshape(-1)[index]))


# ---------------------------------------------------------------- camera from a point map


def recover_focal_shift(
    points: NDArray[Any], mask: Bool | None = None, focal: float | None = None
) -> tuple[float, float]:
    """Focal length and z-shift that make an affine point map (H, W, 3) agree with its pixels.

    The focal length is relative to half the image diagonal, the principal point the image centre. Minimises
    the residuals f * xy / (z + shift) - uv over a 64x64 nearest subsample, f in closed form for every shift (MoGe,
    arXiv 2410.19115, section 3.2), from shift 0 and without bounds: nonsense points give a nonsense focal length, which
    the caller has to check. With `focal` given, only the shift is solved. With fewer than two usable points the answer
    is (1, 0).
    """
    from scipy.optimize import least_squares

    height, width = points.shape[:2]
    rows = (np.arange(64) * height / 64).astype(int) if height > 64 else np.arange(height)
    columns = (np.arange(64) * width / 64).astype(int) if width > 64 else np.arange(width)
    sampled = points[rows][:, columns].astype(np.float64)
    uv = view_plane_uv(height, width)[rows][:, columns].astype(np.float64)
    keep = np.isfinite(sampled).all(axis=-1)
    if mask is not None:
        keep &= mask[rows][:, columns]
    if keep.sum() < 2:
        return focal or 1.0, 0.0
    xy, z, uv = sampled[keep][:, :2], sampled[keep][:, 2], uv[keep]

    def focal_at(shift: float) -> tuple[float, NDArray[np.float64]]:
        plane = xy / (z + shift)[:, None]
        f = focal if focal is not None else float((plane * uv).sum() / max((plane * plane).sum(), 1e-12))
        return f, plane

    def residuals(shift: NDArray[np.float64]) -> NDArray[np.float64]:
        f, plane = focal_at(float(shift[0]))
        return (f * plane - uv).ravel()

    shift = float(least_squares(residuals, x0=[0.0], method="lm", ftol=1e-3).x[0])
    return float(focal_at(shift)[0]), shift


def view_plane_uv(height: int, width: int) -> Float32:
    """(height, width, 2) float32 coordinates of the pixel centres, in units of half the image diagonal, centred."""
    half_diagonal = np.hypot(width, height) / 2
    u = (np.arange(width) + 0.5 - width / 2) / half_diagonal
    v = (np.arange(height) + 0.5 - height / 2) / half_diagonal
    return np.stack(np.meshgrid(u, v), axis=-1).astype(np.float32)
