"""Prompt-free distillation: the teacher labels frames densely, students learn from images alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metricanything.core.frame import Frame
from metricanything.core.prompt import SparsePrompt
from metricanything.curate.shards import Shards
from metricanything.data.batches import Batch
from metricanything.inference.predictor import Model
from metricanything.losses.combination import DepthWeights
from metricanything.losses.depth import mask_bce
from metricanything.losses.points import align_scale_shift, global_points, metric_scale
from metricanything.models.compact.pointmap import PointOutput
from metricanything.models.outputs import DepthOutput
from metricanything.training.teacher import abs_rel, depth_terms


def pseudo_labels(
    teacher: Model, shards: Shards, *, max_points: int = 2000, seed: int = 0, batch_size: int = 16
) -> Iterator[Frame]:
    """Every frame with its depth replaced by the teacher's dense prediction, prompted by the frame's own label.

    At most `max_points` of the known pixels are the prompt, drawn uniformly with a seed per frame. What the teacher's
    mask leaves out becomes +inf (sky), except where the frame was measured. Frames without any known depth are left
    out: nothing gives their scale.
    """
    for start in range(0, len(shards), batch_size):
        read = [(i, shards.frame(i)) for i in range(start, min(start + batch_size, len(shards)))]
        numbered = [(i, frame) for i, frame in read if frame.valid.any()]
        frames = [frame for _, frame in numbered]
        prompts = [_label_prompt(frame, max_points, seed + i) for i, frame in numbered]
        predictions = teacher.predict([f.image for f in frames], prompt=prompts, camera=[f.camera for f in frames])
        for frame, prompt, prediction in zip(frames, prompts, predictions, strict=True):
            depth = np.where(prediction.mask | frame.valid, prediction.depth, np.float32(np.inf))
            notes = {**frame.notes, "pseudo_label": {"teacher": teacher.record, "prompt_points": len(prompt)}}
            yield dataclasses.replace(frame, depth=depth, sigma=None, notes=notes)


def _label_prompt(frame: Frame, max_points: int, seed: int) -> SparsePrompt:
    prompt = SparsePrompt.from_depth(frame.depth, unit="m")
    if len(prompt) <= max_points:
        return prompt
    chosen = np.random.default_rng(seed).choice(len(prompt), max_points, replace=False)
    return SparsePrompt(prompt.uv[chosen], prompt.depth[chosen], prompt.height, prompt.width)


@dataclass(frozen=True)
class DepthMapTask:
    """The teacher's losses without a prompt."""

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch as it is."""
        return batch

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image."""
        return (batch.image_B3HW,)

    def loss(self, output: DepthOutput, batch: Batch, weights: DepthWeights) -> dict[str, Tensor]:
        """Terms of `depth_terms`; only a metric label has the unit that an image can tell."""
        return depth_terms(output, batch, batch.metric_B, weights)

    def errors(self, output: DepthOutput, batch: Batch) -> dict[str, Tensor]:
        """AbsRel of all known pixels."""
        return {"AbsRel": abs_rel(output, batch, torch.ones_like(batch.depth_BHW, dtype=torch.bool))}


@dataclass(frozen=True)
class PointMapTask:
    """Global affine-invariant points, log metric scale and mask; means over the batch."""

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch as it is."""
        return batch

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """The image."""
        return (batch.image_B3HW,)

    def loss(self, output: PointOutput, batch: Batch, weights: DepthWeights) -> dict[str, Tensor]:
        """`weights` are those of depth maps and do not apply."""
        depth = batch.depth_BHW[:, None]
        rays = batch.plane_BHW2.permute(0, 3, 1, 2)
        known = torch.isfinite(depth) & torch.isfinite(rays).all(dim=1, keepdim=True)
        z = torch.where(known, depth, 1.0)
        target = torch.cat([torch.where(known, rays, 0.0) * z, z], dim=1)
        scale, shift = align_scale_shift(output.points_B3HW, target, known)
        return {
            "points": global_points(output.points_B3HW, target, known, scale, shift).mean(),
            "scale": 0.1 * metric_scale(output.log_scale_B, scale, batch.metric_B).mean(),
            "mask": 0.1 * mask_bce(output.mask_logit_B1HW, torch.isfinite(depth), ~torch.isnan(depth)).mean(),
        }

    def errors(self, output: PointOutput, batch: Batch) -> dict[str, Tensor]:
        """The loss, the same for every image: metric depth would need the camera's recovery."""
        return {
            "loss": torch.stack(list(self.loss(output, batch, DepthWeights()).values())).sum().expand(len(batch.names))
        }
