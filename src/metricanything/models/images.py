"""How images are normalised before a network sees them."""

from __future__ import annotations

import torch
from torch import Tensor

#: Mean and standard deviation of ImageNet's training images, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(
    image_B3HW: Tensor, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> Tensor:
    """(image - mean) / std for every channel."""
    mean_311, std_311 = (
        torch.tensor(x, dtype=image_B3HW.dtype, device=image_B3HW.device).view(3, 1, 1) for x in (mean, std)
    )
    return (image_B3HW - mean_311) / std_311
