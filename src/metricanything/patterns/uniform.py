"""Uniform masking: the paper's Sparse Metric Prompt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def known(depth_BHW: Tensor) -> Tensor:
    """bool (B, H, W): finite positive depth."""
    return torch.isfinite(depth_BHW) & (depth_BHW > 0)


def log_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """One number whose logarithm is uniform between those of `low` and `high`."""
    t = float(torch.rand((), generator=generator))
    return float(low * (max(high, low) / low) ** t)


@dataclass(frozen=True)
class Uniform:
    """Known pixels at random, without replacement; the count is log-uniform, the same law for every image.

    MetricAnything (arXiv 2601.22054) draws about 1 % of the pixels uniformly; the bounds here are ours.
    """

    points: tuple[int, int | None] = (100, None)
    """Fewest and most points; None = `max_fraction` of the pixels."""
    max_fraction: float = 0.02

    def draw(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W); an image with fewer known pixels than wanted gives them all."""
        valid_BN = known(depth_BHW).flatten(1)
        low, high = self.points
        most = min(high or valid_BN.shape[1], self.max_fraction * valid_BN.shape[1])
        mask_BN = torch.zeros_like(valid_BN)
        for valid, mask in zip(valid_BN, mask_BN, strict=True):
            index = valid.nonzero()[:, 0]
            count = round(log_uniform(low, most, generator))
            mask[index[_choose(len(index), count, generator).to(index.device)]] = True
        return mask_BN.view_as(depth_BHW)


def _choose(n: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` distinct numbers below n, in time proportional to `count` when it is much smaller than n."""
    if count >= n:
        return torch.arange(n)
    if 4 * count > n:
        return torch.randperm(n, generator=generator)[:count]
    drawn = torch.unique(torch.randint(n, (count + count // 2 + 16,), generator=generator))
    while len(drawn) < count:
        drawn = torch.unique(torch.cat([drawn, torch.randint(n, (count,), generator=generator)]))
    return drawn[torch.randperm(len(drawn), generator=generator)[:count]]
