"""Losses on point maps known up to scale and z-shift (MoGe, arXiv 2410.19115; MoGe-2, arXiv 2507.02546).

Points are (B, 3, H, W) in the camera frame, masks bool (B, 1, H, W); losses are per image (B,). Points may be anything,
NaN and inf too, where the mask is False.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metricanything.losses.depth import masked_mean, working


def align_scale_shift(points: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scale a (B,) and z-shift b (B,) that minimise the sum of w^2 |a p + (0, 0, b) - q|^2 with w = 1 / q_z.

    The weighted least-squares solution in closed form. Where it is degenerate or a <= 0, there is no alignment: (0, 0)
    is returned, without gradient, and the losses below count nothing.
    """
    points, target = working(points), working(target)
    weight = (mask / torch.where(mask, target[:, 2:], 1.0).clamp_min(1e-3)).square()
    points, target = torch.where(mask, points, 0.0), torch.where(mask, target, 0.0)
    pp = (weight * points.square()).sum(dim=(1, 2, 3))
    pq = (weight * points * target).sum(dim=(1, 2, 3))
    w = weight.sum(dim=(1, 2, 3))
    pz = (weight * points[:, 2:]).sum(dim=(1, 2, 3))
    qz = (weight * target[:, 2:]).sum(dim=(1, 2, 3))
    determinant = pp * w - pz * pz
    good = determinant > 1e-6 * (pp * w).clamp_min(1e-12)
    safe = torch.where(good, determinant, 1.0)
    a = (pq * w - pz * qz) / safe
    b = (pp * qz - pz * pq) / safe
    good = good & (a > 0)
    return torch.where(good, a, 0.0), torch.where(good, b, 0.0)


def global_points(points: Tensor, target: Tensor, mask: Tensor, scale_B: Tensor, shift_B: Tensor) -> Tensor:
    """Mean over supervised pixels of |a p + (0, 0, b) - q|_1 / q_z after the given alignment; zero without one."""
    points, target, scale_B, shift_B = working(points), working(target), working(scale_B), working(shift_B)
    offset = torch.stack([torch.zeros_like(shift_B), torch.zeros_like(shift_B), shift_B], dim=1)
    aligned = scale_B.view(-1, 1, 1, 1) * torch.where(mask, points, 1.0) + offset[:, :, None, None]
    safe = torch.where(mask, target, 1.0)
    error = (aligned - safe).abs().sum(dim=1, keepdim=True) / safe[:, 2:].clamp_min(1e-3)
    return torch.where(scale_B > 0, masked_mean(error, mask), 0.0)


def metric_scale(log_scale_B: Tensor, scale_B: Tensor, metric_B: Tensor) -> Tensor:
    """Squared error of the predicted log scale against that of the (detached) alignment, where labels are metric.

    Zero where there is no alignment.
    """
    known = metric_B & (scale_B > 0)
    target = torch.where(known, working(scale_B).detach(), 1.0).log()
    return torch.where(known, (working(log_scale_B) - target).square(), 0.0)
