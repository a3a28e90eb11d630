"""Sums over the images of a set, in memory that does not grow with it.

`PooledMetrics` measures all pixels of a set as if they were one image, as the Booster script of MetricAnything does.
`ImageMeans` takes the metrics of each image and gives their means with standard errors, as most of the field does. Both

- `merge` with another of their kind, so that processes can share a set; in which order is of no matter up to rounding;
- turn `to_dict` of plain numbers, which JSON stores exactly, and back with `from_dict`, which raises InputError for
  anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metricanything.core.errors import InputError
from metricanything.evaluation.metrics import (
    DECADE,
    charge_decade,
    inverse_error,
    linear_error,
    log_residual,
    symmetric_ratio,
    valid_pairs,
)


@dataclass
class Moments:
    """Count, mean and sum of squared deviations from the mean of numbers seen so far (Chan et al. 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, values: ArrayLike) -> None:
        """Takes in finite numbers of any shape."""
        x = np.asarray(values, dtype=np.float64)
        if x.size:
            mean = float(x.mean())
            self.merge(Moments(x.size, mean, float(np.sum((x - mean) ** 2))))

    def merge(self, other: Moments) -> None:
        """Takes in what another has seen."""
        total = self.count + other.count
        if not total:
            return
        step = other.mean - self.mean
        self.squares += other.squares + step**2 * self.count * other.count / total
        self.mean += step * other.count / total
        self.count = total

    @property
    def average(self) -> float:
        """The mean, NaN of nothing."""
        return self.mean if self.count else float("nan")

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, sqrt(squares / (n - 1) / n), for independent numbers; NaN of fewer than two."""
        return math.sqrt(self.squares / (self.count - 1) / self.count) if self.count > 1 else float("nan")


#: What `PooledMetrics` keeps the moments of, one number per pixel each.
_POOLED = (
    "abs_rel",
    "sq_rel",
    "squared",
    "absolute",
    "inverse_squared",
    "inverse_absolute",
    "log_squared",
    "log_absolute",
    "delta1",
    "delta2",
    "delta3",
    "tau",
    "coverage",
    "log",  # of pixels with a prediction alone
)


class PooledMetrics:
    """Metrics of `metrics` over the pixels of many images, with `silog_half` and without `d_auc`, which needs all."""

    def __init__(self) -> None:
        self.moments = {name: Moments() for name in _POOLED}

    def add(self, pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> None:
        """Takes in an image: z-depths in metres of one shape; which pixels count is told as in `metrics`.

        Raises InputError when shapes differ.
        """
        d, g = valid_pairs(pred, gt, mask)
        error, inverse, log, ratio = linear_error(d, g), inverse_error(d, g), log_residual(d, g), symmetric_ratio(d, g)
        charged = charge_decade(log)
        pixels = {
            "abs_rel": np.abs(error) / g,
            "sq_rel": error**2 / g,
            "squared": error**2,
            "absolute": np.abs(error),
            "inverse_squared": inverse**2,
            "inverse_absolute": np.abs(inverse),
            "log_squared": charged**2,
            "log_absolute": np.abs(charged),
            "delta1": ratio < 1.25,
            "delta2": ratio < 1.25**2,
            "delta3": ratio < 1.25**3,
            "tau": ratio < 1.03,
            "coverage": np.isfinite(log),
            "log": log[np.isfinite(log)],
        }
        for name, moments in self.moments.items():
            moments.add(pixels[name])

    def merge(self, other: PooledMetrics) -> None:
        """Takes in the pixels of another."""
        for name, moments in self.moments.items():
            moments.merge(other.moments[name])

    @property
    def pixels(self) -> int:
        """How many pixels count."""
        return self.moments["coverage"].count

    def result(self) -> dict[str, float]:
        """The metrics by name, NaN when no pixel counts."""
        of = {name: moments.average for name, moments in self.moments.items()}
        log, n = self.moments["log"], self.pixels
        spread = (log.squares + (n - log.count) * DECADE**2) / n if n else float("nan")
        return {
            "abs_rel": of["abs_rel"],
            "sq_rel": of["sq_rel"],
            "rmse": math.sqrt(of["squared"]),
            "mae": of["absolute"],
            "irmse": math.sqrt(of["inverse_squared"]),
            "imae": of["inverse_absolute"],
            "rmse_log": math.sqrt(of["log_squared"]),
            "log10": of["log_absolute"] / DECADE,
            "silog": 100 * math.sqrt(spread),
            "silog_half": math.sqrt(spread + log.mean**2 / 2),
            **{name: of[name] for name in ("delta1", "delta2", "delta3", "tau", "coverage")},
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return _to_dict(self.moments)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> PooledMetrics:
        """What `to_dict` gave; raises InputError when it is something else."""
        pooled, moments = cls(), _from_dict(record)
        if set(moments) != set(_POOLED):
            raise InputError(f"not a record of pooled metrics: it holds {sorted(moments)}")
        pooled.moments = {name: moments[name] for name in _POOLED}
        return pooled


class ImageMeans:
    """Means over images of any metrics by name; an image for which a metric is NaN does not count for it."""

    def __init__(self) -> None:
        self.moments: dict[str, Moments] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        """Takes in the metrics of one image; names may differ between images. Raises InputError for an infinite one."""
        for name, value in metrics.items():
            if math.isinf(value):
                raise InputError(f"the metric {name} of an image is infinite")
        for name, value in metrics.items():
            self.moments.setdefault(name, Moments()).add([] if math.isnan(value) else [value])

    def merge(self, other: ImageMeans) -> None:
        """Takes in the images of another."""
        for name, moments in other.moments.items():
            self.moments.setdefault(name, Moments()).merge(moments)

    def result(self) -> dict[str, dict[str, float]]:
        """By metric: `count` of images, `mean` (NaN without any), `standard_error` of it (NaN for fewer than two)."""
        return {
            name: {"count": m.count, "mean": m.average, "standard_error": m.standard_error}
            for name, m in self.moments.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return _to_dict(self.moments)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ImageMeans:
        """What `to_dict` gave; raises InputError when it is something else."""
        means = cls()
        means.moments = _from_dict(record)
        return means


def _to_dict(moments: Mapping[str, Moments]) -> dict[str, Any]:
    return {name: {"count": m.count, "mean": m.mean, "squares": m.squares} for name, m in moments.items()}


def _from_dict(record: Mapping[str, Any]) -> dict[str, Moments]:
    try:
        moments = {name: Moments(int(m["count"]), float(m["mean"]), float(m["squares"])) for name, m in record.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError("not a record of accumulated metrics: it needs count, mean and squares by name") from None
    for name, m in moments.items():
        if m.count < 0 or not math.isfinite(m.mean) or not 0 <= m.squares < math.inf:
            raise InputError(f"not a record of accumulated metrics: {name} holds {m}")
    return moments
