"""Curves error = a N^-b + c: least squares of the log error, AICc, and a bootstrap of seeds or residuals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_STARTS = np.geomspace(0.02, 2.0, 5)  # of the exponent b
_FLOORS = (0.03, 0.3, 0.9)  # of the floor c, in the smallest error
_TINY = 1e-12


@dataclass(frozen=True)
class Curve:
    """error = amplitude (N / reference)^-b + c, and the log residuals of the runs it was fitted to.

    The reference (geometric mean of the sizes) keeps the amplitude an error instead of a number of 10^6 and more.
    """

    amplitude: float
    b: float
    c: float
    reference: float
    residuals: Vector
    free: int
    """Number of fitted parameters."""

    @property
    def a(self) -> float:
        """Error of the falling part at one pair."""
        return self.amplitude * self.reference**self.b

    def at(self, pairs: float | Vector) -> Vector:
        """Error at numbers of pairs."""
        return self.amplitude * (np.asarray(pairs, dtype=np.float64) / self.reference) ** -self.b + self.c

    def spread(self) -> float:
        """Standard deviation of the runs around the curve in the logarithm, corrected for the fitted parameters."""
        freedom = max(len(self.residuals) - self.free, 1)
        return math.sqrt(float(self.residuals @ self.residuals) / freedom)

    def aicc(self) -> float | None:
        """Corrected Akaike criterion under normal log residuals; None where the correction has no degrees left."""
        n, k = len(self.residuals), self.free + 1  # the variance is fitted, too
        if n - k - 1 <= 0:
            return None
        variance = max(float(self.residuals @ self.residuals) / n, _TINY**2)
        return n * math.log(variance) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


def fit_power(pairs: Vector, errors: Vector) -> Curve:
    """The pure power law: a straight line in logarithms, not rising."""
    reference = float(np.exp(np.log(pairs).mean()))
    x, y = np.log(pairs / reference), np.log(errors)
    b = max(-float(x @ (y - y.mean()) / max(x @ x, _TINY)), 0.0)
    level = float((y + b * x).mean())
    return Curve(math.exp(level), b, 0.0, reference, y - (level - b * x), 2)


def fit_floor(pairs: Vector, errors: Vector, start: Curve | None = None) -> Curve:
    """The power law above a floor, from log-spaced starts, or from one start where the answer is nearly known."""
    from scipy.optimize import least_squares

    reference = float(np.exp(np.log(pairs).mean()))
    x, y = np.log(pairs / reference), np.log(errors)

    def residuals(p: Vector) -> Vector:
        return y - np.log(np.maximum(p[0] * np.exp(-p[1] * x) + p[2], _TINY))

    def slopes(p: Vector) -> Vector:
        falling = np.exp(-p[1] * x)
        total = np.maximum(p[0] * falling + p[2], _TINY)
        return -np.stack([falling, -p[0] * falling * x, np.ones_like(x)], axis=1) / total[:, None]

    scale = np.array([errors.mean(), 1.0, errors.mean()])
    best = fit_power(pairs, errors)
    parameters, cost = np.array([best.amplitude, best.b, 0.0]), float(best.residuals @ best.residuals)
    for first in _starts(errors, start):
        solved = least_squares(residuals, first, slopes, bounds=(0, np.inf), x_scale=scale, max_nfev=200)
        if 2 * solved.cost < cost:
            parameters, cost = solved.x, 2 * float(solved.cost)
    a, b, c = (float(v) for v in parameters)
    return Curve(a, b, c, reference, residuals(parameters), 3)


def _starts(errors: Vector, start: Curve | None) -> Iterator[Vector]:
    if start is not None:
        yield np.maximum([start.amplitude, start.b, start.c], 1e-6)  # inside the bounds, where it can move both ways
        return
    for b in _STARTS:
        for share in _FLOORS:
            floor = share * errors.min()
            yield np.array([max(errors.mean() - floor, 1e-6), b, floor])


def bootstrap(curve: Curve, pairs: Vector, errors: Vector, replicates: int, rng: np.random.Generator) -> list[Curve]:
    """Curves of the same form, fitted to what the runs could as well have come out as; none without a spread.

    With three or more seeds of every size, seeds are drawn within their size; else the residuals are drawn. Few runs
    know their own spread badly, so that every replicate draws that, too (a scaled chi distribution, which makes the
    intervals those of Student's t instead of the normal distribution).
    """
    expected = np.log(curve.at(pairs))
    deviations, freedom = _deviations(curve, pairs, np.log(errors))
    if freedom < 1:
        return []
    curves = []
    for _ in range(replicates):
        noise = math.sqrt(freedom / max(rng.chisquare(freedom), _TINY))
        drawn = np.exp(expected + noise * _draw(deviations, rng))
        curves.append(fit_power(pairs, drawn) if curve.free == 2 else fit_floor(pairs, drawn, curve))
    return curves


def _deviations(curve: Curve, pairs: Vector, logs: Vector) -> tuple[list[tuple[NDArray[np.intp], Vector]], int]:
    """Groups of runs (their indices) with the deviations to draw from, of full variance; the degrees of freedom."""
    groups = [np.flatnonzero(pairs == n) for n in np.unique(pairs)]
    n = len(pairs)
    if all(len(index) >= 3 for index in groups):
        own = [logs[index] - logs[index].mean() for index in groups]
        return [(index, d * math.sqrt(len(d) / (len(d) - 1))) for index, d in zip(groups, own, strict=True)], n - len(
            groups
        )
    freedom = n - curve.free
    if freedom < 1:
        return [], 0
    centred = curve.residuals - curve.residuals.mean()
    return [(np.arange(n), centred * math.sqrt(n / freedom))], freedom


def _draw(deviations: list[tuple[NDArray[np.intp], Vector]], rng: np.random.Generator) -> Vector:
    drawn = np.empty(sum(len(index) for index, _ in deviations))
    for index, values in deviations:
        drawn[index] = rng.choice(values, len(index))
    return drawn
