"""Which losses an image gets: by the kind of its label and by what its label's scale means."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.losses.confidence import confidence_l1
from metricanything.losses.depth import image_mean, standardise, trimmed_l1, trimmed_relative
from metricanything.losses.gradients import gradient_l1, mage, male, msge
from metricanything.losses.normals import normal_angle


@dataclass(frozen=True)
class DepthWeights:
    """Weights of the terms of `depth_losses`; a term of weight 0 is not computed."""

    value: float = 1.0
    """Trimmed mean absolute error, every image."""
    relative: float = 0.0
    """Trimmed mean relative error of the depth, every image; in log C alone."""
    edges: float = 0.0
    """`gradient_l1`, rendered images."""
    mage: float = 0.0
    """Multi-scale Scharr gradients, power 1, rendered images."""
    male: float = 0.0
    """Multi-scale Laplace operator, power 1, rendered images."""
    msge: float = 0.0
    """Multi-scale Scharr gradients, power 2, rendered images."""
    normals: float = 0.0
    """Angle between normals in radians, rendered metric images; needs `plane_BHW2`."""
    confidence: float = 0.0
    """Confidence-weighted error, metric images; needs `log_confidence`."""
    keep: float = 0.8
    """Share of the pixels with the smallest errors that count in images that are not rendered."""
    up_to_scale: bool = True
    """Whether labels that are not metric are used, standardised. Otherwise they are left out."""
    standard_gradients: bool = False
    """Gradient terms of standardised maps for metric labels too (the SSI-MAGE of Depth Pro's first stage)."""


def depth_losses(
    prediction: Tensor,
    target: Tensor,
    known: Tensor,
    *,
    rendered_B: Tensor,
    metric_B: Tensor,
    weights: DepthWeights,
    logarithmic: bool = False,
    log_confidence: Tensor | None = None,
    plane_BHW2: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted terms () by the name of their weight; each is a mean over the images with a pixel for it.

    prediction, target: (B, 1, H, W) canonical inverse depth C > 0, or log C where `logarithmic`. known: bool
    (B, 1, H, W). rendered_B: bool (B,), kind `rendered`; `reconstructed` and `captured` labels are trimmed and have no
    edges to trust. metric_B: bool (B,), scale `metric`. Others enter after `standardise`; in log C that leaves out the
    division, because a change of unit is a shift there (so `affine` labels need C itself).

    The combination is that of Depth Pro (arXiv 2410.02073). Raises ValueError when a weighted term lacks
    its input.
    """
    if (weights.confidence and log_confidence is None) or (weights.normals and plane_BHW2 is None):
        raise ValueError("the confidence term needs log_confidence, the term of normals plane_BHW2")
    if weights.relative and not logarithmic:
        raise ValueError("the relative term needs logarithmic maps")
    metric, rendered = metric_B.view(-1, 1, 1, 1), rendered_B.view(-1, 1, 1, 1)
    keep = torch.where(rendered_B, 1.0, weights.keep)
    p, t, mask = _comparable(prediction, target, known, metric, weights.up_to_scale, logarithmic)
    terms = {"value": weights.value * image_mean(trimmed_l1(p, t, mask, keep), mask)}
    if weights.relative:
        terms["relative"] = weights.relative * image_mean(trimmed_relative(p, t, mask, keep), mask)
    if weights.standard_gradients:
        p, t, mask = _comparable(prediction, target, mask, torch.zeros_like(metric), True, logarithmic)
    edges = mask & rendered
    for name, loss in (("edges", gradient_l1), ("mage", mage), ("male", male), ("msge", msge)):
        if weight := getattr(weights, name):
            terms[name] = weight * image_mean(loss(p, t, edges), edges)
    if log_confidence is not None and weights.confidence:
        value = confidence_l1(prediction, target, known & metric, log_confidence)
        terms["confidence"] = weights.confidence * image_mean(value, known & metric)
    if plane_BHW2 is not None and weights.normals:
        # Normals do not depend on the unit, so f / W can be left out: D ~ 1 / C.
        surface = known & metric & rendered
        depth, true = (_inverse(torch.where(surface, x, 1.0), logarithmic) for x in (prediction, target))
        terms["normals"] = weights.normals * image_mean(normal_angle(depth, true, surface, plane_BHW2), surface)
    return terms


def _comparable(
    prediction: Tensor, target: Tensor, known: Tensor, metric: Tensor, up_to_scale: bool, logarithmic: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target and mask, standardised where labels are not metric, or without those images."""
    if not up_to_scale:
        return prediction, target, known & metric
    relative = known & ~metric
    p, usable_p = standardise(prediction, relative, divide=not logarithmic)
    t, usable_t = standardise(target, relative, divide=not logarithmic)
    usable = metric | (usable_p & usable_t).view(-1, 1, 1, 1)
    return torch.where(metric, prediction, p), torch.where(metric, target, t), known & usable


def _inverse(c: Tensor, logarithmic: bool) -> Tensor:
    return (-c).exp() if logarithmic else 1 / c
