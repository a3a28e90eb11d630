"""Whether the depth edges of a frame lie on edges of its image: a search over shifts.

Depth edges are counted where the inverse depth bends along a row or a column (on planes, however slanted, it is linear
in the pixels), image edges by the locally normalised gradient in the same direction. The mean image gradient below the
depth edges is taken for every shift of a square window, all at once by the convolution theorem: of a frame whose image
and depth belong together it has its peak at no shift; of another image it has no peak. A shift that maps the depth
edges onto themselves, such as along a row of shelves, tells nothing and is left out. The work is done on a grid about
`GRID_WIDTH` pixels wide.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft, ndimage

Float32 = NDArray[np.float32]
Places = tuple[NDArray[np.intp], NDArray[np.intp]]

GRID_WIDTH = 320  # pixels; finer grids cost more and find no more
_REACH = 16  # of the search, pixels of the image where its grid is fine enough
_BEND = 0.03  # of the inverse depth over two pixels to either side, relative to its largest
_SPAN = 2
_MIN_POINTS = 60
_NEAR, _FAR = 5.0, 7.0  # pixels of the image: shifts that count as none, and as some
_ALIKE = 0.5  # correlation of the depth edges with themselves, shifted, above which they cannot tell the shift
_HOLES = 2  # pixels of the grid to either side: shadows this narrow beside a near object are filled from behind
_BLOCK = 16  # pixels of the grid over which gradients are local
_MOST = 3.0  # of a gradient, relative to those around it


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


def edge_agreement(image: NDArray[np.uint8], depth: Float32, step: int) -> EdgeAgreement:
    """Agreement of an image (h, w, 3) sRGB and a depth map (h, w), both on the grid of `step` pixels."""
    bins = 2 if step == 1 else 1  # pixels of the grid; shifts are searched in steps of two pixels of the image or more
    cell = bins * step
    reach = max(_REACH // cell, 4)
    edges = [_inside(places, depth.shape, (reach + 1) * bins) for places in depth_edges(depth)]
    count = sum(len(rows) for rows, _ in edges)
    if count < _MIN_POINTS:
        return NOT_MEASURABLE
    gradients = [_binned(gradient, bins) for gradient in _gradients(image)]
    scores, alike = _correlations(gradients, [(rows // bins, columns // bins) for rows, columns in edges], reach)
    shifts = np.arange(-reach, reach + 1) * cell
    distance = np.hypot(shifts[:, None], shifts[None])
    far = (distance >= max(_FAR, 3 * cell)) & (alike < _ALIKE)
    best = np.unravel_index(int(scores.argmax()), scores.shape)
    mean, least = float(scores.mean()), 1e-6 * count
    near = float(scores[distance <= max(_NEAR, cell)].max())
    return EdgeAgreement(
        dx=float(shifts[best[1]]),
        dy=float(shifts[best[0]]),
        peak=float(scores.max()) / (mean + least) - 1,
        margin=near / (float(scores[far].max()) + least) if far.any() else float("nan"),
    )


# ---------------------------------------------------------------- edges of the depth


def depth_edges(depth: Float32) -> list[Places]:
    """Rows and columns of the edges of a depth map (h, w) on the grid: those across rows, then those across columns."""
    inverse = _inverse(depth)
    down, (columns, rows) = _bends(inverse), _bends(np.ascontiguousarray(inverse.T))
    return [down, (rows, columns)]


def _inverse(depth: Float32) -> Float32:
    """Inverse depth, 0 for the sky, with narrow holes filled by the farthest beside them."""
    inverse = np.reciprocal(depth)
    holes = np.isnan(inverse)
    if holes.any():
        inverse[holes] = np.inf
        around = inverse
        for axis in (0, 1):
            around = _least_around(around, axis)
        inverse[holes] = around[holes]
        inverse[np.isinf(inverse)] = np.nan
    return inverse


def _least_around(values: Float32, axis: int) -> Float32:
    """Least of the values within `_HOLES` along an axis."""
    least = values.copy()
    here, there = np.moveaxis(least, axis, 0), np.moveaxis(values, axis, 0)
    for by in range(1, _HOLES + 1):
        np.minimum(here[by:], there[:-by], out=here[by:])
        np.minimum(here[:-by], there[by:], out=here[:-by])
    return least


def _bends(inverse: Float32) -> Places:
    """Rows and columns of the depth edges down the columns, thinned to the strongest of their neighbourhood."""
    before, here, after = inverse[: -2 * _SPAN], inverse[_SPAN:-_SPAN], inverse[2 * _SPAN :]
    top = np.maximum(before, after)
    np.maximum(top, here, out=top)
    bend = before + after
    bend -= here
    bend -= here
    np.abs(bend, out=bend)
    found = np.flatnonzero(bend > np.float32(_BEND) * top)  # comparisons with NaN are false
    flat, tops, width = bend.ravel(), top.ravel(), inverse.shape[1]
    strength, strongest = flat[found] / tops[found], np.ones(len(found), dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        for by in (*range(-_SPAN, 0), *range(1, _SPAN + 1)):
            there = found + by * width
            inside = (there >= 0) & (there < len(flat))
            there[~inside] = found[~inside]
            strongest &= ~(flat[there] / tops[there] > strength)
    rows, columns = np.divmod(found[strongest], width)
    return rows + _SPAN, columns


def _inside(places: Places, shape: tuple[int, ...], margin: int) -> Places:
    """The edges that stay in the image when they are shifted."""
    rows, columns = places
    kept = (rows >= margin) & (rows < shape[0] - margin) & (columns >= margin) & (columns < shape[1] - margin)
    return rows[kept], columns[kept]


# ---------------------------------------------------------------- edges of the image


def _gradients(image: NDArray[np.uint8]) -> tuple[Float32, Float32]:
    """Image gradients down and across (h, w), largest of the colours, relative to the local mean."""
    shape = image.shape[:2]
    down, across = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    for colour in range(image.shape[2]):
        smooth = _smooth(image[..., colour])
        steep = smooth[2:] - smooth[:-2]
        np.maximum(down[2:-2, 1:-1], np.abs(steep, out=steep), out=down[2:-2, 1:-1])
        steep = smooth[:, 2:] - smooth[:, :-2]
        np.maximum(across[1:-1, 2:-2], np.abs(steep, out=steep), out=across[1:-1, 2:-2])
    both = (down + across).astype(np.float32)
    # Ample for an average that varies slowly: means of blocks, and a smooth surface through them.
    size = (-(-shape[1] // _BLOCK), -(-shape[0] // _BLOCK))
    coarse = Image.fromarray(both).resize(size, Image.Resampling.BOX)
    local = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BILINEAR)) + np.float32(32)
    return np.minimum(down / local, np.float32(_MOST)), np.minimum(across / local, np.float32(_MOST))


def _binned(values: Float32, bins: int) -> Float32:
    """Means over squares of 1 or 2 pixels; what makes no whole square is left out."""
    if bins == 1:
        return values
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    rows = values[:height:2, :width] + values[1:height:2, :width]
    return np.asarray((rows[:, ::2] + rows[:, 1::2]) / 4, dtype=np.float32)


def _smooth(plane: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Sixteen times the plane (h, w) smoothed by 1 2 1 in both directions, (h - 2, w - 2)."""
    values = plane.astype(np.int16)
    rows = values[:-2] + values[2:]
    rows += values[1:-1]
    rows += values[1:-1]
    smooth = rows[:, :-2] + rows[:, 2:]
    smooth += rows[:, 1:-1]
    smooth += rows[:, 1:-1]
    return smooth


# ---------------------------------------------------------------- the search


def _correlations(gradients: list[Float32], edges: list[Places], reach: int) -> tuple[Float32, Float32]:
    """Sum of the gradients below the edges, and the correlation of the edges with themselves, for every shift.

    Both (2 reach + 1, 2 reach + 1), by the shift down and across in cells. The edges keep away from the border, so
    that shifted ones do not come in again on the other side, as the transform would have it.
    """
    height, width = gradients[0].shape
    size = fft.next_fast_len(height, real=True), fft.next_fast_len(width, real=True)
    planes = np.zeros((4, *size), np.float32)
    for plane, gradient, (rows, columns) in zip((0, 1), gradients, edges, strict=True):
        planes[plane, :height, :width] = gradient
        planes[plane + 2, rows, columns] = 1
    down, across, edges_down, edges_across = fft.rfft2(planes, overwrite_x=True)
    products = np.stack(
        [
            down * edges_down.conj() + across * edges_across.conj(),
            edges_down * edges_down.conj() + edges_across * edges_across.conj(),
        ]
    )
    wanted = np.arange(-reach - 1, reach + 2)
    rows_wanted = fft.ifft(products, axis=1, overwrite_x=True)[:, wanted]
    sums, alike = fft.irfft(rows_wanted, size[1], axis=2)[:, :, wanted]
    alike = ndimage.uniform_filter(alike, 3)  # edges one cell apart count as alike
    alike = alike[1:-1, 1:-1] - alike.mean()
    return sums[1:-1, 1:-1], alike / max(float(alike[reach, reach]), 1e-6)
