"""Uniform masking: the paper's Sparse Metric Prompt; and its two limits, every pixel and none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns.drawing import Streams, copy_points, known, log_uniform

_PROBES = 1024  # pixels that tell how much of a map is known, to a few per cent
_MARGIN = 1.1


@dataclass(frozen=True)
class Uniform:
    """Known pixels at random, without replacement; the count is log-uniform, the same law for every image.

    MetricAnything (arXiv 2601.22054) draws about 1 % of the pixels uniformly; the bounds here are ours. A fixed count
    is how Marigold-DC (ScanNet and NYU 500, iBims-1 1000 points), NYU 500/200/100/50/5 and Prior Depth Anything's "N"
    are defined.
    """

    points: tuple[int, int | None] = (100, None)
    """Fewest and most points; None = `max_fraction` of the pixels."""
    max_fraction: float = 0.02
    match_density: bool = False
    """OMNI-DC's virtual patterns: counts are for a fully known map and scaled by the known share, at least 5."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W); an image with fewer known pixels than wanted gives them all."""
        depth_BN = depth_BHW.flatten(1)
        size, (low, high) = depth_BN.shape[1], self.points
        most = min(high or size, self.max_fraction * size)
        streams = Streams(generator, len(depth_BN))
        count_B = log_uniform(low, most, streams.rand()).round().long()
        largest = min(max(count_B.tolist(), default=0), size)
        count_B = count_B.to(depth_BHW.device)
        if self.match_density:
            count_B = (known(depth_BN).sum(dim=1) * count_B / size).round().long().clamp(min=5)
            largest = min(max(largest, 5), size)
        if depth_BHW.device.type == "cpu":
            return copy_points(depth_BHW, map(choose, depth_BN, count_B.tolist(), streams.images))
        return choose_by_keys(depth_BN, count_B, largest, generator).view_as(depth_BHW)


def choose(depth_N: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of `count` distinct known pixels of a flat depth map on the CPU; of all where there are fewer.

    Random pixels are looked up until enough are known, which touches few of the pixels: a tenth of the time of listing
    all known ones. Every set of known pixels is as likely as any other of its size, and so is every part of it.
    """
    size = len(depth_N)
    share = float(known(depth_N[torch.randint(size, (_PROBES,), generator=generator)]).double().mean())
    distinct = _MARGIN * count / max(share, 1e-3) + 64
    found = torch.empty(0, dtype=torch.long)
    if distinct < size / 4:
        guesses = math.ceil(-size * math.log1p(-distinct / size))  # as many hold that many distinct ones on average
        guessed = torch.randint(size, (guesses,), generator=generator, dtype=torch.int32)
        found = torch.unique(guessed)  # sorted: looking them up in order of address is several times faster
        found = found[known(depth_N.index_select(0, found))]
    if len(found) < count:
        found = known(depth_N).nonzero()[:, 0]
    keep = torch.ones(len(found), dtype=torch.bool)
    keep[torch.randperm(len(found), generator=generator)[count:]] = False
    return found[keep]


def choose_by_keys(depth_BN: Tensor, count_B: Tensor, largest: int, generator: torch.Generator) -> Tensor:
    """Prompts (B, N) of `count_B` distinct known pixels, none above `largest`; for devices with many lanes.

    Every pixel gets a random key and the smallest keys of the known pixels win. All images at once, and nothing is
    read back from the device, which would stall it.
    """
    keys_BN = _keys(depth_BN.shape, depth_BN.device, generator)
    keys_BN = torch.where(known(depth_BN), keys_BN, 2.0)
    index_BP = keys_BN.topk(largest, dim=1, largest=False).indices
    values_BP = depth_BN.gather(1, index_BP)
    wanted_BP = torch.arange(largest, device=depth_BN.device) < count_B[:, None]
    values_BP = torch.where(wanted_BP & known(values_BP), values_BP, math.nan)
    return torch.full_like(depth_BN, math.nan).scatter(1, index_BP, values_BP)


def _keys(shape: torch.Size, device: torch.device, generator: torch.Generator) -> Tensor:
    """Uniform float64 below 1: float32 holds too few numbers for distinct keys of millions of pixels."""
    if device.type not in ("cpu", "meta"):
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(device).manual_seed(seed)
    return torch.rand(shape, device=device, dtype=torch.float64, generator=generator)


@dataclass(frozen=True)
class Everything:
    """Every known pixel: for dense maps with a region left out, as in Prior Depth Anything's missing areas."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W): the depth map itself, NaN where unknown."""
        return torch.where(known(depth_BHW), depth_BHW, math.nan)


@dataclass(frozen=True)
class Nothing:
    """No prompt at all: NaN everywhere."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W) without a point."""
        return torch.full_like(depth_BHW, math.nan)
