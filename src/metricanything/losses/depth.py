"""Losses on log canonical inverse depth.

An error of e in log C is a relative depth error of about e, near and far alike. All functions take (B, 1, H, W)
tensors and a bool mask of supervised pixels, and return one value per image (B,), zero where nothing is supervised.
Prediction and target may be anything, NaN and inf too, where the mask is False.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_mean(value_B1HW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Mean over the masked pixels of each image (B,); zero where there are none."""
    return torch.where(mask_B1HW, value_B1HW, 0.0).sum(dim=(1, 2, 3)) / mask_B1HW.sum(dim=(1, 2, 3)).clamp_min(1)


def trimmed_l1(prediction: Tensor, target: Tensor, mask: Tensor, keep_B: Tensor) -> Tensor:
    """Mean absolute error over the fraction `keep_B` of supervised pixels with the smallest error.

    The device against noisy labels of Depth Pro (arXiv 2410.02073) and MetricAnything: keep 0.8 for real labels, 1 for
    rendered ones.
    """
    error = torch.where(mask, torch.where(mask, prediction - target, 0.0).abs(), torch.inf).flatten(1)
    ordered = error.detach().sort(dim=1).values
    count = (mask.flatten(1).sum(dim=1) * keep_B).ceil().long().clamp(1, error.shape[1])
    limit = ordered.gather(1, count[:, None] - 1)
    kept = (error <= limit) & torch.isfinite(error)
    return torch.where(kept, error, 0.0).sum(dim=1) / kept.sum(dim=1).clamp_min(1)


def gradient_l1(prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Mean absolute difference of horizontal and vertical gradients at `scales` resolutions, each half the last.

    Multi-scale gradient matching (Li and Snavely, MegaDepth, CVPR 2018); a pair of pixels counts when both are
    supervised. Coarser scales take every second pixel, so that supervision never mixes with unknown pixels.
    """
    difference = torch.where(mask, prediction - target, 0.0)
    total = prediction.new_zeros(len(prediction))
    for _ in range(scales):
        dx, mx = difference[..., 1:] - difference[..., :-1], mask[..., 1:] & mask[..., :-1]
        dy, my = difference[..., 1:, :] - difference[..., :-1, :], mask[..., 1:, :] & mask[..., :-1, :]
        total = total + masked_mean(dx.abs(), mx) + masked_mean(dy.abs(), my)
        difference, mask = difference[..., ::2, ::2], mask[..., ::2, ::2]
    return total / scales


def mask_bce(logit: Tensor, finite: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of "this pixel has a finite depth" where that is known."""
    logit = torch.where(known, logit, 0.0)
    return masked_mean(F.binary_cross_entropy_with_logits(logit, finite.to(logit), reduction="none"), known)
