"""Scan lines of a virtual spinning LiDAR."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns.drawing import Streams, copy_points, log_uniform


@dataclass(frozen=True)
class LidarLines:
    """Beams of an n-line scanner in a virtual camera whose focal length is the image height.

    The geometry of OMNI-DC's virtual patterns and Prior Depth Anything's `LiDAR_n`: pitch from -0.5 to 0.5 rad in n
    lines, 200 columns over a yaw of +-pi / 2.1, centred. With `lines` a range, n is log-uniform for every image.
    """

    lines: tuple[int, int] = (4, 64)
    columns: int = 200
    jitter: float = 0.0
    """Standard deviation in radians of a pitch and yaw offset of the whole scanner, drawn for every image."""
    rounded: bool = False
    """A beam belongs to the pixel it falls into; True rounds its coordinates instead, as both originals do, which moves
    the pattern by half a pixel."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W): the known depths of the pixels hit by a beam."""
        _, h, w = depth_BHW.shape
        streams = Streams(generator, len(depth_BHW))
        indices = []
        for n, stream in zip(log_uniform(*self.lines, streams.rand()).round().tolist(), streams.images, strict=True):
            offset = torch.randn(2, generator=stream, dtype=torch.float64) * self.jitter
            indices.append(self._hits(int(n), h, w, offset).to(depth_BHW.device))
        return copy_points(depth_BHW, indices)

    def _hits(self, lines: int, h: int, w: int, offset: Tensor) -> Tensor:
        """Flat indices of the pixels hit, some of them more than once."""
        half = math.pi / 2.1
        pitch = torch.linspace(-0.5, 0.5, lines, dtype=torch.float64) + offset[0]
        yaw = torch.linspace(-half, half, self.columns, dtype=torch.float64) + offset[1]
        pitch, yaw = torch.meshgrid(pitch, yaw, indexing="ij")
        ahead = torch.cos(pitch) * torch.cos(yaw)
        to_pixel = torch.round if self.rounded else torch.floor
        u = to_pixel(h * torch.cos(pitch) * torch.sin(yaw) / ahead + w / 2)
        v = to_pixel(h * torch.sin(pitch) / ahead + h / 2)
        hit = (ahead > 0) & (u >= 0) & (u < w) & (v >= 0) & (v < h)
        return (v[hit] * w + u[hit]).long()
