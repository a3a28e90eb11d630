"""Filling that grows from the points: morphology on inverted depth, and a bilateral mean that follows the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from metricanything.core.errors import InputError
from metricanything.inference.baselines.measurements import (
    DepthMap,
    Vector,
    as_map,
    measurements,
    pixel_centres,
    pixel_of,
    rasterise,
    unknown,
)

_DIAMOND = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), 2)  # 5x5
_LARGE_HOLE = 31  # pixels; the first window that fills what is still empty, then doubled

_NEIGHBOURS = 16
_COLOUR_SIGMA = 0.15  # of 0..1 per channel; this and the fourth power were chosen on the bundled training frames
_COLOUR_FLOOR = 1e-4  # of the weight: where no point looks alike, distance alone decides
_CHUNK = 1 << 17  # pixels at a time, so that big images need no more memory than small ones


def morphological(uv: ArrayLike, depth: ArrayLike, height: int, width: int) -> DepthMap:
    """Depth (H, W) by dilation, closing and smoothing of inverted depth (IP-Basic: Ku, Harakeh, Waslander, CRV 2018).

    Inverted depth (a far limit minus depth) makes near surfaces win where they meet, and empty pixels the lowest value.
    The steps and windows are those of the paper: dilate by a 5x5 diamond, close 5x5, fill small holes 7x7, fill large
    holes 31x31, median 5x5, Gaussian 5x5. Other than there, columns are not extended upwards, which only suits a LiDAR
    on a car, and the large window doubles until no pixel is empty, so that any density of points is filled.
    """
    points, values = measurements(uv, depth)
    if not len(values):
        return unknown(height, width)
    far = 2 * values.max()  # any limit beyond the points keeps them above 0, which means empty
    inverted = far - rasterise(points, values, height, width).astype(np.float64)
    inverted = ndimage.grey_dilation(np.nan_to_num(inverted), footprint=_DIAMOND)
    inverted = ndimage.grey_closing(inverted, size=5)
    inverted = _fill_empty(inverted, 7)
    window = _LARGE_HOLE
    while (inverted <= 0).any():
        inverted = _fill_empty(inverted, window)
        window = 2 * window - 1
    inverted = ndimage.median_filter(inverted, size=5, mode="nearest")
    inverted = ndimage.gaussian_filter(inverted, sigma=1.1, truncate=2 / 1.1, mode="nearest")
    return as_map(far - inverted, values, height, width)


def _fill_empty(inverted: Vector, window: int) -> Vector:
    """Empty pixels (0) get the largest value around them; the others stay."""
    return np.where(inverted > 0, inverted, ndimage.maximum_filter(inverted, size=window, mode="nearest"))


def guided(uv: ArrayLike, depth: ArrayLike, height: int, width: int, *, image: ArrayLike) -> DepthMap:
    """Depth (H, W) as a joint bilateral mean of the 16 nearest points: near in the image and alike in colour.

    image: uint8 (H, W, 3). Weights are 1 / distance^4 times a Gaussian of the difference in colour between the pixel
    and the pixel of the point (after Kopf et al., Joint Bilateral Upsampling, SIGGRAPH 2007); with nearest neighbours
    instead of a window it works at any density. Raises InputError for an image of another size.
    """
    points, values = measurements(uv, depth)
    colours = _colours(image, height, width)
    if not len(values):
        return unknown(height, width)
    rows, columns = pixel_of(points, height, width)
    point_colours = colours[rows, columns]
    pixels, pixel_colours, tree = pixel_centres(height, width), colours.reshape(-1, 3), cKDTree(points)
    neighbours = np.arange(1, min(_NEIGHBOURS, len(values)) + 1)
    dense = np.empty(len(pixels))
    for start in range(0, len(pixels), _CHUNK):
        part = slice(start, start + _CHUNK)
        distance, index = tree.query(pixels[part], k=neighbours)
        difference = ((pixel_colours[part, None] - point_colours[index]) ** 2).mean(axis=-1)
        alike = np.exp(-difference / (2 * _COLOUR_SIGMA**2)) + _COLOUR_FLOOR
        weight = alike / np.maximum(distance**4, 1e-12)  # a point on the pixel centre gets all the weight
        dense[part] = (weight * values[index]).sum(axis=1) / weight.sum(axis=1)
    return as_map(dense, values, height, width)


def _colours(image: ArrayLike, height: int, width: int) -> NDArray[np.float32]:
    array = np.asarray(image)
    if array.shape != (height, width, 3) or array.dtype != np.uint8:
        raise InputError(f"the image must be uint8 ({height}, {width}, 3), got {array.dtype} {array.shape}")
    return array.astype(np.float32) / np.float32(255)
