"""How a sparse metric prompt enters the decoder: a pyramid of planes, zero-initialised fusion, and the anchor.

Everything here works in log canonical inverse depth, log C = log(f_px / (W D)), and on maps that hold a value only
where there is a point. Such maps are never interpolated: going down, moments of the points are summed; what a finer
level does not know continues the planes of the coarser one (`models.planes`). Resizing a sparse map bilinearly is what
breaks low-resolution prompting on truly sparse prompts.

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
from metricanything.models.planes import enlarged, moments, spread


@dataclass(frozen=True)
class SparseMap:
    """A prompt as the network uses it: moments of its points at stride 2, free of its overall scale.

    The mean of the log values is taken out: what the network sees is the shape of the measured depth, and neither the
    unit of the scene nor the assumed focal length (both shift log C by a constant).
    """

    moments: Tensor
    """Those of `planes.moments` for two values: C / exp(log_mean) - 1 and log C - log_mean."""
    mask_B1hw: Tensor
    log_mean: Tensor
    """(B, 1, 1, 1), like the two bounds."""
    low: Tensor
    """Of log C - log_mean: where the planes of this prompt are believed."""
    high: Tensor

    @classmethod
    def of(cls, log_c_B1HW: Tensor, mask_B1HW: Tensor) -> SparseMap:
        """From log C at the points; values elsewhere must be finite. Sides even."""
        count = mask_B1HW.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)
        mean = (log_c_B1HW * mask_B1HW).sum(dim=(1, 2, 3), keepdim=True) / count
        log = (log_c_B1HW - mean) * mask_B1HW
        mask = F.max_pool2d(mask_B1HW, 2)
        low, high = (f(log, dim=(1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
        return cls(moments(torch.cat([log.expm1(), log], dim=1), mask_B1HW), mask, mean, low - REACH, high + REACH)

    def log(self, value: Tensor) -> Tensor:
        """log C - log_mean of the first value, within reach of the measurements: planes may cross 0 where none is."""
        return (1 + value).clamp(self.low.exp(), self.high.exp()).log()


REACH = 0.4
"""How far (in log C) planes may leave the range of the measurements."""


@dataclass(frozen=True)
class PromptLevel:
    """A prompt at one stride: log C of its planes, what the coarser planes gave there, points, smoothed number."""

    fill_B1HW: Tensor
    expected_B1HW: Tensor
    mask_B1HW: Tensor
    weight_B1HW: Tensor

    def channels(self) -> Tensor:
        """(B, 4, H, W) network input: fill, what the points here changed of it, mask, log(1 + number of points)."""
        changed = self.fill_B1HW - self.expected_B1HW
        return torch.cat([self.fill_B1HW, changed, self.mask_B1HW, torch.log1p(self.weight_B1HW)], dim=1)


def prompt_levels(prompt: SparseMap, stages: int) -> list[PromptLevel]:
    """One `PromptLevel` per decoder stage, at strides 2, 4, ... 2**stages."""
    of_c = prompt.moments[:, [0, 1, 2, 3, 4, 5, 6, 8, 10]]  # the planes of the first value alone
    levels, mask = [], prompt.mask_B1hw
    for planes in spread(of_c)[:stages]:
        fill, expected = prompt.log(planes.value), prompt.log(planes.expected)
        levels.append(PromptLevel(fill, expected, mask, planes.weight_B1hw))
        mask = F.max_pool2d(mask, 2, ceil_mode=True)
    return levels


def zero_initialised(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters set to zero: it adds nothing until it is trained."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class PromptFusion(nn.Module):
    """Adds a prompt level to decoder features through convolutions whose last layer starts at zero (PromptDA)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, hidden, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.out = zero_initialised(nn.Conv2d(hidden, width, 1))

    def forward(self, x_BCHW: Tensor, level: PromptLevel, prompted_B111: Tensor) -> Tensor:
        """Unprompted samples (prompted = 0) pass unchanged."""
        prompt = level.channels().to(x_BCHW.dtype)
        return x_BCHW + prompted_B111.to(x_BCHW.dtype) * self.out(F.relu(self.conv2(F.relu(self.conv1(prompt)))))


class PromptAnchor(nn.Module):
    """Moves a prediction onto the measurements, guided by decoder features.

    Two answers are mixed pixel by pixel with learned weights: the planes of the measurements alone, which are right on
    smooth surfaces, and the prediction plus the planes of what it misses at the measurements, which knows the borders
    of objects and what no point says. Points are weighed by learned trust: outliers, and surfaces that the camera does
    not see. `gain` is learned, starts at zero (an untrained model ignores the prompt) and is held in [0, 1]. At 1 the
    result follows the scale of the prompt exactly, whatever the network does: multiplying all prompt depths by s, or
    assuming another focal length, shifts log C by a constant, and both answers carry constants through.
    """

    SPEED = 20.0  # the optimiser moves a parameter by about its learning rate a step; the gain has to travel 0 -> 1
    TRUST, MIX = 2.0, -1.0  # before training: all points are trusted alike, the planes of the measurements lead

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        # Of one element, not scalars, which cannot be sharded.
        self.raw_gain = nn.Parameter(torch.zeros(1))
        self.raw_softness = nn.Parameter(torch.tensor([-5.8]))
        self.raw_tilt = nn.Parameter(torch.tensor([-2.25]))
        self.affinities = nn.ModuleList(zero_initialised(nn.Conv2d(width, 9, 1)) for width in widths)
        self.weighing = zero_initialised(nn.Conv2d(widths[0], 2, 1))
        self.borders = zero_initialised(nn.Conv2d(widths[0], 4 * 9, 1))

    @property
    def gain(self) -> Tensor:
        """Between 0 (ignores the prompt) and 1 (scale-equivariant)."""
        return (self.SPEED * self.raw_gain).clamp(0, 1)

    def forward(self, log_c_B1hw: Tensor, prompt: SparseMap, features: list[Tensor]) -> Tensor:
        """Anchored log C at stride 2, where `log_c` and the first of `features` (strides 2, 4, …) live."""
        affinities = [head(x).float() for head, x in zip(self.affinities, features, strict=True)]
        trust, mix = self.weighing(features[0]).float().split(1, dim=1)
        predicted = log_c_B1hw - prompt.log_mean
        # Within a cell the prediction is one value: the moments of what it misses follow from those of the points.
        n, x, y = prompt.moments[:, :3].split(1, dim=1)
        c, log, cx, logx, cy, logy = prompt.moments[:, 6:].split(1, dim=1)
        missed = [c, log - n * predicted, cx, logx - x * predicted, cy, logy - y * predicted]
        weighted = (trust + self.TRUST).sigmoid() * torch.cat([prompt.moments[:, :6], *missed], dim=1)
        softness, tilt = F.softplus(self.raw_softness.float()), F.softplus(self.raw_tilt.float())
        planes, miss = spread(weighted, affinities, softness, tilt)[0].value.split(1, dim=1)
        mix = (mix + self.MIX).sigmoid()
        anchored = (1 - mix) * prompt.log(planes) + mix * (predicted + miss)
        return log_c_B1hw + self.gain * (anchored - predicted)

    def enlarge(self, log_c_B1hw: Tensor, features_BChw: Tensor) -> Tensor:
        """Log C at twice the resolution: bilinear before training, later with borders where the features see them."""
        return enlarged(log_c_B1hw, self.borders(features_BChw).float())


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
            raw, pyramid = self.decode(features, None, None)
            return depth_output(self.anchor.enlarge(raw[:, :1].float() + LOG_C_START, pyramid[0]), raw[:, 1:], size)
        measured = torch.isfinite(prompt_c_B1HW) & (prompt_c_B1HW > 0)
        # What was measured stays float32 in a network of lower precision: bf16 would round metres by 0.4 %.
        mask = measured.float()
        prompt_log_c = torch.where(measured, prompt_c_B1HW, 1.0).float().log()
        prompt = SparseMap.of(prompt_log_c, mask)
        prompted = mask.amax(dim=(1, 2, 3), keepdim=True)
        raw, pyramid = self.decode(features, prompt_levels(prompt, self.stages), prompted)
        # A sample without points has nothing to be anchored to.
        log_c = raw[:, :1].float() + LOG_C_START
        anchored = self.anchor(log_c, prompt, pyramid)
        log_c = torch.where(prompted > 0, anchored, log_c)
        return depth_output(self.anchor.enlarge(log_c, pyramid[0]), raw[:, 1:], size)
