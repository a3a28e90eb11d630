"""Steps that several sensor models share: edges, occlusion, incidence, texture, correlated noise, rasterising."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame, Kind, Sensor

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
VGA = 640.0  # pixels across the sensors whose papers give errors in pixels
JUMP = 0.08  # relative difference between neighbours that counts as a depth edge


def measurable(frame: Frame) -> Array:
    """True depth as float64, NaN where there is nothing at a finite distance."""
    if frame.scale != "metric":
        raise InputError(f"{frame.name}: sensor models need metric depth, this frame's scale is {frame.scale}")
    return np.where(frame.valid, frame.depth, np.nan).astype(np.float64)


def measured(
    frame: Frame, depth: Array, name: str, kind: Kind, sensor: Sensor, sigma: Array | None = None
) -> Frame:  # fmt: skip
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float32)
    spread = None if sigma is None else np.where(np.isfinite(depth), sigma, np.nan).astype(np.float32)
    notes = {**frame.notes, "sensor_model": name}
    return replace(frame, depth=depth, kind=kind, sensor=sensor, sigma=spread, notes=notes)


def luma(image: NDArray[np.uint8]) -> Array:
    """Linear luminance in 0..1, roughly."""
    return np.asarray(((image / 255.0) ** 2.2) @ [0.2126, 0.7152, 0.0722])


def local_contrast(image: NDArray[np.uint8]) -> Array:
    """Standard deviation of the grey value (0..1) in 5 x 5 windows."""
    grey = image.mean(-1) / 255
    mean = ndimage.uniform_filter(grey, 5)
    return np.asarray(np.sqrt(np.maximum(ndimage.uniform_filter(grey * grey, 5) - mean * mean, 0)))


def corners(image: NDArray[np.uint8]) -> Array:
    """The smaller eigenvalue of the structure tensor of the grey image."""
    grey = ndimage.gaussian_filter(image.mean(-1) / 255, 0.7)
    gy, gx = np.gradient(grey)
    xx, yy, xy = (ndimage.gaussian_filter(p, 1.0) for p in (gx * gx, gy * gy, gx * gy))
    return np.asarray((xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Array:
    """Gaussian noise of unit variance, correlated over `sigma` pixels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return np.asarray(noise / max(float(noise.std()), 1e-12))


def extremes(depth: Array, window: int) -> tuple[Array, Array]:
    """Least and greatest known depth in windows; NaN where the pixel itself is unknown."""
    known = np.isfinite(depth)
    low = ndimage.minimum_filter(np.where(known, depth, np.inf), window)
    high = ndimage.maximum_filter(np.where(known, depth, -np.inf), window)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def edges(depth: Array) -> Mask:
    low, high = extremes(depth, 3)
    return np.asarray(high / low > 1 + JUMP)


def grown_foreground(depth: Array, rng: np.random.Generator, window: int) -> Array:
    """Depth with the foreground grown by half a matching window (in VGA pixels) over stretches of its edges."""
    size = 1 + 2 * max(1, round(window / 2 * depth.shape[1] / VGA))
    low, _ = extremes(depth, size)
    grows = (depth / low > 1 + JUMP) & (smooth_noise(rng, depth.shape, 2.0) > -0.3)
    return np.where(grows, low, depth)


def occluded(depth: Array, focal_baseline: float, side: int) -> Mask:
    """Pixels that a second view, `side` = 1 to the right or -1 to the left, does not see.

    A pixel at column u falls on u - d there; it is hidden when a pixel nearer to that side falls on the same place or
    beyond it. `focal_baseline`: focal length in pixels of this image times baseline in metres.
    """
    disparity = np.nan_to_num(focal_baseline / depth)
    if side < 0:
        return occluded(depth[:, ::-1], focal_baseline, 1)[:, ::-1]
    place = np.arange(depth.shape[1]) - disparity
    beyond = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(depth.shape, dtype=bool)
    hidden[:, :-1] = place[:, :-1] > beyond[:, 1:] + 0.5
    return hidden


def ray_z(frame: Frame) -> Array:
    """Cosine (H, W) between each pixel's ray and the optical axis, 1 where the pixel sees nothing."""
    return np.nan_to_num(frame.camera.rays()[..., 2].astype(np.float64), nan=1.0)


def cosine(frame: Frame) -> Array:
    """Cosine (H, W) of the angle of incidence on the surface, from differences of neighbouring points; 1 at edges."""
    rays = frame.camera.rays().astype(np.float64)
    points = rays * (measurable(frame) / np.where(rays[..., 2] > 0, rays[..., 2], np.nan))[..., None]
    normal = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    length = np.linalg.norm(normal, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.abs((normal * rays).sum(-1)) / length
    return np.where(np.isfinite(cosine) & ~edges(measurable(frame)), cosine, 1.0)


def cell(value: Array, span: Array, count: int) -> NDArray[np.int64]:
    """Index of the cell of `count` cells over `span` in which each value lies."""
    unit = (value - span[0]) / max(span[1] - span[0], 1e-9)
    return np.asarray(np.clip((unit * count).astype(np.int64), 0, count - 1))


def range_image(azimuth: Array, elevation: Array, distance: Array, span: Array, rows: int, columns: int) -> Array:
    """Nearest distance (rows, columns) per angular cell; empty cells continue the farther of their two neighbours.

    Cells are as fine as the image; what opens up beside a foreground edge is background that goes on behind it.
    """
    image = np.full((rows, columns), np.inf)
    np.minimum.at(image, (cell(elevation, span[1], rows), cell(azimuth, span[0], columns)), distance)
    number = np.arange(columns)
    left = np.maximum.accumulate(np.where(np.isfinite(image), number, -1), axis=1)
    right = np.minimum.accumulate(np.where(np.isfinite(image), number, columns)[:, ::-1], axis=1)[:, ::-1]
    row = np.arange(rows)[:, None]
    enclosed = (left >= 0) & (right < columns) & (right - left <= 1 + max(2, columns // 25))
    farther = np.maximum(image[row, np.maximum(left, 0)], image[row, np.minimum(right, columns - 1)])
    return np.where(np.isfinite(image), image, np.where(enclosed, farther, np.nan))


def rasterised(frame: Frame, points: Array) -> Array:
    """z-depth (H, W) of points (n, 3) in the camera frame at the pixels they fall on, the nearest winning."""
    uv = frame.camera.project(points)
    inside = (
        np.isfinite(uv).all(-1) & (uv >= 0).all(-1) & (uv < [frame.width, frame.height]).all(-1) & (points[:, 2] > 0)
    )
    column, row = uv[inside].astype(np.int64).T
    depth = np.full((frame.height, frame.width), np.inf)
    np.minimum.at(depth, (row, column), points[inside, 2])
    return np.where(np.isfinite(depth), depth, np.nan)
