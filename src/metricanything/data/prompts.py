"""Which prompt each training sample gets: a weighted mixture of patterns, and sometimes none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns import Pattern


@dataclass(frozen=True)
class PromptMixture:
    """Draws a pattern for every sample; a metric sample goes without a prompt with probability `dropout`."""

    patterns: tuple[tuple[float, Pattern], ...]
    dropout: float = 0.1

    def draw(self, depth_BHW: Tensor, metric_B: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W) prompt pixels of a batch of depth maps (metres; NaN and inf unknown)."""
        weights = torch.tensor([weight for weight, _ in self.patterns])
        chosen = torch.multinomial(weights, len(depth_BHW), replacement=True, generator=generator)
        dropped = (torch.rand(len(depth_BHW), generator=generator) < self.dropout) & metric_B.cpu()
        mask_BHW = torch.zeros(depth_BHW.shape, dtype=torch.bool, device=depth_BHW.device)
        for i, (pattern, drop) in enumerate(zip(chosen.tolist(), dropped.tolist(), strict=True)):
            if not drop:
                mask_BHW[i] = self.patterns[pattern][1].draw(depth_BHW[i : i + 1], generator)[0]
        return mask_BHW
