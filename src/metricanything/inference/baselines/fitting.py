"""A model's prompt-free prediction, scaled (and shifted) so that it agrees with the points."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from metricanything.core.errors import InputError
from metricanything.inference.baselines.measurements import DepthMap, Vector, measurements, pixel_of, unknown

Space = Literal["depth", "disparity"]
_REACH = 10.0  # how many times nearer or farther than all points a shifted prediction may come out
_ROUNDS = 50
_AGREES = 0.01  # relative error; points this close are no outliers, however well all others agree


def fitted(
    uv: ArrayLike,
    depth: ArrayLike,
    height: int,
    width: int,
    *,
    prediction: ArrayLike,
    space: Space = "depth",
    shift: bool = True,
    robust: bool = True,
) -> DepthMap:
    """A prediction (H, W) turned into metres by a scale (and shift) fitted to the points by least squares.

    prediction: depth (H, W) in any unit, finite and positive where it says something; gaps take the nearest value.
    space: what is scaled, depth or disparity (1 / depth). Residuals are relative to the depth of the point, near and
    far alike. robust: reweighted least squares (Geman-McClure, at twice the median residual), so that a minority of
    wrong points does not turn the fit. A shift needs points of two depths and has to keep the order of depths;
    otherwise only the scale is fitted. The result is positive and, with a shift, at most ten times nearer or farther
    than all points. Raises InputError for a prediction of another size or without any usable pixel.
    """
    points, values = measurements(uv, depth)
    dense, usable = _complete(prediction, height, width)
    if not len(values):
        return unknown(height, width)
    rows, columns = pixel_of(points, height, width)
    if usable[rows, columns].any():  # what the prediction does not say itself is no evidence
        seen = usable[rows, columns]
        rows, columns, points, values = rows[seen], columns[seen], points[seen], values[seen]
    source, target = (dense, values) if space == "depth" else (1 / dense, 1 / values)
    scale, offset = _fit(source[rows, columns], target, shift, robust)
    result = scale * source + offset
    if shift:
        limits = (values.min() / _REACH, values.max() * _REACH)
        result = np.clip(result, *(limits if space == "depth" else (1 / limits[1], 1 / limits[0])))
    result = result if space == "depth" else 1 / result
    tiny, huge = np.finfo(np.float32).tiny, np.finfo(np.float32).max
    return np.clip(result, tiny, huge).astype(np.float32)


def _fit(x: Vector, y: Vector, shift: bool, robust: bool) -> tuple[float, float]:
    """Scale and shift of the line y ~ scale x + shift with the least relative error in y; the scale is positive."""
    if shift and len(x) > 1 and np.ptp(x) > 1e-6 * x.max():
        scale, offset = _reweighted(np.stack([x, np.ones_like(x)], axis=1) / y[:, None], robust)
        if scale > 0:
            return float(scale), float(offset)
    return float(_reweighted((x / y)[:, None], robust)[0]), 0.0


def _reweighted(system: NDArray[np.float64], robust: bool) -> Vector:
    """The solution of system @ solution ~ 1 by least squares, with Geman-McClure weights when robust."""
    units = np.linalg.norm(system, axis=0)  # columns of one size: depths may be in any unit
    system = system / units
    ones = np.ones(len(system))
    solution = np.linalg.lstsq(system, ones, rcond=None)[0]
    if robust:
        # Starts where half of the points agree with one scale: least squares alone may start too far off.
        start = np.zeros_like(solution)
        start[0] = 1 / np.median(system[:, 0])
        solution = min((solution, start), key=lambda s: float(np.median(np.abs(system @ s - 1))))
    for _ in range(_ROUNDS if robust else 0):
        residual = np.abs(system @ solution - 1)
        root = 1 / (1 + (residual / max(_AGREES, 2 * float(np.median(residual)))) ** 2)
        before, solution = solution, np.linalg.lstsq(system * root[:, None], root, rcond=None)[0]
        if np.allclose(before, solution, rtol=1e-9, atol=1e-12):
            break
    return solution / units


def _complete(prediction: ArrayLike, height: int, width: int) -> tuple[Vector, NDArray[np.bool_]]:
    """The prediction as float64 (H, W), gaps filled by the nearest pixel that says something, and where it does."""
    dense = np.asarray(prediction, dtype=np.float64)
    if dense.shape != (height, width):
        raise InputError(f"the prediction must be ({height}, {width}) like the image, got {dense.shape}")
    usable = np.isfinite(dense) & (dense > 0)
    if not usable.any():
        raise InputError("the prediction has no finite positive depth anywhere; there is nothing to fit to the prompt")
    if not usable.all():
        nearest = ndimage.distance_transform_edt(~usable, return_distances=False, return_indices=True)
        dense = dense[tuple(nearest)]
    return dense, usable
