"""Which prompt each training sample gets: a weighted mixture of patterns, noise on some, and sometimes none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns import get_pattern
from metricanything.patterns.drawing import Pattern, split
from metricanything.patterns.noise import Noise
from metricanything.patterns.uniform import Uniform


@dataclass(frozen=True)
class PromptMixture:
    """Draws a pattern for every sample; a metric sample goes without a prompt with probability `dropout`.

    The default is the paper's recipe: uniform masking of the pair's own depth.
    """

    patterns: tuple[tuple[float, Pattern], ...] = ((1.0, Uniform()),)
    """Relative weight and pattern."""
    dropout: float = 0.1
    noise: tuple[tuple[float, Noise], ...] = ()
    """Probability that a sample's prompt is disturbed, and how; independent of each other, applied in this order."""

    @classmethod
    def of(
        cls, weights: Mapping[str, float], dropout: float = 0.1, noise: tuple[tuple[float, Noise], ...] = ()
    ) -> PromptMixture:
        """The mixture of patterns by name, `{"uniform": 3, "lidar+outliers-5": 1}`; InputError for unknown names."""
        return cls(tuple((weight, get_pattern(name)) for name, weight in weights.items()), dropout, noise)

    def draw(
        self, depth_BHW: Tensor, metric_B: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None
    ) -> Tensor:
        """Prompt depth float32 (B, H, W) in metres, NaN without a point, of depth maps (metres; NaN, inf unknown).

        `metric_B` bool. `image_B3HW` float32 in [0, 1] is needed by keypoints alone. The generator is on the CPU, and
        patterns are chosen there: nothing is read back from the device of the depth maps.
        """
        batch, device = len(depth_BHW), depth_BHW.device
        of_choice, of_patterns, of_noise = split(generator, 3)
        weights = torch.tensor([weight for weight, _ in self.patterns], dtype=torch.float64)
        chosen = torch.multinomial(weights, batch, replacement=True, generator=of_choice)
        dropped = (torch.rand(batch, generator=of_choice) < self.dropout).to(device) & metric_B.to(device)
        prompt_BHW = torch.full_like(depth_BHW, math.nan)
        for number, ((_, pattern), stream) in enumerate(
            zip(self.patterns, split(of_patterns, len(self.patterns)), strict=True)
        ):
            rows = (chosen == number).nonzero()[:, 0].to(device)
            if len(rows):
                image = None if image_B3HW is None else image_B3HW[rows]
                prompt_BHW[rows] = pattern.draw(depth_BHW[rows], stream, image)
        for (probability, noise), stream in zip(self.noise, split(of_noise, len(self.noise)), strict=True):
            rows = (torch.rand(batch, generator=stream) < probability).nonzero()[:, 0].to(device)
            prompt_BHW[rows] = noise.disturb(prompt_BHW[rows], depth_BHW[rows], stream)
        return torch.where(dropped[:, None, None], math.nan, prompt_BHW)
