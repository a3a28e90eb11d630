"""Metrics and alignments by the names that protocols use.

A `Score` maps one frame's `Sample` to a few terms, which are means over its pixels, and terms to a number. Averaged
per image, every frame is finished by itself; pooled, terms are averaged with their pixel counts first. To add a metric,
`register` it under a new name and list that name in a protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.geometry import depth_to_points
from metricanything.evaluation import alignment, metrics
from metricanything.evaluation import boundaries as boundary_scores
from metricanything.evaluation import camera as cameras
from metricanything.evaluation.points import evaluate_points

Terms = tuple[float, ...]


@dataclass(frozen=True)
class Sample:
    """What a metric may look at: one frame at the size of its ground truth.

    pred: float32 (H, W) metres, aligned; NaN or not positive = no prediction. gt: float32 (H, W) metres, NaN where it
    does not count. truth: the frame's camera, None where it is not known. recovered: the camera that the model found
    by itself, or None. points: float32 (H, W, 3) metres of the prediction in the camera frame, or None.
    image: uint8 (H, W, 3).
    """

    pred: NDArray[np.float32]
    gt: NDArray[np.float32]
    image: NDArray[np.uint8]
    truth: Camera | None = None
    recovered: Camera | None = None
    points: NDArray[np.float32] | None = None


def _first(terms: Terms) -> float:
    return terms[0]


@dataclass(frozen=True)
class Score:
    """A metric: one line on what it is, its unit ("" = none) and direction, and how it is computed.

    terms: means over the pixels of a `Sample` that count. finish: terms to the number. poolable: whether means of terms
    over all pixels of several images are the terms of those images together.
    """

    description: str
    terms: Callable[[Sample], Terms]
    finish: Callable[[Terms], float] = _first
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    poolable: bool = True


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


def _plain(function: Callable[[Any, Any], float]) -> Callable[[Sample], Terms]:
    return lambda sample: (function(sample.pred, sample.gt),)


def _squared(function: Callable[[Any, Any], float]) -> Callable[[Sample], Terms]:
    return lambda sample: (function(sample.pred, sample.gt) ** 2,)


def _root(terms: Terms) -> float:
    return math.sqrt(terms[0])


def _inliers(ratio: float) -> Callable[[Sample], Terms]:
    return lambda sample: (metrics.inlier_share(sample.pred, sample.gt, ratio),)


_UNITS = {"rmse": "m", "mae": "m", "sq_rel": "m", "irmse": "1/m", "imae": "1/m"}
_ROOTS = {"rmse", "irmse", "rmse_log"}

for _name, _function in metrics.METRICS.items():
    register(
        _name,
        Score(
            (_function.__doc__ or _name).split("\n")[0] if _name[:5] != "delta" else f"share within 1.25^{_name[5:]}",
            _squared(_function) if _name in _ROOTS else _plain(_function),
            _root if _name in _ROOTS else _first,
            _UNITS.get(_name, ""),
            "higher" if _name in metrics.HIGHER_IS_BETTER else "lower",
            poolable=_name != "silog",  # a missing prediction is charged relative to the image's own mean
        ),
    )
for _ratio in (1.02, 1.05, 1.10):
    register(f"ratio{_ratio:.2f}", Score(f"share with max(p/g, g/p) < {_ratio:.2f}", _inliers(_ratio), better="higher"))
register("delta0.5", Score("share with max(p/g, g/p) < 1.25^0.5", _inliers(1.25**0.5), better="higher"))


def _log_terms(sample: Sample) -> Terms:
    """Mean squared and mean logarithmic error; a missing prediction is a factor of 10 off, as in `metrics`."""
    d, g = metrics.valid_pairs(sample.pred, sample.gt)
    if not g.size:
        return math.nan, math.nan
    error = metrics.charge_decade(metrics.log_residual(d, g))
    return float((error**2).mean()), float(error.mean())


def _half_silog(terms: Terms) -> float:
    return math.sqrt(terms[0] - 0.5 * terms[1] ** 2)  # never negative: mean(e)^2 <= mean(e^2)


register("silog_half", Score("sqrt(mean e^2 - (mean e)^2 / 2), e = ln p - ln g", _log_terms, _half_silog))


# ---------------------------------------------------------------- cameras


def _camera(function: Callable[[Camera, Camera], float]) -> Callable[[Sample], Terms]:
    def measure(sample: Sample) -> Terms:
        if sample.truth is None:
            raise InputError("the true camera is not known; state it in the data")
        if sample.recovered is None:
            raise InputError("the model recovers no camera; use a point-map model")
        return (function(sample.recovered, sample.truth),)

    return measure


def _focal_within(share: float) -> Callable[[Camera, Camera], float]:
    return lambda recovered, truth: float(cameras.focal_error(recovered, truth) < share)


for _name, _score in {
    "fov_deg": Score("absolute error of the horizontal field of view", _camera(cameras.fov_error), unit="°"),
    "focal_rel": Score("relative error of the focal length", _camera(cameras.focal_error)),
    "rays_deg": Score("mean angle between rays of the same pixels", _camera(cameras.ray_error), unit="°"),
    "focal_25": Score("share of images with a focal error below 25 %", _camera(_focal_within(0.25)), better="higher"),
    "focal_50": Score("share of images with a focal error below 50 %", _camera(_focal_within(0.5)), better="higher"),
}.items():
    register(_name, _score)
#: Metrics of the camera, which look at no pixel of depth.
CAMERA_SCORES = frozenset({"fov_deg", "focal_rel", "rays_deg", "focal_25", "focal_50"})


# ---------------------------------------------------------------- points and boundaries


def _points(name: str) -> Callable[[Sample], Terms]:
    """One of MoGe's point metrics; all of a frame are computed together and kept with its sample."""

    def measure(sample: Sample) -> Terms:
        if sample.points is None or sample.truth is None:
            raise InputError("points need a model that gives them and the true camera; leave the protocol out")
        kept = sample.__dict__.get("_points")
        if kept is None:
            truth = depth_to_points(sample.gt, sample.truth)
            kept = evaluate_points(sample.points, truth, np.isfinite(sample.gt))
            sample.__dict__["_points"] = kept
        return (kept[name],)

    return measure


for _kind in ("metric", "scale_invariant", "affine_invariant"):
    _how = "after a shift" if _kind == "metric" else "after MoGe's alignment"
    for _name, _what in (("rel", "mean |p - q| / |q|"), ("delta1", "share with |p - q| < min(|p|, |q|) / 4")):
        register(
            f"points_{_kind}_{_name}",
            Score(
                f"{_what} of {_kind.replace('_', '-')} points, {_how}",
                _points(f"points_{_kind}_{_name}"),
                better="lower" if _name == "rel" else "higher",
                poolable=False,
            ),
        )


def _disc(radius: int) -> Callable[[Sample], Terms]:
    return lambda sample: (boundary_scores.disc_boundary_f1(sample.pred, sample.gt, radius),)


register(
    "boundary_f1",
    Score(
        "scale-invariant boundary F1 (Depth Pro)", _plain(boundary_scores.boundary_f1), better="higher", poolable=False
    ),
)
for _radius in (1, 2, 3):
    register(
        f"boundary_f1_r{_radius}",
        Score(f"boundary F1 in discs of radius {_radius} (MoGe)", _disc(_radius), better="higher", poolable=False),
    )


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
