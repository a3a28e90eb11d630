"""Camera from a point map: the focal length and z-shift that make affine points agree with the pixels they belong to.

Batched: every function takes leading dimensions B and treats each entry on its own, without a loop over them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricanything.core.geometry import Float32

Float64 = NDArray[np.float64]

GRID = 64  # samples per side that the published solver looks at (MoGe, its code)
FTOL = 1e-3  # relative fall of the cost at which the published solver stops
_XTOL = _GTOL = 1e-8  # and its other tolerances, scipy's and MINPACK's defaults
_EVALUATIONS = 200
_FIRST_REACH = 100.0
_TOGETHER = 16  # entries: of 4096 points each they take 1.5 MB, which fits common caches
_ACCEPT = 1e-4
_FARTHEST = 1e6  # shift in units of the largest |z|


def grid_samples(map_HW: NDArray[Any], size: int = GRID) -> NDArray[Any]:
    """(size, size, ...) nearest samples of a map (H, W, ...); smaller maps are sampled repeatedly.

    The positions are those of torch's `interpolate(mode="nearest")`: row floor(i H / size).
    """
    height, width = map_HW.shape[:2]
    rows, columns = (np.arange(size) * n // size for n in (height, width))
    return map_HW[rows[:, None], columns]


def view_plane_uv(height: int, width: int) -> Float32:
    """(height, width, 2) float32 coordinates of the pixel centres, in units of half the image diagonal, centred."""
    half_diagonal = np.hypot(width, height) / 2
    u = (np.arange(width) + 0.5 - width / 2) / half_diagonal
    v = (np.arange(height) + 0.5 - height / 2) / half_diagonal
    return np.stack(np.meshgrid(u, v), axis=-1).astype(np.float32)


def recover_focal_shift(
    points_BN3: NDArray[Any], uv_BN2: NDArray[Any], mask_BN: NDArray[np.bool_], *, ftol: float = FTOL
) -> tuple[Float64, Float64]:
    """Focal lengths (B,) and z-shifts (B,) of affine points whose camera is centred with square pixels.

    Minimises the sum of squared residuals f * xy / (z + shift) - uv over the points in the mask, f in closed form for
    every shift (MoGe, arXiv 2410.19115, section 3.2), from shift 0 and without bounds: nonsense points give a nonsense
    focal length, which the caller has to check. The focal length is in the unit of `uv` (`view_plane_uv`: half the
    image diagonal). With fewer than two usable points, or such as have no
    best shift, the answer is (1, 0). Points and uv that are not finite are left
    out.
    """
    return _solve(points_BN3, uv_BN2, mask_BN, free_focal=True, ftol=ftol)


def recover_shift(
    points_BN3: NDArray[Any], plane_BN2: NDArray[Any], mask_BN: NDArray[np.bool_], *, ftol: float = FTOL
) -> Float64:
    """z-shifts (B,) of affine points seen by known cameras of any model.

    `plane` holds x / z and y / z of the rays. Minimises the residuals xy / (z + shift) - plane from shift 0. With fewer
    than two usable points, or such as have no best shift, the answer is 0. Points and plane coordinates that are not
    finite are left out.
    """
    return _solve(points_BN3, plane_BN2, mask_BN, free_focal=False, ftol=ftol)[1]


def _solve(
    points_BN3: NDArray[Any], plane_BN2: NDArray[Any], mask_BN: NDArray[np.bool_], *, free_focal: bool, ftol: float
) -> tuple[Float64, Float64]:
    """Focal lengths and shifts, as many entries at a time as the processor's cache holds."""
    focal, shift = np.ones(len(mask_BN)), np.zeros(len(mask_BN))
    for start in range(0, len(mask_BN), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        problem = _Problem.of(points_BN3[part], plane_BN2[part], mask_BN[part])
        found = _minimise(problem, free_focal=free_focal, ftol=ftol)
        lost = problem.lost(found)
        focal[part] = np.where(lost, 1.0, problem.sums(found).focal)
        shift[part] = np.where(lost, 0.0, found)
    return focal, shift


class _Sums(NamedTuple):
    """Inner products over the points, all (B,), with p = xy / (z + s) and its derivative p' = -xy / (z + s)^2."""

    p_q: Float64  # p . plane
    dp_q: Float64  # p' . plane
    p_p: Float64
    dp_p: Float64
    dp_dp: Float64

    @property
    def focal(self) -> Float64:
        return self.p_q / np.maximum(self.p_p, 1e-12)


class _Problem(NamedTuple):
    """What does not change with the shift; points outside the mask have weight zero."""

    z: Float64  # (B, N), 1 where a point is left out
    xy_plane: Float64  # xy . plane of every point (B, N)
    xy_square: Float64  # |xy|^2 (B, N)
    plane_square: Float64  # |plane|^2, summed over the points (B,)
    known: NDArray[np.int64]  # number of points

    @classmethod
    def of(cls, points_BN3: NDArray[Any], plane_BN2: NDArray[Any], mask_BN: NDArray[np.bool_]) -> _Problem:
        # Component by component: arrays of pairs and triples take several times longer.
        x, y, z = (points_BN3[..., i].astype(np.float64) for i in range(3))
        u, v = (plane_BN2[..., i].astype(np.float64) for i in range(2))
        with np.errstate(all="ignore"):
            keep = mask_BN & np.isfinite(x + y + z + u + v)
            return cls(
                np.where(keep, z, 1.0), np.where(keep, x * u + y * v, 0.0), np.where(keep, x * x + y * y, 0.0),
                np.where(keep, u * u + v * v, 0.0).sum(axis=1), keep.sum(axis=1),
            )  # fmt: skip

    def sums(self, shift_B: Float64) -> _Sums:
        with np.errstate(all="ignore"):
            w = 1 / (self.z + shift_B[:, None])
            w2 = w * w
            bw2 = self.xy_square * w2

            def dot(a: Float64, b: Float64) -> Float64:
                return np.asarray(np.matmul(a[:, None, :], b[:, :, None])[:, 0, 0])

            return _Sums(dot(self.xy_plane, w), -dot(self.xy_plane, w2), bw2.sum(axis=1), -dot(bw2, w), dot(bw2, w2))

    def lost(self, shift_B: Float64) -> NDArray[np.bool_]:
        """Entries without an answer: too few points, or points that any larger shift fits better still."""
        return np.asarray((self.known < 2) | ~(np.abs(shift_B) <= _FARTHEST * np.abs(self.z).max(axis=1, initial=0)))

    def cost(self, sums: _Sums, free_focal: bool) -> Float64:
        """Sum of squared residuals (B,)."""
        cost = self.plane_square + (-sums.p_q * sums.focal if free_focal else sums.p_p - 2 * sums.p_q)
        return np.where(np.isfinite(cost), cost.clip(0), np.inf)


def _minimise(problem: _Problem, *, free_focal: bool, ftol: float) -> Float64:
    """Shifts (B,) from 0 by Levenberg-Marquardt as in MINPACK's `lmdif` (More 1978), for one unknown per entry.

    The same rules for scale, trust region and stopping, so that every entry ends where scipy's `least_squares` (method
    "lm", the published solver) ends; with one unknown the damping has a closed form. Derivatives are exact, not
    differences.
    """
    shift = np.zeros(len(problem.z))
    sums = problem.sums(shift)
    cost = problem.cost(sums, free_focal)
    reach, damping, scale = np.full(len(shift), _FIRST_REACH), np.zeros(len(shift)), np.zeros(len(shift))
    active = np.isfinite(cost) & (cost > 0)
    with np.errstate(all="ignore"):
        for iteration in range(_EVALUATIONS):
            gradient, curvature = _normal_equation(sums, free_focal)
            active &= (curvature > 0) & (np.abs(gradient) > _GTOL * np.sqrt(curvature * cost))
            if not active.any():
                break
            scale = np.maximum(scale, np.sqrt(curvature))  # steps are measured by what they do to the residuals
            slope_1, curvature_1 = np.abs(gradient) / scale, curvature / scale**2
            damping = _damping(slope_1, curvature_1, damping, reach)
            step = -gradient / (curvature + damping * scale**2)
            length = scale * np.abs(step)
            if iteration == 0:
                reach = np.minimum(reach, length)
            tried = problem.sums(shift + step)
            new = problem.cost(tried, free_focal)
            actual = np.where(0.01 * new < cost, 1 - new / cost, -1.0)
            linear = (curvature_1 + damping) * length**2 / cost  # fall of the linear model along the step
            predicted = linear + damping * length**2 / cost
            ratio = np.where(predicted > 0, actual / predicted, 0.0)
            reach, damping = _next_reach(ratio, actual, linear, new >= 100 * cost, length, reach, damping)
            better = active & (ratio >= _ACCEPT)
            shift, cost = np.where(better, shift + step, shift), np.where(better, new, cost)
            sums = _Sums(*(np.where(better, b, a) for a, b in zip(sums, tried, strict=True)))
            small = (np.abs(actual) <= ftol) & (predicted <= ftol) & (ratio <= 2)
            active &= ~(small | (reach <= _XTOL * scale * np.abs(shift)) | (cost <= 0))
        return shift.astype(np.float32).astype(np.float64)  # what the published code goes on with


def _damping(gradient: Float64, curvature: Float64, before: Float64, reach: Float64) -> Float64:
    """The damping that keeps the step within the trust region, 0 where the full step does (MINPACK's `lmpar`)."""
    exact = gradient / reach - curvature
    kept = np.clip(before, exact, gradient / reach)
    kept = np.where(np.abs(gradient / (curvature + kept) - reach) <= 0.1 * reach, kept, exact)
    return np.where(gradient / curvature <= 1.1 * reach, 0.0, kept)


def _next_reach(
    ratio: Float64, actual: Float64, linear: Float64, far_worse: NDArray[np.bool_], length: Float64, reach: Float64,
    damping: Float64,
) -> tuple[Float64, Float64]:  # fmt: skip
    """Trust region and damping after a step whose cost fell by `ratio` times what the linear model promised."""
    shrink = np.where(actual >= 0, 0.5, 0.5 * linear / (linear - 0.5 * actual))
    shrink = np.where(far_worse | (shrink < 0.1), 0.1, shrink)
    grow = (damping == 0) | (ratio >= 0.75)
    bad = ratio <= 0.25
    return (
        np.where(bad, shrink * np.minimum(reach, 10 * length), np.where(grow, 2 * length, reach)),
        np.where(bad, damping / shrink, np.where(grow, damping / 2, damping)),
    )


def _normal_equation(sums: _Sums, free_focal: bool) -> tuple[Float64, Float64]:
    """J . r and J . J of the residuals r = f p - plane by the shift, with f = 1 or its best value for every shift."""
    _, dp_q, p_p, dp_p, dp_dp = sums
    if not free_focal:
        return dp_p - dp_q, dp_dp
    f = sums.focal
    df = (dp_q - 2 * f * dp_p) / np.maximum(p_p, 1e-12)
    return f * (f * dp_p - dp_q), df * df * p_p + 2 * f * df * dp_p + f * f * dp_dp
