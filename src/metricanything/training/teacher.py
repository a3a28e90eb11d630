"""Pretraining of the prompt-based teacher: draw a Sparse Metric Prompt from the label, predict the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metricanything.data.batches import Batch, canonical
from metricanything.data.prompts import PromptMixture
from metricanything.losses.depth import mask_bce, trimmed_l1
from metricanything.losses.gradients import gradient_l1
from metricanything.models.compact.teacher import DepthOutput
from metricanything.patterns.grid import Grid
from metricanything.patterns.lidar import LidarLines
from metricanything.patterns.uniform import Uniform

#: The compact recipe. Bounds are for views of about 160 x 128 pixels: 20 points there are as dense as 300 at 640 x 480.
COMPACT_PROMPTS = PromptMixture(
    (
        (0.6, Uniform(points=(10, None), max_fraction=0.05)),
        (0.2, LidarLines(lines=(4, 32), jitter=0.05)),
        (0.2, Grid(factors=(2, 12))),
    )
)


def depth_terms(output: DepthOutput, batch: Batch, supervised_B: Tensor) -> dict[str, Tensor]:
    """Trimmed L1 everywhere, gradients where labels are trusted, and the finite-depth mask; means over the batch.

    Samples outside `supervised_B` count for the mask alone.
    """
    target_c = canonical(batch.depth_BHW, batch.focal_B)
    known = (target_c > 0) & supervised_B[:, None, None, None]
    log_c = torch.where(known, target_c, 1.0).log()
    keep = torch.where(batch.trusted_B, 1.0, 0.8)
    value = trimmed_l1(output.log_c_B1HW, log_c, known, keep)
    edges = gradient_l1(output.log_c_B1HW, log_c, known & batch.trusted_B[:, None, None, None])
    finite = torch.isfinite(batch.depth_BHW)[:, None]
    mask = mask_bce(output.mask_logit_B1HW, finite, ~torch.isnan(batch.depth_BHW)[:, None])
    return {"value": value.mean(), "edges": 2.0 * edges.mean(), "mask": 0.1 * mask.mean()}


def teacher_loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    """Prompt pixels are supervised like all others; labels known only up to scale are used with a prompt alone."""
    mask = COMPACT_PROMPTS.draw(batch.depth_BHW, batch.metric_B, generator)
    prompt = torch.where(mask[:, None], canonical(batch.depth_BHW, batch.focal_B), 0.0)
    output = network(batch.image_B3HW, prompt)
    return depth_terms(output, batch, supervised_B=batch.metric_B | mask.flatten(1).any(dim=1))
