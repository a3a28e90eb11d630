"""What is wrong with real prompts: outliers, range noise, mis-registration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metricanything.patterns.drawing import Pattern, Streams, between, place_points, split
from metricanything.patterns.regions import quantiles


class Noise(Protocol):
    """Disturbs prompts."""

    def disturb(self, prompt_BHW: Tensor, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """Prompts (B, H, W) in metres, NaN without a point, from those drawn from `depth_BHW` (NaN, inf unknown)."""
        ...


@dataclass(frozen=True)
class Noisy:
    """A pattern with noise on its points."""

    pattern: Pattern
    noise: Noise

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W) of the pattern, disturbed."""
        first, second = split(generator, 2)
        return self.noise.disturb(self.pattern.draw(depth_BHW, first, image_B3HW), depth_BHW, second)


@dataclass(frozen=True)
class Outliers:
    """Each point becomes, with a probability drawn per image, a depth uniform between two percentiles of the map.

    OMNI-DC: probability 0 to 0.05 in training, 0.01, 0.05 and 0.1 in its robustness tests, 10th to 90th percentile
    (`add_noise` in its src/data/__init__.py; (0, 100) is noise between minimum and maximum). Percentiles are over known
    depth; there unknown pixels count as 0, which differs on incomplete maps.
    """

    probability: tuple[float, float] = (0.0, 0.05)
    percentiles: tuple[float, float] = (10.0, 90.0)

    def disturb(self, prompt_BHW: Tensor, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """Prompts (B, H, W) with the same pixels."""
        image, row, column = _points(prompt_BHW)
        streams = Streams(generator, len(prompt_BHW))
        chance_B = between(self.probability, streams.rand()).to(prompt_BHW)
        draws_P2 = streams.of_points(image, 2)
        levels_B2 = torch.tensor(self.percentiles, dtype=torch.float64, device=depth_BHW.device).div(100)
        low_B, high_B = quantiles(depth_BHW, levels_B2.expand(len(depth_BHW), 2)).unbind(dim=1)
        wrong_P = low_B[image] + (high_B - low_B)[image] * draws_P2[:, 0]
        hit_P = draws_P2[:, 1] < chance_B[image]
        return _replaced(prompt_BHW, (image, row, column), torch.where(hit_P, wrong_P, prompt_BHW[image, row, column]))


@dataclass(frozen=True)
class RangeNoise:
    """Every depth times exp(s n), n standard normal: for small s an error of that share of the depth.

    s is uniform between the bounds, drawn per image.
    """

    relative: tuple[float, float] = (0.0, 0.03)

    def disturb(self, prompt_BHW: Tensor, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """Prompts (B, H, W) with the same pixels."""
        image, row, column = _points(prompt_BHW)
        streams = Streams(generator, len(prompt_BHW))
        sigma_B = between(self.relative, streams.rand()).to(prompt_BHW)
        factor_P = (streams.of_points(image, 1, normal=True)[:, 0] * sigma_B[image]).exp()
        return _replaced(prompt_BHW, (image, row, column), prompt_BHW[image, row, column] * factor_P)


@dataclass(frozen=True)
class Misregistration:
    """All points of an image moved by one offset: a sensor whose calibration against the camera is off.

    The offset has a length uniform between the bounds and a random direction, in whole pixels.
    """

    pixels: tuple[float, float] = (0.0, 3.0)

    def disturb(self, prompt_BHW: Tensor, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """Prompts (B, H, W), also where depth is unknown; points that leave the image are lost."""
        draws_B2 = Streams(generator, len(prompt_BHW)).rand(2)
        length_B, angle_B = between(self.pixels, draws_B2[:, 0]), 2 * math.pi * draws_B2[:, 1]
        down_B, right_B = ((length_B * f(angle_B)).round().long().to(prompt_BHW.device) for f in (torch.sin, torch.cos))
        image, row, column = _points(prompt_BHW)
        values = prompt_BHW[image, row, column]
        return place_points(prompt_BHW.shape, image, row + down_B[image], column + right_B[image], values)


def _points(prompt_BHW: Tensor) -> tuple[Tensor, ...]:
    """Image, row and column (P,) of every point, in this order."""
    return torch.isfinite(prompt_BHW).nonzero(as_tuple=True)


def _replaced(prompt_BHW: Tensor, where: tuple[Tensor, ...], values_P: Tensor) -> Tensor:
    return torch.full_like(prompt_BHW, math.nan).index_put(where, values_P)
