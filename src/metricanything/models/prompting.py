"""How a sparse metric prompt enters the decoder: a validity-aware pyramid, zero-initialised fusion, and the anchor.

Everything here works in log canonical inverse depth, log C = log(f_px / (W D)), and on maps that hold a value only
where there is a point. Such maps are never interpolated: going down, sums and counts are smoothed alike (a masked
average), and only the dense result of a coarser level is resized to fill what a finer level does not know (push-pull,
Gortler et al., The Lumigraph, 1996). Resizing a sparse map bilinearly is what breaks low-resolution prompting on truly
sparse prompts.

Shapes: B batch, H W pixels, C channels; a prompt is a value map and a mask map (B, 1, H, W), both 0 where unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.models.outputs import LOG_C_START, DepthOutput, depth_output


@dataclass(frozen=True)
class PromptLevel:
    """A prompt at one stride: filled values, which cells hold a point, and the smoothed number of points."""

    fill_B1HW: Tensor
    mask_B1HW: Tensor
    weight_B1HW: Tensor

    def channels(self) -> Tensor:
        """(B, 3, H, W) network input: filled value, mask, log(1 + smoothed number of points)."""
        return torch.cat([self.fill_B1HW, self.mask_B1HW, torch.log1p(self.weight_B1HW)], dim=1)


def push_pull(
    value_B1HW: Tensor,
    mask_B1HW: Tensor,
    softness: Tensor | float = 3e-3,
    affinities: Sequence[Tensor] = (),
) -> list[PromptLevel]:
    """Levels of a sparse map at strides 1, 2, 4, … down to one cell, each filled from the next coarser one.

    A cell that is reached by points of total weight w and weighted mean m becomes (w m + softness * coarser) / (w +
    softness): a partition of unity at every level, so that adding a constant to all values adds it to every filled
    value. `mask` is 0 or 1; values where it is 0 do not count, but must be finite. `affinities[i]` (B, 9, H_i, W_i)
    guides how level i takes from its 3x3 coarser neighbours; without one, that is bilinear.
    """
    sums, masks = [(value_B1HW * mask_B1HW, mask_B1HW)], [mask_B1HW]
    while max(masks[-1].shape[-2:]) > 1:
        sums.append((smooth_sum(sums[-1][0]), smooth_sum(sums[-1][1])))
        masks.append(F.max_pool2d(masks[-1], 2, ceil_mode=True))
    fill = sums[-1][0] / sums[-1][1].clamp_min(1e-12)
    levels = [PromptLevel(fill, masks[-1], sums[-1][1])]
    for i in reversed(range(len(sums) - 1)):
        total, weight = sums[i]
        if i < len(affinities):
            coarse = guided_upsample(fill, affinities[i])
        else:
            coarse = F.interpolate(fill, size=total.shape[-2:], mode="bilinear", align_corners=False)
        fill = (total + softness * coarse) / (weight + softness)
        levels.append(PromptLevel(fill, masks[i], weight))
    return levels[::-1]


def smooth_sum(x_B1HW: Tensor) -> Tensor:
    """Sums at half the resolution under overlapping binomial windows of 6x6 pixels; odd sides are padded with zeros.

    Windows that overlap are what makes the filled map smooth: with 2x2 boxes its error on real prompts was up to 40 %
    higher, and above that of linear interpolation (docs/decisions/compact-models.md).
    """
    h, w = x_B1HW.shape[-2:]
    taps = torch.tensor([1.0, 5.0, 10.0, 10.0, 5.0, 1.0], dtype=x_B1HW.dtype, device=x_B1HW.device) / 16
    padded = F.pad(x_B1HW, (2, 2 + w % 2, 2, 2 + h % 2))
    rows = F.conv2d(padded, taps.view(1, 1, 6, 1), stride=(2, 1))
    return F.conv2d(rows, taps.view(1, 1, 1, 6), stride=(1, 2))


def box_sum(x_B1HW: Tensor) -> Tensor:
    """Sums over 2x2 cells (even sides)."""
    return F.avg_pool2d(x_B1HW, 2) * 4


def guided_upsample(coarse_B1HW: Tensor, affinity_B9HW: Tensor) -> Tensor:
    """Double the resolution; every pixel is a convex combination of its 3x3 coarser neighbours.

    Weights are softmax(affinity + log bilinear): zero affinities give (nearly) bilinear upsampling, learned ones stop
    at object borders. Convex upsampling is RAFT's (Teed and Deng, ECCV 2020).
    """
    b, _, h, w = coarse_B1HW.shape
    neighbours = F.unfold(F.pad(coarse_B1HW, (1, 1, 1, 1), mode="replicate"), 3).view(b, 9, h, 1, w, 1)
    logits = affinity_B9HW.view(b, 9, h, 2, w, 2) + _log_bilinear(affinity_B9HW).view(9, 1, 2, 1, 2)
    return (logits.softmax(dim=1) * neighbours).sum(dim=1).view(b, 1, 2 * h, 2 * w)


def _log_bilinear(like: Tensor) -> Tensor:
    """(3, 3, 2, 2): log weight of each coarser neighbour for the four pixels of a cell, floored to stay learnable."""
    first = torch.tensor([[0.25, 0.0], [0.75, 0.75], [0.0, 0.25]], dtype=like.dtype, device=like.device)
    weights = first[:, None, :, None] * first[None, :, None, :]
    return weights.clamp_min(1e-3).log()


def prompt_levels(log_c_B1HW: Tensor, mask_B1HW: Tensor, stages: int) -> list[PromptLevel]:
    """One `PromptLevel` per decoder stage, at strides 2, 4, ... 2**stages, free of the prompt's overall scale.

    The mean of the log values is taken out: what the decoder sees is the shape of the measured depth, and neither
    the unit of the scene nor the assumed focal length (both shift log C by a constant).
    """
    count = mask_B1HW.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
    mean = (log_c_B1HW * mask_B1HW).sum(dim=(1, 2, 3), keepdim=True) / count
    return push_pull((log_c_B1HW - mean) * mask_B1HW, mask_B1HW)[1 : 1 + stages]


def zero_initialised(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters set to zero: it adds nothing until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class PromptFusion(nn.Module):
    """Adds a prompt level to decoder features through convolutions whose last layer starts at zero (PromptDA)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = zero_initialised(nn.Conv2d(hidden, width, 1))

    def forward(self, x_BCHW: Tensor, level: PromptLevel, prompted_B111: Tensor) -> Tensor:
        """Unprompted samples (prompted = 0) pass unchanged."""
        prompt = level.channels().to(x_BCHW.dtype)
        return x_BCHW + prompted_B111.to(x_BCHW.dtype) * self.out(F.relu(self.conv2(F.relu(self.conv1(prompt)))))


class PromptAnchor(nn.Module):
    """Moves a prediction onto the measurements: log C + gain * push_pull(prompt - log C), guided by decoder features.

    The gain is learned, starts at zero (an untrained model ignores the prompt) and is held in [0, 1]. At 1 the
    prediction follows the scale of the prompt exactly, whatever the network does: multiplying all prompt depths by s,
    or assuming another focal length, shifts the prompt by a constant, and push-pull carries constants through.
    `softness` is learned too: how far a single point may be overruled by its surroundings.
    """

    SPEED = 20.0  # the optimiser moves a parameter by about its learning rate a step; the gain has to travel 0 -> 1

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        # Of one element, not scalars, which cannot be sharded.
        self.raw_gain = nn.Parameter(torch.zeros(1))
        self.raw_softness = nn.Parameter(torch.tensor([-5.8]))
        self.affinities = nn.ModuleList(zero_initialised(nn.Conv2d(width, 9, 1)) for width in widths)

    @property
    def gain(self) -> Tensor:
        """Between 0 (ignores the prompt) and 1 (scale-equivariant)."""
        return (self.SPEED * self.raw_gain).clamp(0, 1)

    def forward(
        self, log_c_B1hw: Tensor, prompt_log_c_B1HW: Tensor, mask_B1HW: Tensor, features: list[Tensor]
    ) -> Tensor:
        """Anchored log C at stride 2, where `log_c` and the first of `features` (strides 2, 4, …) live."""
        count = box_sum(mask_B1HW)
        mean = box_sum(prompt_log_c_B1HW * mask_B1HW) / count.clamp_min(1)
        mask = (count > 0).to(count)
        residual = (mean - log_c_B1hw) * mask
        affinities = [head(x).float() for head, x in zip(self.affinities, features, strict=True)]
        fill = push_pull(residual, mask, F.softplus(self.raw_softness.float()), affinities)[0].fill_B1HW
        return log_c_B1hw + self.gain * fill


class PromptedDepth(nn.Module):
    """Image and Sparse Metric Prompt -> depth: what all teachers share.

    The image is encoded without the prompt; the decoder adds the prompt at every stage; its output is anchored to the
    measurements. Subclasses say how to encode and to decode, and hold a `PromptAnchor` named `anchor`.
    """

    prompted = True
    stages = 5
    """Decoder stages that take the prompt: strides 2 to 32."""
    anchor: PromptAnchor

    def encode(self, image_B3HW: Tensor) -> Any:
        """Features of the image alone, RGB in [0, 1]."""
        raise NotImplementedError

    def decode(
        self, features: Any, levels: list[PromptLevel] | None, prompted_B111: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Raw output maps (B, C, H / 2, W / 2) and the decoder's features at strides 2, 4, 8 and 16."""
        raise NotImplementedError

    def forward(self, image_B3HW: Tensor, prompt_c_B1HW: Tensor | None = None) -> DepthOutput:
        """RGB in [0, 1] and the prompt as canonical inverse depth C > 0 at measured pixels, 0 elsewhere.

        Samples without any point, and `None`, are predicted from the image alone.
        """
        features, size = self.encode(image_B3HW), (image_B3HW.shape[-2], image_B3HW.shape[-1])
        if prompt_c_B1HW is None:
            raw, _ = self.decode(features, None, None)
            return depth_output(raw[:, :1].float() + LOG_C_START, raw[:, 1:], size)
        measured = torch.isfinite(prompt_c_B1HW) & (prompt_c_B1HW > 0)
        # What was measured stays float32 in a network of lower precision: bf16 would round metres by 0.4 %.
        mask = measured.float()
        prompt_log_c = torch.where(measured, prompt_c_B1HW, 1.0).float().log()
        levels = prompt_levels(prompt_log_c, mask, self.stages)
        raw, pyramid = self.decode(features, levels, mask.amax(dim=(1, 2, 3), keepdim=True))
        log_c = self.anchor(raw[:, :1].float() + LOG_C_START, prompt_log_c, mask, pyramid)
        return depth_output(log_c, raw[:, 1:], size)
