"""Losses on canonical inverse depth C = f_px / (W D), or on its logarithm.

In C, near surfaces weigh more, which is what Depth Pro trains with; an error of e in log C is a relative depth error of
about e, near and far alike, which is what the compact networks use. Both are unitless.

What holds for every loss in this package: prediction and target are (B, 1, H, W) float of any precision, computed in at
least float32, the mask is a bool (B, 1, H, W) of supervised pixels, and the result is one value per image (B,), zero
where nothing is supervised. Prediction and target may be anything, NaN and inf too, where the mask is False: they
change neither a loss nor a gradient. `image_mean` makes one number of them. Nothing is checked and nothing raised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def working(value: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is that already: sums over an image overflow float16."""
    return value if value.dtype == torch.float64 else value.float()


def masked_mean(value_B1HW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Mean over the masked pixels of each image (B,); zero where there are none."""
    total = torch.where(mask_B1HW, working(value_B1HW), 0.0).sum(dim=(1, 2, 3))
    return total / mask_B1HW.sum(dim=(1, 2, 3)).clamp_min(1)


def image_mean(value_B: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Mean () of per-image losses over the images with any masked pixel; zero without one."""
    counts = mask_B1HW.flatten(1).any(dim=1)
    return torch.where(counts, value_B, 0.0).sum() / counts.sum().clamp_min(1)


def trimmed_l1(prediction: Tensor, target: Tensor, mask: Tensor, keep_B: Tensor) -> Tensor:
    """Mean absolute error (1 / n) sum |p - t| over the n = ceil(keep N) of N supervised pixels with the smallest error.

    The device against noisy labels of Depth Pro (arXiv 2410.02073: the worst 20 % of every real image are
    dropped) and MetricAnything (as reported in DrivingDepth, arXiv 2606.31488, equation 9). `keep_B` (B,) lies in
    (0, 1]: 0.8 for reconstructed and captured labels; 1, the plain mean absolute error, for rendered ones.
    """
    error = (torch.where(mask, working(prediction), 0.0) - torch.where(mask, working(target), 0.0)).abs()
    return _trimmed_mean(error, mask, keep_B)


def trimmed_relative(prediction: Tensor, target: Tensor, mask: Tensor, keep_B: Tensor) -> Tensor:
    """Mean relative error |D / D* - 1| of depths given as log C, D / D* = exp(t - p), trimmed as in `trimmed_l1`.

    What AbsRel measures: where the depth is uncertain, its least is a depth nearer than the median, as one that is
    three times too large costs three times as much as one that is three times too small. Beyond a factor of e it goes
    on linearly, so that gradients stay below e.
    """
    ahead = torch.where(mask, working(target), 0.0) - torch.where(mask, working(prediction), 0.0)
    error = ahead.clamp_max(1).expm1().abs() + math.e * (ahead - 1).clamp_min(0)
    return _trimmed_mean(error, mask, keep_B)


def _trimmed_mean(error: Tensor, mask: Tensor, keep_B: Tensor) -> Tensor:
    """Mean of the ceil(keep N) smallest of N errors."""
    # Unsupervised pixels go to the end, where nothing is kept.
    ordered = torch.where(mask, error, torch.inf).flatten(1).sort(dim=1, stable=True).values
    count = (mask.flatten(1).sum(dim=1) * keep_B).ceil().long()
    kept = torch.arange(ordered.shape[1], device=ordered.device) < count[:, None]
    return torch.where(kept, ordered, 0.0).sum(dim=1) / count.clamp_min(1)


def standardise(value: Tensor, mask: Tensor, *, divide: bool = True) -> tuple[Tensor, Tensor]:
    """(v - m) / s with the median m and the mean absolute deviation s = mean |v - m| of each image's masked pixels.

    Depth Pro, after MiDaS (arXiv 1907.01341). Any a v + b with a > 0 gives the same.
    `divide=False` leaves out s and so removes b alone, which in log C is a change of unit. Also returned is a bool
    (B,), False for images that cannot be standardised because they are empty or, up to rounding, constant; their
    values, and those outside the mask, are 0 without gradient.
    """
    value = working(value)
    ordered = torch.where(mask, value, torch.inf).flatten(1).sort(dim=1, stable=True).values
    count = mask.flatten(1).sum(dim=1)
    middle = torch.stack([(count - 1).clamp_min(0) // 2, count // 2 * (count > 0)], dim=1)
    usable = count > 0
    median = torch.where(usable, ordered.gather(1, middle).mean(dim=1), 0.0).view(-1, 1, 1, 1)
    centred = torch.where(mask, value - median, 0.0)
    if not divide:
        return centred, usable
    deviation = masked_mean(centred.abs(), mask)
    rounding = 16 * torch.finfo(value.dtype).eps * torch.where(mask, value.detach().abs(), 0.0).amax(dim=(1, 2, 3))
    usable = usable & (deviation.detach() > rounding)
    scaled = centred / torch.where(usable, deviation, 1.0).view(-1, 1, 1, 1)
    return torch.where(usable.view(-1, 1, 1, 1), scaled, 0.0), usable


def ssi_l1(prediction: Tensor, target: Tensor, mask: Tensor, keep_B: Tensor) -> Tensor:
    """`trimmed_l1` of prediction and target after each was standardised: blind to scale > 0 and shift of either.

    SSI-MAE of Depth Pro, for labels known up to scale, or up to scale and shift of the inverse depth.
    Zero, without gradient, for images whose prediction or target is constant.
    """
    prediction, usable_p = standardise(prediction, mask)
    target, usable_t = standardise(target, mask)
    return trimmed_l1(prediction, target, mask & (usable_p & usable_t).view(-1, 1, 1, 1), keep_B)


def mask_bce(logit: Tensor, finite: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of "this pixel has a finite depth" where that is known."""
    logit = torch.where(known, working(logit), 0.0)
    return masked_mean(F.binary_cross_entropy_with_logits(logit, finite.to(logit), reduction="none"), known)
