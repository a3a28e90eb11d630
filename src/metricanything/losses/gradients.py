"""Losses on the derivatives of canonical inverse depth, for labels whose edges can be trusted: rendered ones.

All see p - t alone, because derivatives are linear, and none sees a constant added to it. Shapes, masks and results are
those of `losses.depth`. A derivative counts where every pixel that it reads is supervised.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from metricanything.losses.depth import masked_mean, working

#: Horizontal and vertical Scharr operators; a ramp of 1 per pixel gives 1.
SCHARR = ((((-3, 0, 3), (-10, 0, 10), (-3, 0, 3)), ((-3, -10, -3), (0, 0, 0), (3, 10, 3))), 1 / 32)
#: The five-point Laplace operator.
LAPLACE = ((((0, 1, 0), (1, -4, 1), (0, 1, 0)),), 1.0)
Operator = tuple[tuple[tuple[tuple[int, ...], ...], ...], float]


def mage(prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 6) -> Tensor:
    """Multi-scale mean absolute gradient error: `derivative_loss` with Scharr operators and power 1."""
    return derivative_loss(prediction, target, mask, SCHARR, power=1, scales=scales)


def male(prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 6) -> Tensor:
    """Multi-scale mean absolute Laplace error: `derivative_loss` with the Laplace operator and power 1."""
    return derivative_loss(prediction, target, mask, LAPLACE, power=1, scales=scales)


def msge(prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 6) -> Tensor:
    """Multi-scale mean squared gradient error: `derivative_loss` with Scharr operators and power 2."""
    return derivative_loss(prediction, target, mask, SCHARR, power=2, scales=scales)


def derivative_loss(
    prediction: Tensor, target: Tensor, mask: Tensor, operator: Operator, *, power: int, scales: int
) -> Tensor:
    """(1 / M) sum_j (1 / N_j) sum_i |grad p_i^j - grad t_i^j|^power over M = `scales`, each half the last.

    The multi-scale derivative loss of Depth Pro (arXiv 2410.02073). |.|^power of a two-component gradient is summed
    over its components; N_j counts the 3x3 windows of scale j without an unsupervised pixel, and scales without any add
    0. See `_halve` for how scales are made.
    """
    kernels, factor = operator
    # Autocast would run the convolutions in lower precision, where differences of neighbours drown in rounding.
    with torch.autocast(prediction.device.type, enabled=False):
        difference = torch.where(mask, working(prediction), 0.0) - torch.where(mask, working(target), 0.0)
        weight = factor * difference.new_tensor(kernels)[:, None]
        window = torch.ones_like(weight[:1])
        total = difference.new_zeros(len(difference))
        for scale in range(scales):
            if min(difference.shape[-2:]) < 3:
                break
            inside = F.conv2d(mask.to(difference), window) == 9
            error = F.conv2d(difference, weight).abs().pow(power).sum(dim=1, keepdim=True)
            total = total + masked_mean(error, inside)
            if scale + 1 < scales:
                difference, mask = _halve(difference, mask)
    return total / scales


def _halve(value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Blur with the binomial (1 3 3 1) / 8 in both directions and take every second pixel, with the mask.

    The blur averages supervised pixels alone, so that nothing leaks from the others and constants stay constant. A
    coarse pixel is supervised where that was at least half of its window.
    """
    taps = value.new_tensor([1.0, 3.0, 3.0, 1.0]) / 8
    kernel = (taps[:, None] * taps)[None, None]
    share = F.conv2d(mask.to(value), kernel, stride=2, padding=1)
    known = share >= 0.5
    blurred = F.conv2d(value, kernel, stride=2, padding=1)  # the value is 0 outside the mask
    return torch.where(known, blurred / torch.where(known, share, 1.0), 0.0), known


def gradient_l1(prediction: Tensor, target: Tensor, mask: Tensor, scales: int = 4) -> Tensor:
    """Mean absolute difference of horizontal and vertical gradients at `scales` resolutions, each half the last.

    Multi-scale gradient matching (Li and Snavely, MegaDepth, CVPR 2018); a pair of pixels counts when both are
    supervised. Coarser scales take every second pixel without blur, which is cheaper than `mage` and what the compact
    networks train with.
    """
    difference = torch.where(mask, working(prediction), 0.0) - torch.where(mask, working(target), 0.0)
    total = difference.new_zeros(len(difference))
    for _ in range(scales):
        dx, mx = difference[..., 1:] - difference[..., :-1], mask[..., 1:] & mask[..., :-1]
        dy, my = difference[..., 1:, :] - difference[..., :-1, :], mask[..., 1:, :] & mask[..., :-1, :]
        total = total + masked_mean(dx.abs(), mx) + masked_mean(dy.abs(), my)
        difference, mask = difference[..., ::2, ::2], mask[..., ::2, ::2]
    return total / scales
