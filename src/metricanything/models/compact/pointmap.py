"""The compact *Prompt-Free Metric Point Map Model*: image -> affine points, mask, metric scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.models.compact.decoder import Decoder
from metricanything.models.compact.encoder import CompactEncoder, uv_grid
from metricanything.models.compact.teacher import DepthConfig


@dataclass(frozen=True)
class PointOutput:
    """Points (B, 3, H, W) up to scale and z-shift, mask logit (B, 1, H, W), log metric scale (B,).

    Metric points are exp(log_scale) * (points + (0, 0, shift)), with the shift that makes them agree with the pixels
    (`core.geometry.recover_focal_shift`, or `recover_shift` where the camera is known).
    """

    points_B3HW: Tensor
    mask_logit_B1HW: Tensor
    log_scale_B: Tensor


class CompactPointMap(nn.Module):
    """One decoder for points and mask; the metric scale comes from the pooled image tokens."""

    prompted = False
    Config = DepthConfig

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.token_width
        self.encoder = CompactEncoder(config.encoder)
        self.decoder = Decoder(config.encoder, config.decoder, channels=4, prompted=False)
        self.scale = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, image_B3HW: Tensor) -> PointOutput:
        """RGB in [0, 1] -> points with the exponential remap z = exp(.), xy = z * (.), as in MoGe-2.

        The plane coordinates start from those of a camera whose focal length is half the image diagonal.
        """
        features = self.encoder(image_B3HW)
        h, w = image_B3HW.shape[-2:]
        # In a network of lower precision too, pixels keep their coordinates.
        raw = F.interpolate(self.decoder(features)[0].float(), size=(h, w), mode="bilinear", align_corners=False)
        z = raw[:, 2:3].exp()
        points = torch.cat([(raw[:, :2] + uv_grid(h, w, raw)) * z, z], dim=1)
        return PointOutput(points, raw[:, 3:], self.scale(features[-1].mean(dim=(2, 3)))[:, 0])
