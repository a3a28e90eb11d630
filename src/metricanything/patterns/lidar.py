"""Scan lines of a virtual spinning LiDAR."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns.uniform import known, log_uniform


@dataclass(frozen=True)
class LidarLines:
    """Beams of an n-line scanner in a virtual camera whose focal length is the image height.

    The geometry of OMNI-DC's virtual patterns and Prior Depth Anything's `LiDAR_n`: pitch from -0.5 to 0.5 rad in n
    lines, 200 columns over a yaw of +-pi / 2.1, centred. Here a beam belongs to the pixel it falls into; both originals
    round, which moves the pattern by half a pixel. With `lines` a range, n is log-uniform for every image.
    """

    lines: tuple[int, int] = (4, 64)
    columns: int = 200
    jitter: float = 0.0
    """Standard deviation in radians of a pitch and yaw offset of the whole scanner, drawn for every image."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W): the pixels hit by a beam whose depth is known."""
        _, h, w = depth_BHW.shape
        mask_BHW = torch.zeros(depth_BHW.shape, dtype=torch.bool, device=depth_BHW.device)
        for mask_HW in mask_BHW:
            n = round(log_uniform(*self.lines, generator))
            offset = torch.randn(2, generator=generator, dtype=torch.float64) * self.jitter
            pitch = torch.linspace(-0.5, 0.5, n, dtype=torch.float64) + offset[0]
            half = math.pi / 2.1
            yaw = torch.linspace(-half, half, self.columns, dtype=torch.float64) + offset[1]
            pitch, yaw = torch.meshgrid(pitch, yaw, indexing="ij")
            ahead = torch.cos(pitch) * torch.cos(yaw)
            u = torch.floor(h * torch.cos(pitch) * torch.sin(yaw) / ahead + w / 2)
            v = torch.floor(h * torch.sin(pitch) / ahead + h / 2)
            hit = (ahead > 0) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
            index = (v[hit] * w + u[hit]).long().to(mask_HW.device)
            mask_HW.view(-1)[index] = True
        return mask_BHW & known(depth_BHW)
