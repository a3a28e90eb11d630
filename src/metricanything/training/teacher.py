"""Pretraining of the prompt-based teacher: draw a Sparse Metric Prompt from the label, predict the rest."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metricanything.core.errors import InputError
from metricanything.data.batches import Batch, canonical
from metricanything.data.prompts import PromptMixture
from metricanything.losses.combination import DepthWeights, depth_losses
from metricanything.losses.confidence import confidence_l1
from metricanything.losses.depth import image_mean, mask_bce
from metricanything.models.outputs import DepthOutput

CONFIDENCE_WEIGHT = 0.1


def depth_terms(output: DepthOutput, batch: Batch, metric_B: Tensor, weights: DepthWeights) -> dict[str, Tensor]:
    """`depth_losses` and the finite-depth mask. `metric_B` (B,): the label has the unit that the network can know.

    Raises InputError for a weight of the confidence with a network that states none.
    """
    if weights.confidence and output.log_confidence_B1HW is None:
        raise InputError("this model states no confidence; set the stage's weights.confidence to 0")
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
        log_confidence=output.log_confidence_B1HW,
        plane_BHW2=batch.plane_BHW2,
    )
    if output.log_confidence_B1HW is not None and not weights.confidence:
        # The network learns how wrong it is, not to be less wrong where that is cheap: no gradient to the depth.
        rated = known & metric_B.view(-1, 1, 1, 1)
        value = confidence_l1(output.log_c_B1HW.detach(), log_c, rated, output.log_confidence_B1HW)
        terms["confidence"] = CONFIDENCE_WEIGHT * image_mean(value, rated)
    return {**terms, "mask": 0.1 * mask_term(output.mask_logit_B1HW, batch)}


def mask_term(logit_B1HW: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy () of the mask of finite depth, where it is known whether the depth is finite."""
    finite, seen = torch.isfinite(batch.depth_BHW)[:, None], ~torch.isnan(batch.depth_BHW)[:, None]
    return image_mean(mask_bce(logit_B1HW, finite, seen), seen)


@dataclass(frozen=True)
class TeacherTask:
    """Prompts drawn from the label itself; prompt pixels are supervised like all others."""

    prompts: PromptMixture = field(default_factory=PromptMixture)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with its prompt."""
        prompt_BHW = self.prompts.draw(batch.depth_BHW, batch.metric_B, generator, batch.image_B3HW)
        return dataclasses.replace(batch, prompt_BHW=prompt_BHW)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Image and canonical prompt."""
        return batch.image_B3HW, canonical(_prompt(batch), batch.focal_B)

    def loss(self, output: DepthOutput, batch: Batch, weights: DepthWeights) -> dict[str, Tensor]:
        """Terms of `depth_terms`; a prompt gives the unit of a label that is known up to scale."""
        return depth_terms(
            output, batch, batch.metric_B | torch.isfinite(_prompt(batch)).flatten(1).any(dim=1), weights
        )

    def errors(self, output: DepthOutput, batch: Batch) -> dict[str, Tensor]:
        """`depth_errors` of the pixels that were not prompted."""
        return depth_errors(output.log_c_B1HW, batch, torch.isnan(_prompt(batch)))


def _prompt(batch: Batch) -> Tensor:
    if batch.prompt_BHW is None:
        raise ValueError("the batch has no prompt; call prepare first")
    return batch.prompt_BHW


def depth_errors(log_c_B1HW: Tensor, batch: Batch, where_BHW: Tensor) -> dict[str, Tensor]:
    """AbsRel = mean |D - D*| / D* and LogError = mean |log D - log D*|, (B,) each, of predicted log C over a mask.

    A few depths that are far too large decide AbsRel, but not LogError, which compares runs with less noise. NaN
    without any known pixel, and where labels are not metric.
    """
    known = torch.isfinite(batch.depth_BHW) & where_BHW & batch.metric_B[:, None, None]
    log_true = batch.focal_B[:, None, None].log() - torch.where(known, batch.depth_BHW, 1.0).log()
    ahead = torch.where(known, log_true - log_c_B1HW[:, 0].float(), 0.0)  # log D - log D*
    count = torch.where(known.any(dim=(1, 2)), known.sum(dim=(1, 2)), torch.nan)
    return {"AbsRel": ahead.expm1().abs().sum(dim=(1, 2)) / count, "LogError": ahead.abs().sum(dim=(1, 2)) / count}
