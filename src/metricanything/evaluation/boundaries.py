"""How sharp and well placed the edges of a depth map are, whatever its scale.

`pred` and `gt` are z-depths `(H, W)` in one unit, `mask` `(H, W)` is True where the truth may be used. An edge is a
pair of near pixels whose depths' ratio exceeds a threshold t. Only pairs count whose truth is known at both pixels: an
edge to unknown truth is neither demanded nor held against the prediction. A pixel without a usable prediction (NaN or
not positive) forms no edge, so that the edges missing there are misses.

Scores are means over ten thresholds, linspace(1.05, 1.25, 10), with higher weight on the stronger edges. They lie in
0..1, higher is better, are 0 where the truth has no edge at all (as in the published code) and NaN where no pair
counts. InputError is raised when shapes differ.

Sources: Depth Pro (arXiv 2410.02073) for `boundary_f1` and `boundary_recall`, MoGe-2 (arXiv 2507.02546) for
`disc_boundary_f1`, and the evaluation code published with each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError

Array = NDArray[np.float64]
Bool = NDArray[np.bool_]

_EXCESS = np.linspace(0.05, 0.25, 10)  # thresholds t, less 1
_ALPHA = 0.1  # alpha above which a pixel is foreground


def boundary_f1(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Scale-invariant boundary F1 of Depth Pro: precision and recall of occluding edges between adjacent pixels.

    Edges of each of four directions (the nearer pixel is left, right, above or below) are counted apart; precision and
    recall are means over the directions, F1 = 2PR / (P + R), and the weight of a threshold is t. True depth +inf is
    known to be far, so that the outline against the sky counts.
    """
    d, g, known = _maps(pred, gt, mask, sky=True)
    hits, predicted, true, pairs = [], [], [], 0
    for near, far in _directions():
        both = known[near] & known[far]
        pairs += int(np.count_nonzero(both))
        # d_far / d_near, written with inverse depths so that +inf is a number and inf / inf is no edge.
        level_d, level_g = (_level(_ratio(1 / x[near], 1 / x[far]), both, 1 + _EXCESS) for x in (d, g))
        hits.append(_above(np.minimum(level_d, level_g)))
        predicted.append(_above(level_d))
        true.append(_above(level_g))
    if not pairs:
        return float("nan")
    precision = np.mean(np.array(hits) / np.maximum(predicted, 1), axis=0)
    recall = np.mean(np.array(hits) / np.maximum(true, 1), axis=0)
    return float(np.average(_harmonic(precision, recall), weights=1 + _EXCESS))


def boundary_recall(pred: ArrayLike, alpha: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Scale-invariant boundary recall of Depth Pro against a mask or matte: how many of its outlines the depth shows.

    `alpha` (H, W) is the share of foreground (0..1, or bool), NaN where unknown; above 0.1 is foreground. An outline is
    found where the depth falls off in the same direction and that edge is the strongest of its run of adjacent edges,
    so that a slope is one edge and not many. Recall is the mean over the four directions; the weight of a threshold is
    t.
    """
    a = np.asarray(alpha, dtype=np.float64)
    d, _, known = _maps(pred, np.where(np.isnan(a), np.nan, 1.0), mask)
    foreground = a > _ALPHA
    inverse = 1 / d
    recalls, pairs = [], 0
    for axis, (near, far) in enumerate(_directions()):
        both = known[near] & known[far]
        pairs += int(np.count_nonzero(both))
        outline = foreground[near] & ~foreground[far] & both
        ratio = _ratio(inverse[near], inverse[far])
        if axis >= 2:
            outline, ratio = outline.T, ratio.T
        found = [np.count_nonzero(outline & _thinned(ratio, 1 + t)) for t in _EXCESS]
        recalls.append(np.array(found) / max(np.count_nonzero(outline), 1))
    return float(np.average(np.mean(recalls, axis=0), weights=1 + _EXCESS)) if pairs else float("nan")


def disc_boundary_f1(pred: ArrayLike, gt: ArrayLike, radius: int, mask: ArrayLike | None = None) -> float:
    """Boundary F1 of MoGe-2: edges between a pixel and any other within `radius` pixels of it.

    Published radii are 1, 2 and 3; pixels nearer than `radius` to the border are no centres; true depth +inf does not
    count; the weight of a threshold is t - 1.
    """
    if radius < 1:
        raise InputError(f"the radius of a boundary score must be at least 1 pixel, got {radius}")
    d, g, known = _maps(pred, gt, mask)
    height, width = g.shape
    hits, predicted, true = (np.zeros(len(_EXCESS)) for _ in range(3))
    pairs = 0
    centre = np.s_[radius : max(height - radius, radius), radius : max(width - radius, radius)]
    steps = range(-radius, radius + 1)
    for dy, dx in ((y, x) for y in steps for x in steps if 0 < x * x + y * y <= radius * radius):
        other = tuple(slice(s.start + step, s.stop + step) for s, step in zip(centre, (dy, dx), strict=True))
        both = known[centre] & known[other]
        pairs += int(np.count_nonzero(both))
        level_d, level_g = (_level(_ratio(x[other], x[centre]), both, 1 + _EXCESS) for x in (d, g))
        hits += _above(np.minimum(level_d, level_g))
        predicted += _above(level_d)
        true += _above(level_g)
    score = _harmonic(hits / np.maximum(predicted, 1), hits / np.maximum(true, 1))
    return float(np.average(score, weights=_EXCESS)) if pairs else float("nan")


def _maps(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None, sky: bool = False) -> tuple[Array, Array, Bool]:
    """Prediction and truth, NaN where unusable, and where the truth is known."""
    d, g = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    if d.shape != g.shape or g.ndim != 2:
        raise InputError(f"boundaries need two maps (H, W) of one size, got {d.shape} and {g.shape}")
    known = (g > 0) & (sky | np.isfinite(g))
    if mask is not None:
        chosen = np.asarray(mask)
        if chosen.shape != g.shape or chosen.dtype != np.bool_:
            raise InputError(f"mask must be bool {g.shape} like the ground truth, got {chosen.dtype} {chosen.shape}")
        known = known & chosen
    return np.where(d > 0, d, np.nan), np.where(known, g, np.nan), known


def _directions() -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Slices (near, far) of the adjacent pixels of a map: near is left, right, above, below."""
    everything, first, last = slice(None), slice(None, -1), slice(1, None)
    yield (everything, first), (everything, last)
    yield (everything, last), (everything, first)
    yield (first, everything), (last, everything)
    yield (last, everything), (first, everything)


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Their quotient, 0 where it is not a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = numerator / denominator
    return np.where(np.isnan(ratio), 0.0, ratio)


def _level(ratio: Array, counts: Bool, thresholds: Array) -> NDArray[np.intp]:
    """How many thresholds each ratio exceeds; 0 for pairs that do not count."""
    return np.where(counts, np.searchsorted(thresholds, ratio, side="left"), 0)


def _above(level: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each threshold, how many pairs exceed it."""
    histogram = np.bincount(level.ravel(), minlength=len(_EXCESS) + 1)
    return np.cumsum(histogram[:0:-1])[::-1]


def _harmonic(precision: Array, recall: Array) -> Array:
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def _thinned(ratio: Array, threshold: float) -> Bool:
    """Of each run of adjacent edges along a row, the strongest one (the first of equals)."""
    edge = ratio > threshold
    kept = np.zeros_like(edge)
    if not edge.any():
        return kept
    begins = edge.copy()
    begins[:, 1:] &= ~edge[:, :-1]
    strength, place = ratio[edge], np.flatnonzero(edge)
    starts = np.flatnonzero(begins[edge])
    run = np.cumsum(begins[edge]) - 1
    strongest = np.flatnonzero(strength == np.maximum.reduceat(strength, starts)[run])
    first = np.unique(run[strongest], return_index=True)[1]
    kept.flat[place[strongest[first]]] = True
    return kept
