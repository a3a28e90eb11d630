"""Where a prompt may lie: square holes, range limits, a partial field of view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from metricanything.patterns.drawing import Pattern, Streams, between, known, split


class Region(Protocol):
    """The part of an image that a sensor measures."""

    def inside(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W): where points may lie, of z-depth in metres (NaN and inf unknown)."""
        ...


@dataclass(frozen=True)
class Within:
    """A pattern drawn as if depth were known inside a region alone."""

    pattern: Pattern
    region: Region

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W) of the pattern, NaN outside the region."""
        first, second = split(generator, 2)
        inside_BHW = self.region.inside(depth_BHW, first)
        return self.pattern.draw(torch.where(inside_BHW, depth_BHW, math.nan), second, image_B3HW)


@dataclass(frozen=True)
class Hole:
    """All but a square at a random place: Prior Depth Anything's `cubic_<side>` where `side` is given.

    Its corner is uniform in 0..H - side - 1 and 0..W - side - 1, as there; a square that does not fit starts at 0.
    """

    side: int | None = None
    """Pixels; None = a random share of the shorter side of the image."""
    share: tuple[float, float] = (0.1, 0.5)

    def inside(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W): outside the square."""
        batch, h, w = depth_BHW.shape
        size_B, top_B, left_B = Streams(generator, batch).rand(3).unbind(dim=1)
        side_B = torch.full_like(size_B, self.side) if self.side else (between(self.share, size_B) * min(h, w)).round()
        row, column = torch.arange(h), torch.arange(w)
        top_B1, left_B1 = ((t * (n - side_B).clamp(min=1)).floor()[:, None] for t, n in ((top_B, h), (left_B, w)))
        rows_BH = (row >= top_B1) & (row < top_B1 + side_B[:, None])
        columns_BW = (column >= left_B1) & (column < left_B1 + side_B[:, None])
        return ~(rows_BH[:, :, None] & columns_BW[:, None, :]).to(depth_BHW.device)


@dataclass(frozen=True)
class Range:
    """Depths between two limits, both excluded: Prior Depth Anything's `distance_<lo>_<hi>` where they are given."""

    limits: tuple[float, float] | None = None
    """Metres; None = random quantiles of each map's known depth, one of `near` and one of `far`."""
    near: tuple[float, float] = (0.0, 0.3)
    far: tuple[float, float] = (0.6, 1.0)

    def inside(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W): within the limits."""
        if self.limits is not None:
            return (depth_BHW > self.limits[0]) & (depth_BHW < self.limits[1])
        near_B, far_B = Streams(generator, len(depth_BHW)).rand(2).unbind(dim=1)
        levels_B2 = torch.stack([between(self.near, near_B), between(self.far, far_B)], dim=1)
        limits_B2 = quantiles(depth_BHW, levels_B2.to(depth_BHW.device))[:, :, None, None]
        return (depth_BHW >= limits_B2[:, 0]) & (depth_BHW <= limits_B2[:, 1])


@dataclass(frozen=True)
class FieldOfView:
    """A window of the image at a random place: a sensor that sees less than the camera does."""

    width: tuple[float, float] = (0.3, 0.8)
    """Share of the image's width, uniform between the two."""
    height: tuple[float, float] = (1.0, 1.0)

    def inside(self, depth_BHW: Tensor, generator: torch.Generator) -> Tensor:
        """bool (B, H, W): within the window."""
        batch, h, w = depth_BHW.shape
        draws_B4 = Streams(generator, batch).rand(4)
        rows_BH = _window(h, between(self.height, draws_B4[:, 0]), draws_B4[:, 1])
        columns_BW = _window(w, between(self.width, draws_B4[:, 2]), draws_B4[:, 3])
        return (rows_BH[:, :, None] & columns_BW[:, None, :]).to(depth_BHW.device)


def _window(pixels: int, share_B: Tensor, place_B: Tensor) -> Tensor:
    """bool (B, pixels): a run of this share of the pixels, at least one."""
    length_B1 = (share_B * pixels).round().clamp(1, pixels)[:, None]
    start_B1 = (place_B[:, None] * (pixels - length_B1 + 1)).floor()
    position = torch.arange(pixels)
    return (position >= start_B1) & (position < start_B1 + length_B1)


def quantiles(depth_BHW: Tensor, levels_BQ: Tensor) -> Tensor:
    """Quantiles (B, Q) of the known depths of each map, linear between neighbours; no number where nothing is known."""
    known_BN = known(depth_BHW).flatten(1)
    # Positive floats are ordered like the integers with their bits, which sort several times faster; infinity is last.
    bits_BN = torch.where(known_BN, depth_BHW.flatten(1), math.inf).view(torch.int32)
    sorted_BN = bits_BN.sort(dim=1).values.view(torch.float32)
    last_B1 = known_BN.sum(dim=1, keepdim=True) - 1
    place_BQ = levels_BQ * last_B1.clamp(min=0)
    low_BQ = place_BQ.floor().long()
    high_BQ = torch.minimum(low_BQ + 1, last_B1.clamp(min=0))
    below_BQ, above_BQ = sorted_BN.gather(1, low_BQ), sorted_BN.gather(1, high_BQ)
    return below_BQ + (above_BQ - below_BQ) * (place_BQ - low_BQ).to(depth_BHW.dtype)
