"""Whether the depth edges of a frame lie on edges of its image: a search over shifts.

Depth edges are counted where the inverse depth bends along a row or a column (on planes, however slanted, it is linear
in the pixels), image edges by the locally normalised gradient in the same direction. The mean image gradient below the
depth edges is taken for every shift of a square window: of a frame whose image and depth belong together it has its
peak at no shift; of another image it has no peak. The work is done on a grid about `GRID_WIDTH` pixels wide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32 = NDArray[np.float32]

GRID_WIDTH = 320  # pixels; finer grids cost more and find no more
_REACH, _STEP = 16, 2  # of the search, pixels of the image where its grid is fine enough
_BEND = 0.03  # of the inverse depth over two pixels to either side, relative to its largest
_SPAN = 2
_POINTS = 2500  # edges in either direction that are enough
_MIN_POINTS = 60
_NEAR, _FAR = 5.0, 7.0  # pixels of the image: shifts that count as none, and as some
_HOLES = 5  # pixels of the grid: narrower shadows beside a foreground object are filled from behind


class EdgeAgreement(NamedTuple):
    """Result of the search, in pixels of the image; NaN where there are too few depth edges to tell.

    dx, dy: the shift (to be added to positions of the depth) at the peak. peak: its height over the mean of all
    shifts, relative to that mean. margin: best score within 5 px over the best beyond 7 px, above 1 for good frames.
    """

    dx: float
    dy: float
    peak: float
    margin: float


NOT_MEASURABLE = EdgeAgreement(np.nan, np.nan, np.nan, np.nan)


def grid_step(width: int) -> int:
    """How many pixels of an image of this width make one of the grid."""
    return max(1, round(width / GRID_WIDTH))


def edge_agreement(image: Float32, depth: Float32, step: int) -> EdgeAgreement:
    """Agreement of an image float32 (3, h, w), 0..255, and a depth map (h, w), both on the grid of `step` pixels."""
    shifts = _shifts(step)
    scores, count = _scores(_gradients(image), depth_edges(depth), shifts)
    if count < _MIN_POINTS:
        return NOT_MEASURABLE
    pixels = shifts * step
    distance = np.hypot(pixels[:, None], pixels[None])
    best = np.unravel_index(int(scores.argmax()), scores.shape)
    mean = float(scores.mean()) + 1e-6
    far = float(scores[distance >= max(_FAR, 3 * step)].max()) + 1e-6
    near = float(scores[distance <= max(_NEAR, step)].max())
    return EdgeAgreement(float(pixels[best[1]]), float(pixels[best[0]]), float(scores.max()) / mean - 1, near / far)


def _shifts(step: int) -> NDArray[np.int64]:
    """The shifts of the search along one axis, pixels of the grid."""
    every = max(1, _STEP // step)
    reach = max(_REACH // step, 4 * every)
    return np.arange(-reach, reach + 1, every)


def depth_edges(depth: Float32) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of the edges of a depth map (h, w) on the grid: those across rows, then those across columns."""
    return _bends(_inverse(depth))


def _inverse(depth: Float32) -> Float32:
    """Inverse depth, 0 for the sky, with narrow holes filled by the farthest beside them."""
    inverse = np.where(np.isnan(depth), np.float32(np.inf), 1 / depth)
    filled = ndimage.minimum_filter(inverse, _HOLES)
    inverse = np.where(np.isinf(inverse), filled, inverse)
    return np.where(np.isinf(inverse), np.float32(np.nan), inverse)


def _bends(inverse: Float32) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows and columns of the depth edges along either axis, thinned to the strongest of their neighbourhood."""
    found = []
    for axis in (0, 1):
        values = np.moveaxis(inverse, axis, 0)
        before, here, after = values[: -2 * _SPAN], values[_SPAN:-_SPAN], values[2 * _SPAN :]
        with np.errstate(invalid="ignore", divide="ignore"):
            bend = np.abs(before + after - 2 * here) / np.maximum(np.maximum(before, after), here)
        bend = np.nan_to_num(bend, nan=0.0, posinf=0.0)
        bend[bend < ndimage.maximum_filter1d(bend, 2 * _SPAN + 1, axis=0)] = 0
        bend = np.moveaxis(np.pad(bend, ((_SPAN, _SPAN), (0, 0))), 0, axis)
        bend[:_REACH], bend[-_REACH:], bend[:, :_REACH], bend[:, -_REACH:] = 0, 0, 0, 0
        rows, columns = np.nonzero(bend > _BEND)
        every = len(rows) // _POINTS + 1
        found.append((rows[::every], columns[::every]))
    return found


def _gradients(image: Float32) -> list[Float32]:
    """Image gradients down and across (h, w), largest of the colours, relative to the local mean."""
    smooth = ndimage.gaussian_filter(image, (0, 1, 1), truncate=2.0)
    down, across = np.zeros(image.shape[1:], np.float32), np.zeros(image.shape[1:], np.float32)
    for colour in smooth:
        np.maximum(down[1:-1], np.abs(colour[2:] - colour[:-2]), out=down[1:-1])
        np.maximum(across[:, 1:-1], np.abs(colour[:, 2:] - colour[:, :-2]), out=across[:, 1:-1])
    local = ndimage.uniform_filter(down + across, 31) + 2
    return [np.minimum(down / local, 3), np.minimum(across / local, 3)]


def _scores(
    gradients: list[Float32], edges: list[tuple[NDArray[np.intp], NDArray[np.intp]]], shifts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], int]:
    """Mean gradient below the edges for every shift (down, across), and how many edges there are."""
    width = gradients[0].shape[1]
    offsets = (shifts[:, None] * width + shifts[None]).ravel()
    total, count = np.zeros(len(offsets)), 0
    for gradient, (rows, columns) in zip(gradients, edges, strict=True):
        flat = gradient.ravel()
        total += flat[(rows * width + columns)[None] + offsets[:, None]].sum(axis=1, dtype=np.float64)
        count += len(rows)
    return (total / max(count, 1)).reshape(len(shifts), len(shifts)), count
