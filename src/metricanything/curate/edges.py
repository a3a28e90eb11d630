"""Whether the depth edges of a frame lie on edges of its image: a search over shifts.

Depth edges are counted where the inverse depth bends along a row or a column (on planes, however slanted, it is linear
in the pixels), image edges by the locally normalised gradient in the same direction. The mean image gradient below the
depth edges is taken for every shift of a square window, all at once by the convolution theorem: of a frame whose image
and depth belong together it has its peak at no shift; of another image it has no peak. A shift that maps the depth
edges onto themselves, such as along a row of shelves, tells nothing and is left out. The work is done on a grid about
`GRID_WIDTH` pixels wide.

The points of a LiDAR have no edges, but along a scan line depth jumps between neighbours, at a silhouette somewhere
between them: there the image gradient across is searched, for shifts across alone (`scan_agreement`).
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
_ALIKE = 0.55  # correlation of the depth edges with themselves, shifted, above which they cannot tell the shift
_HOLES = 2  # pixels of the grid to either side: shadows this narrow beside a near object are filled from behind
_BLOCK = 8  # cells of the search over which gradients are local
_MOST = 3.0  # of a gradient, relative to those around it
_JUMP = 1.2  # ratio of the depths of two points of a scan line that makes a silhouette, ...
_GAP = 12  # ... and how many pixels of the image they may be apart
_CLEAR = 1.02  # best score over the best elsewhere that makes a shift worth telling
_BAND = 2  # pixels of the image to either side of a scan line that its silhouettes are compared with


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
    cells = [(rows // bins, columns // bins) for rows, columns in edges]
    scores, alike = _correlations(_gradients(image, bins), cells, reach)
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


def scan_agreement(image: NDArray[np.uint8], depth: Float32, step: int) -> EdgeAgreement:
    """Agreement of an image (h, w, 3) sRGB on the grid of `step` pixels and points of a scan (H, W), on all pixels.

    Shifts down are not searched: `dy` is 0. `dx` and `dy` are NaN where another shift, 7 px or more away, is as good.
    `peak` is NaN: how high it is depends on the scene.
    """
    reach, band = max(_REACH // step, 4), _BAND // step
    rows, columns = (place // step for place in _jumps(depth))
    rows, columns = _inside((rows, columns), (depth.shape[0] // step, depth.shape[1] // step), reach + 1)
    if len(rows) < _MIN_POINTS:
        return NOT_MEASURABLE
    across = ndimage.uniform_filter1d(_gradients(image, 1)[1], 2 * band + 1, axis=0)
    shifts = np.arange(-reach, reach + 1)
    scores = across[rows[:, None], columns[:, None] + shifts].mean(axis=0)
    pixels = shifts * step
    best, apart = int(pixels[scores.argmax()]), max(_FAR, 2 * step)
    near, far = scores[np.abs(pixels) <= max(_NEAR, step)].max(), scores[np.abs(pixels) >= apart].max() + 1e-6
    clear = scores.max() > _CLEAR * scores[np.abs(pixels - best) >= apart].max()
    dx, dy = (float(best), 0.0) if clear else (float("nan"), float("nan"))
    return EdgeAgreement(dx, dy, peak=float("nan"), margin=float(near / far))


def _jumps(depth: Float32) -> Places:
    """Rows and columns halfway between neighbours along a row that lie at different depths."""
    known = np.flatnonzero(np.isfinite(depth))
    rows, columns = np.divmod(known, depth.shape[1])
    off = np.abs(np.diff(np.log(depth.ravel()[known])))
    at = np.flatnonzero((np.diff(rows) == 0) & (np.diff(columns) <= _GAP) & (off > np.log(_JUMP)))
    return rows[at], (columns[at] + columns[at + 1]) // 2


# ---------------------------------------------------------------- edges of the depth


def depth_edges(depth: Float32) -> list[Places]:
    """Rows and columns of the edges of a depth map (h, w) on the grid: those across rows, then those across columns."""
    inverse = _inverse(depth)
    return [_bends(inverse, 0), _bends(inverse, 1)]


def _inverse(depth: Float32) -> Float32:
    """Inverse depth, 0 for the sky, with narrow holes filled by the farthest beside them."""
    inverse = np.reciprocal(depth)
    holes = np.isnan(inverse)
    if holes.any():
        around = inverse
        for axis in (0, 1):
            around = _least_around(around, axis)
        np.copyto(inverse, around, where=holes)
    return inverse


def _least_around(values: Float32, axis: int) -> Float32:
    """Least of the known values within `_HOLES` along an axis."""
    least = values.copy()
    here, there = np.moveaxis(least, axis, 0), np.moveaxis(values, axis, 0)
    for by in range(1, _HOLES + 1):
        np.fmin(here[by:], there[:-by], out=here[by:])
        np.fmin(here[:-by], there[by:], out=here[:-by])
    return least


def _bends(inverse: Float32, axis: int) -> Places:
    """Rows and columns of the depth edges along an axis, thinned to the strongest of their neighbourhood."""
    along = np.moveaxis(inverse, axis, 0)
    before, here, after = along[: -2 * _SPAN], along[_SPAN:-_SPAN], along[2 * _SPAN :]
    bend = before + after
    bend -= here
    bend -= here
    np.abs(bend, out=bend)
    with np.errstate(invalid="ignore", divide="ignore"):
        bend /= np.maximum(np.maximum(before, after), here)
        bend = np.moveaxis(bend, 0, axis)
        rows, columns = np.divmod(np.flatnonzero(bend > _BEND), bend.shape[1])  # NaN is not greater
        place, strength = [rows, columns], bend[rows, columns]
        strongest = np.ones(len(rows), dtype=bool)
        for by in (*range(-_SPAN, 0), *range(1, _SPAN + 1)):
            place[axis] = np.clip((rows, columns)[axis] + by, 0, bend.shape[axis] - 1)
            strongest &= ~(bend[place[0], place[1]] > strength)
    found = [rows[strongest], columns[strongest]]
    found[axis] = found[axis] + _SPAN
    return found[0], found[1]


def _inside(places: Places, shape: tuple[int, ...], margin: int) -> Places:
    """The edges that stay in the image when they are shifted."""
    rows, columns = places
    kept = (rows >= margin) & (rows < shape[0] - margin) & (columns >= margin) & (columns < shape[1] - margin)
    return rows[kept], columns[kept]


# ---------------------------------------------------------------- edges of the image


def _gradients(image: NDArray[np.uint8], bins: int) -> list[Float32]:
    """Image gradients down and across, largest of the colours, relative to the local mean, in bins of pixels."""
    shape = image.shape[:2]
    down, across = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    for colour in range(image.shape[2]):
        smooth = _smooth(image[..., colour])
        steep = smooth[2:] - smooth[:-2]
        np.maximum(down[2:-2, 1:-1], np.abs(steep, out=steep), out=down[2:-2, 1:-1])
        steep = smooth[:, 2:] - smooth[:, :-2]
        np.maximum(across[1:-1, 2:-2], np.abs(steep, out=steep), out=across[1:-1, 2:-2])
    gradients = [_binned(gradient, bins) for gradient in (down, across)]
    # Ample for an average that varies slowly: means of blocks, and a smooth surface through them.
    both = Image.fromarray(gradients[0] + gradients[1])
    size = (-(-both.width // _BLOCK), -(-both.height // _BLOCK))
    coarse = both.resize(size, Image.Resampling.BOX).resize(both.size, Image.Resampling.BILINEAR)
    share = 1 / (np.asarray(coarse) + np.float32(32))
    return [np.minimum(gradient * share, np.float32(_MOST)) for gradient in gradients]


def _binned(values: NDArray[np.int16], bins: int) -> Float32:
    """Means over squares of 1 or 2 pixels; what makes no whole square is left out."""
    if bins == 1:
        return values.astype(np.float32)
    height, width = values.shape[0] // 2 * 2, values.shape[1] // 2 * 2
    rows = values[:height:2, :width] + values[1:height:2, :width]
    return (rows[:, ::2] + rows[:, 1::2]) * np.float32(0.25)


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
