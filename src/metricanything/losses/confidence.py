"""A confidence that the network learns from its own errors."""

from __future__ import annotations

import torch
from torch import Tensor

from metricanything.losses.depth import masked_mean, working


def confidence_l1(
    prediction: Tensor, target: Tensor, mask: Tensor, log_confidence: Tensor, strength: float = 1.0
) -> Tensor:
    """Mean over supervised pixels of c |p - t| - strength log c, with the confidence c = exp(`log_confidence`) > 0.

    The term of DrivingDepth (arXiv 2606.31488) and DUSt3R (arXiv 2312.14132). For a given error it is least
    at c = strength / |p - t|; with strength 1 it is the negative logarithm of a Laplace density of scale 1 / c, without
    its constant log 2. It can be negative. Shapes, masks and result are those of `losses.depth`.
    """
    error = (torch.where(mask, working(prediction), 0.0) - torch.where(mask, working(target), 0.0)).abs()
    log_c = torch.where(mask, working(log_confidence), 0.0)
    return masked_mean(log_c.exp() * error - strength * log_c, mask)
