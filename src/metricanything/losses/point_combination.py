"""Which losses on points an image gets: by the kind of its label, as in MoGe-2 (arXiv 2507.02546)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.losses.alignment import Shortlist
from metricanything.losses.depth import image_mean
from metricanything.losses.normals import edge_angle, point_normal_angle
from metricanything.losses.points import align_points, draw_anchors, global_points, local_points, metric_scale

LEVELS = (4, 16, 64)


@dataclass(frozen=True)
class PointWeights:
    """Weights of the terms of `point_losses`, and how finely they look; a term of weight 0 is not computed."""

    whole: float = 1.0
    """Points aligned by scale and z-shift, every image."""
    local: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Patches of a 4th, 16th and 64th of the image, each aligned by itself: every image; all but sparse labels; exact
    labels."""
    edges: float = 1.0
    """Angle, in radians, of the way to neighbouring points, all but sparse labels."""
    normals: float = 1.0
    """Angle between surface normals in radians, all but sparse labels."""
    scale: float = 0.1
    """Squared error of the log metric scale, metric labels."""
    mask: float = 0.1
    """Cross-entropy of the mask, every image."""
    samples: int = 48
    """Samples a side, of the image, that it is aligned by."""
    patches: tuple[int, int, int] = (16, 256, 4096)
    """Patches of each level."""
    patch_samples: tuple[int, int, int] = (24, 12, 6)
    """Samples a side of a patch of each level."""


def point_losses(
    points: Tensor,
    target: Tensor,
    mask: Tensor,
    log_scale_B: Tensor,
    focal_B: Tensor,
    *,
    exact_B: Tensor,
    sparse_B: Tensor,
    metric_B: Tensor,
    weights: PointWeights,
) -> dict[str, Tensor]:
    """Weighted terms () by the name of their weight; each is a mean over the images with a pixel for it.

    points (affine), target: (B, 3, H, W); mask: bool (B, 1, H, W), where the target is known. log_scale_B (B,): of the
    predicted metric scale. focal_B (B,): focal length over image width. bool (B,): exact_B, labels without error
    (rendered, or a teacher's); sparse_B, labels that are single points (LiDAR, SfM); metric_B, labels in metres.
    Patches are drawn by torch's generator.
    """
    shortlist = Shortlist()
    scale, shift = align_points(points, target, mask, weights.samples, shortlist)
    aligned = mask & (scale > 0).view(-1, 1, 1, 1)
    terms = {
        "whole": weights.whole * image_mean(global_points(points, target, mask, scale, shift), aligned),
        "scale": weights.scale * image_mean(metric_scale(log_scale_B, scale, metric_B), aligned & _of(metric_B)),
    }
    fine = (torch.ones_like(sparse_B), exact_B | ~sparse_B, exact_B)
    for level, weight, count, side, images_B in zip(
        LEVELS, weights.local, weights.patches, weights.patch_samples, fine, strict=True
    ):
        if weight:
            chosen = aligned & _of(images_B)
            anchors = draw_anchors(chosen, count)
            value = local_points(
                points, target, chosen, focal_B, scale, anchors, level=level, side=side, shortlist=shortlist
            )
            terms[f"local {level}"] = weight * image_mean(value, chosen)
    surfaces = mask & _of(exact_B | ~sparse_B)
    for name, loss in (("edges", edge_angle), ("normals", point_normal_angle)):
        if weight := getattr(weights, name):
            terms[name] = weight * image_mean(loss(points, target, surfaces), surfaces)
    return terms


def _of(images_B: Tensor) -> Tensor:
    return images_B.view(-1, 1, 1, 1)
