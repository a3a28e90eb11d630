"""Metrics beyond depth in metres: cameras, depth and points up to scale and shift, single objects, boundaries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.geometry import depth_to_points
from metricanything.evaluation import boundaries, metrics
from metricanything.evaluation import camera as cameras
from metricanything.evaluation.alignment import ALIGNMENTS
from metricanything.evaluation.points import evaluate_points, local_points
from metricanything.evaluation.score import NotMeasured, Sample, Score, Terms, plain

#: The metrics of this file by name; `scores.SCORES` holds them with the others.
SHAPE_SCORES: dict[str, Score] = {}


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


for _name, _what, _function, _unit in (
    ("fov_deg", "absolute error of the horizontal field of view", cameras.fov_error, "°"),
    ("focal_rel", "relative error of the focal length", cameras.focal_error, ""),
    ("rays_deg", "mean angle between rays of the same pixels", cameras.ray_error, "°"),
):
    SHAPE_SCORES[_name] = Score(_what, _camera(_function), unit=_unit, depth=False)
for _share in (25, 50):
    SHAPE_SCORES[f"focal_{_share}"] = Score(
        f"share of images with a focal error below {_share} %",
        _camera(_focal_within(_share / 100)),
        better="higher",
        depth=False,
    )


# ---------------------------------------------------------------- depth up to scale and shift


def _aligned_depth(alignment: str, function: Callable[..., float]) -> Callable[[Sample], Terms]:
    """A metric of the depth after one of MoGe's alignments, which is solved once per sample."""

    def measure(sample: Sample) -> Terms:
        aligned = sample.once(alignment, lambda: ALIGNMENTS[alignment](sample.pred, sample.gt, None))
        return (function(aligned, sample.gt),)

    return measure


for _kind, _alignment in (
    ("depth_scale_invariant", "l1_scale"),
    ("depth_affine_invariant", "l1_affine"),
    ("disparity_affine_invariant", "disparity"),
):
    _after = f"of {_kind.replace('_', ' ')}, after MoGe's alignment"
    SHAPE_SCORES[f"{_kind}_rel"] = Score(
        f"mean |p - g| / g {_after}", _aligned_depth(_alignment, metrics.abs_rel), poolable=False
    )
    SHAPE_SCORES[f"{_kind}_delta1"] = Score(
        f"share within 1.25 {_after}", _aligned_depth(_alignment, metrics.delta), better="higher", poolable=False
    )


# ---------------------------------------------------------------- points


def _points(name: str) -> Callable[[Sample], Terms]:
    """One of MoGe's point metrics; all of a frame are computed together and kept with its sample."""

    def measure(sample: Sample) -> Terms:
        if sample.points is None or sample.truth is None:
            raise InputError("points need a model that gives them and the true camera; leave the protocol out")
        points, truth = sample.points, depth_to_points(sample.gt, sample.truth)
        known = np.isfinite(sample.gt)
        if name.startswith("local"):
            if sample.segments is None:
                raise NotMeasured("no segmentation map beside the image")
            segments = sample.segments
            return (sample.once("local", lambda: local_points(points, truth, segments, known))[name],)
        return (sample.once("points", lambda: evaluate_points(points, truth, known))[name],)

    return measure


for _name in ("points_metric", "points_scale_invariant", "points_affine_invariant", "local_points"):
    _local = _name == "local_points"
    _of = f"of {_name.replace('_', ' ')}, after {'a shift' if _name == 'points_metric' else 'alignment'} (MoGe)"
    SHAPE_SCORES[f"{_name}_rel"] = Score(
        f"mean |p - q| / {'size of the object' if _local else '|q|'} {_of}", _points(f"{_name}_rel"), poolable=False
    )
    SHAPE_SCORES[f"{_name}_delta1"] = Score(
        f"share with |p - q| < {'size / 4' if _local else 'min(|p|, |q|) / 4'} {_of}",
        _points(f"{_name}_delta1"),
        better="higher",
        poolable=False,
    )


# ---------------------------------------------------------------- boundaries


def _disc(radius: int) -> Callable[[Sample], Terms]:
    return lambda sample: (boundaries.disc_boundary_f1(sample.pred, sample.gt, radius),)


def _matte_recall(sample: Sample) -> Terms:
    if sample.matte is None:
        raise NotMeasured("no matte beside the image")
    return (boundaries.boundary_recall(sample.pred, sample.matte),)


SHAPE_SCORES["boundary_f1"] = Score(
    "scale-invariant boundary F1 (Depth Pro)", plain(boundaries.boundary_f1), better="higher", poolable=False
)
SHAPE_SCORES["boundary_recall"] = Score(
    "recall of the outlines of a matte (Depth Pro)", _matte_recall, better="higher", poolable=False, depth=False
)
for _radius in (1, 2, 3):
    SHAPE_SCORES[f"boundary_f1_r{_radius}"] = Score(
        f"boundary F1 in discs of radius {_radius} (MoGe)", _disc(_radius), better="higher", poolable=False
    )
