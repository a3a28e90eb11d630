"""Metrics and alignments by the names that protocols use.

A `Score` maps one frame's `Sample` to a few terms, which are means over its pixels, and terms to a number. Averaged
per image, every frame is finished by itself; pooled, terms are averaged with their pixel counts first. To add a metric,
`register` it under a new name and list that name in a protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.evaluation import alignment, metrics
from metricanything.evaluation.score import NotMeasured, Sample, Score, Terms, first, plain
from metricanything.evaluation.scores_of_shape import SHAPE_SCORES

__all__ = ["ALIGNMENTS", "SCORES", "NotMeasured", "Sample", "Score", "Terms", "pool", "register"]

#: Every metric by name; `register` adds to it.
SCORES: dict[str, Score] = {}


def register(name: str, score: Score) -> None:
    """Add a metric under a new name; raises InputError when the name is taken."""
    if name in SCORES:
        raise InputError(f"metric {name!r} is registered already; choose another name")
    SCORES[name] = score


def pool(name: str, terms: Sequence[Terms], pixels: Sequence[int]) -> float:
    """One number over all pixels of several images: terms weighted with pixel counts. InputError if not poolable."""
    score, total = SCORES[name], sum(pixels)
    if not score.poolable:
        raise InputError(f"metric {name!r} cannot be pooled over images; average it per image")
    if not total:
        return math.nan
    pairs = [(t, n) for t, n in zip(terms, pixels, strict=True) if n]
    return score.finish(tuple(math.fsum(t[k] * n for t, n in pairs) / total for k in range(len(pairs[0][0]))))


def _squared(function: Callable[[Any, Any], float]) -> Callable[[Sample], Terms]:
    return lambda sample: (function(sample.pred, sample.gt) ** 2,)


def _root(terms: Terms) -> float:
    return math.sqrt(terms[0])


def _inliers(ratio: float) -> Callable[[Sample], Terms]:
    return lambda sample: (metrics.inlier_share(sample.pred, sample.gt, ratio),)


def _log_moments(sample: Sample) -> Terms:
    return metrics.log_moments(sample.pred, sample.gt)


_UNITS = {"rmse": "m", "mae": "m", "sq_rel": "m", "irmse": "1/m", "imae": "1/m"}
_ROOTS = {"rmse", "irmse", "rmse_log"}

for _name, _function in metrics.METRICS.items():
    if _name == "silog":
        continue
    register(
        _name,
        Score(
            (_function.__doc__ or _name).split("\n")[0] if _name[:5] != "delta" else f"share within 1.25^{_name[5:]}",
            _squared(_function) if _name in _ROOTS else plain(_function),
            _root if _name in _ROOTS else first,
            _UNITS.get(_name, ""),
            "higher" if _name in metrics.HIGHER_IS_BETTER else "lower",
        ),
    )
for _ratio in (1.02, 1.05, 1.10):
    register(f"ratio{_ratio:.2f}", Score(f"share with max(p/g, g/p) < {_ratio:.2f}", _inliers(_ratio), better="higher"))
register("delta0.5", Score("share with max(p/g, g/p) < 1.25^0.5", _inliers(1.25**0.5), better="higher"))
register("silog", Score("100 sqrt(var e), e = ln p - ln g", _log_moments, metrics.silog_of_moments))
register("silog_half", Score("sqrt(mean e^2 - (mean e)^2 / 2)", _log_moments, metrics.silog_half_of_moments))
for _name, _score in SHAPE_SCORES.items():
    register(_name, _score)


# ---------------------------------------------------------------- alignments


def _unaligned(pred: NDArray[np.float32], gt: NDArray[np.float32]) -> NDArray[np.float32]:
    return pred


def _aligned(name: str) -> Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    return lambda pred, gt: np.asarray(alignment.ALIGNMENTS[name](pred, gt, None), dtype=np.float32)


#: Alignments by name: (prediction, ground truth with NaN where it does not count) -> aligned prediction, all (H, W).
ALIGNMENTS: dict[str, Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]] = {
    "none": _unaligned,
    "median_scale": _aligned("median"),
    **{name: _aligned(name) for name in alignment.ALIGNMENTS if name != "median"},
}
