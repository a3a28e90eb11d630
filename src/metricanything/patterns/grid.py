"""A regular low-resolution grid: super-resolution of a coarse depth sensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns.uniform import known, log_uniform


@dataclass(frozen=True)
class Grid:
    """One pixel per k x k block, at the positions of a k-times smaller map.

    Positions as in Prior Depth Anything's `downscale_k`: (H // k, W // k) samples from the first to the last row and
    column (align_corners). Values are those of the sampled pixels; the original interpolates between the two nearest.
    """

    factors: tuple[int, int] = (4, 32)

    def draw(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W): grid pixels whose depth is known."""
        _, h, w = depth_BHW.shape
        mask_BHW = torch.zeros(depth_BHW.shape, dtype=torch.bool, device=depth_BHW.device)
        for mask_HW in mask_BHW:
            k = log_uniform(*self.factors, generator)
            rows = torch.linspace(0, h - 1, max(int(h // k), 1), dtype=torch.float64).round().long()
            columns = torch.linspace(0, w - 1, max(int(w // k), 1), dtype=torch.float64).round().long()
            mask_HW[rows[:, None], columns[None]] = True
        return mask_BHW & known(depth_BHW)
