"""What all patterns are made of: which depth is known, random streams per image, points copied and moved.

Legend: B images of H x W pixels, N = H * W.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor


class Pattern(Protocol):
    """Draws prompts from depth maps."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt depth float32 (B, H, W) in metres, NaN where there is no point.

        `depth_BHW` float32 z-depth in metres (NaN and inf unknown) on any device, `generator` on the CPU; the same
        seed gives the same prompt on the same kind of device. A prompt depends on its own image, not on the rest of the
        batch. `image_B3HW` float32 in [0, 1] is looked at by keypoints alone, which raise InputError without it.
        """
        ...


def known(depth: Tensor) -> Tensor:
    """bool, of any shape: finite positive depth."""
    return (depth > 0) & (depth < math.inf)


def log_uniform(low: float, high: float, t_B: Tensor) -> Tensor:
    """Numbers (B,) whose logarithm is uniform between those of `low` and `high`, of numbers uniform in 0..1."""
    return low * (max(high, low) / low) ** t_B


def between(bounds: tuple[float, float], t_B: Tensor) -> Tensor:
    """Numbers (B,) uniform between the bounds, of numbers uniform in 0..1."""
    return bounds[0] + (bounds[1] - bounds[0]) * t_B


def split(generator: torch.Generator, parts: int) -> list[torch.Generator]:
    """Generators for the parts of a composed pattern, so that none depends on how much another draws."""
    seeds = torch.randint(2**62, (parts,), generator=generator)
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]


class Streams:
    """Random numbers for a batch: every image has a stream of its own."""

    def __init__(self, generator: torch.Generator, batch: int) -> None:
        self.images = split(generator, batch)

    def rand(self, *shape: int) -> Tensor:
        """Uniform float64 (B, *shape) on the CPU."""
        drawn = [torch.rand(shape, generator=g, dtype=torch.float64) for g in self.images]
        return torch.stack(drawn) if drawn else torch.empty((0, *shape), dtype=torch.float64)

    def of_points(self, image_P: Tensor, columns: int, *, normal: bool = False) -> Tensor:
        """Uniform or normal float32 (P, columns) for points sorted by the number of their image, on their device."""
        counts = torch.bincount(image_P, minlength=len(self.images)).tolist()
        sample = torch.randn if normal else torch.rand
        drawn = [sample((n, columns), generator=g) for n, g in zip(counts, self.images, strict=True)]
        return torch.cat([torch.empty(0, columns), *drawn]).to(image_P.device)


def copy_points(depth_BHW: Tensor, indices: Iterable[Tensor]) -> Tensor:
    """Prompts (B, H, W) with the known ones of the pixels `indices`, one tensor (P,) of flat indices per image."""
    prompt_BHW = torch.full_like(depth_BHW, math.nan, memory_format=torch.contiguous_format)
    for depth_N, prompt_N, index_P in zip(depth_BHW.flatten(1), prompt_BHW.flatten(1), indices, strict=True):
        values = depth_N.index_select(0, index_P)
        prompt_N.index_copy_(0, index_P.long(), torch.where(known(values), values, math.nan))
    return prompt_BHW


def place_points(shape: torch.Size, image_P: Tensor, row_P: Tensor, column_P: Tensor, depth_P: Tensor) -> Tensor:
    """Prompt of `shape` (B, H, W) of points: those outside the image are left out, the nearest wins a shared pixel."""
    _, h, w = shape
    inside = (row_P >= 0) & (row_P < h) & (column_P >= 0) & (column_P < w)
    index = ((image_P * h + row_P) * w + column_P)[inside]
    prompt = torch.full((shape.numel(),), math.inf, dtype=depth_P.dtype, device=depth_P.device)
    prompt.scatter_reduce_(0, index, depth_P[inside], "amin")
    return torch.where(torch.isinf(prompt), math.nan, prompt).view(shape)
