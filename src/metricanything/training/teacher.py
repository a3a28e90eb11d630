"""Pretraining of the prompt-based teacher: draw a Sparse Metric Prompt from the label, predict the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metricanything.data.batches import Batch, canonical
from metricanything.data.prompts import PromptMixture
from metricanything.losses.combination import DepthWeights, depth_losses
from metricanything.losses.confidence import confidence_l1
from metricanything.losses.depth import image_mean, mask_bce
from metricanything.models.outputs import DepthOutput
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


#: What the compact networks minimise, in log canonical inverse depth. The edge term is a mean over rendered images,
#: three quarters of the quickstart's batches: 1.5 there weighs what 2 would in a mean over all.
COMPACT_WEIGHTS = DepthWeights(value=1.0, edges=1.5, up_to_scale=False)
CONFIDENCE_WEIGHT = 0.1


def depth_terms(
    output: DepthOutput, batch: Batch, metric_B: Tensor, weights: DepthWeights = COMPACT_WEIGHTS
) -> dict[str, Tensor]:
    """`depth_losses` and the finite-depth mask. `metric_B` (B,): the label has the unit that the network can know."""
    target_c = canonical(batch.depth_BHW, batch.focal_B)
    known = target_c > 0
    log_c = torch.where(known, target_c, 1.0).log()
    terms = depth_losses(
        output.log_c_B1HW,
        log_c,
        known,
        rendered_B=batch.trusted_B,
        metric_B=metric_B,
        weights=weights,
        logarithmic=True,
    )
    if output.log_confidence_B1HW is not None:
        # The network learns how wrong it is, not to be less wrong where that is cheap: no gradient to the depth.
        rated = known & metric_B.view(-1, 1, 1, 1)
        value = confidence_l1(output.log_c_B1HW.detach(), log_c, rated, output.log_confidence_B1HW)
        terms["confidence"] = CONFIDENCE_WEIGHT * image_mean(value, rated)
    finite, seen = torch.isfinite(batch.depth_BHW)[:, None], ~torch.isnan(batch.depth_BHW)[:, None]
    return {**terms, "mask": 0.1 * image_mean(mask_bce(output.mask_logit_B1HW, finite, seen), seen)}


def teacher_loss(
    network: nn.Module, batch: Batch, generator: torch.Generator, weights: DepthWeights = COMPACT_WEIGHTS
) -> dict[str, Tensor]:
    """Prompt pixels are supervised like all others. A prompt gives the unit of a label that is known up to scale."""
    prompt_BHW = COMPACT_PROMPTS.draw(batch.depth_BHW, batch.metric_B, generator, batch.image_B3HW)
    output = network(batch.image_B3HW, canonical(prompt_BHW, batch.focal_B))
    return depth_terms(output, batch, batch.metric_B | torch.isfinite(prompt_BHW).flatten(1).any(dim=1), weights)
