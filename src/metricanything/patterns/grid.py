"""A regular low-resolution grid: super-resolution of a coarse depth sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metricanything.patterns.drawing import Streams, copy_points, known, log_uniform

_FIRST_RADIUS = 4  # pixels; most holes are filled from this near, and the radius doubles for the rest


@dataclass(frozen=True)
class Grid:
    """One pixel per k x k block, at the positions of a k-times smaller map; k is log-uniform for every image.

    (H // k, W // k) samples from the first to the last row and column. Values are those of single pixels: `Downscale`
    is the interpolating version.
    """

    factors: tuple[int, int] = (4, 32)

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W): the known depths of the grid's pixels."""
        _, h, w = depth_BHW.shape
        indices = []
        for k in log_uniform(*self.factors, Streams(generator, len(depth_BHW)).rand()).tolist():
            rows = torch.linspace(0, h - 1, max(int(h // k), 1), dtype=torch.float64).round().long()
            columns = torch.linspace(0, w - 1, max(int(w // k), 1), dtype=torch.float64).round().long()
            indices.append((rows[:, None] * w + columns).flatten().to(depth_BHW.device))
        return copy_points(depth_BHW, indices)


@dataclass(frozen=True)
class Downscale:
    """Prior Depth Anything's `downscale_k`: a k-times smaller map, interpolated, spread over a full-size grid.

    Holes are filled by the mean of the 5 nearest known pixels, the map is shrunk bilinearly with aligned corners to
    (H // k, W // k), and value (i, j) goes to pixel (floor(i H / h), floor(j W / w)) if that pixel is known. Values
    are therefore those of places up to k pixels away: a property of the published benchmark, kept for parity.
    """

    factor: int
    neighbours: int = 5

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W), interpolated; only on known pixels."""
        _, h, w = depth_BHW.shape
        small = max(h // self.factor, 1), max(w // self.factor, 1)
        rows, columns = ((torch.arange(n) * (full / n)).long() for n, full in zip(small, (h, w), strict=True))
        index_hw = (rows[:, None] * w + columns).to(depth_BHW.device)
        prompt_BHW = torch.full_like(depth_BHW, math.nan)
        for depth_HW, prompt_HW in zip(depth_BHW, prompt_BHW, strict=True):
            used_hw = known(depth_HW.flatten()[index_hw])
            if not bool(used_hw.any()):
                continue
            filled = fill_holes(depth_HW, _looked_at(used_hw, h, w), self.neighbours)
            low_hw = F.interpolate(filled[None, None], size=small, mode="bilinear", align_corners=True)[0, 0]
            prompt_HW.view(-1)[index_hw] = torch.where(used_hw, low_hw, math.nan)
        return prompt_BHW


def _looked_at(used_hw: Tensor, h: int, w: int) -> Tensor:
    """bool (h, w): pixels that bilinear shrinking reads for the used values, and one more each way against rounding.

    The rest of a sparse map is never filled, which would take far longer.
    """

    def near(full: int, small: int) -> Tensor:
        centre = torch.linspace(0, full - 1, small, dtype=torch.float64).floor().long()
        return (centre[:, None] + torch.arange(-1, 3)).clamp(0, full - 1).to(used_hw.device)

    row, column = used_hw.nonzero(as_tuple=True)
    rows_P4, columns_P4 = near(h, used_hw.shape[0])[row], near(w, used_hw.shape[1])[column]
    wanted_HW = torch.zeros(h, w, dtype=torch.bool, device=used_hw.device)
    wanted_HW[rows_P4[:, :, None], columns_P4[:, None, :]] = True
    return wanted_HW


def fill_holes(depth_HW: Tensor, wanted_HW: Tensor, neighbours: int) -> Tensor:
    """The map with every unknown wanted pixel replaced by the mean of its nearest known pixels, the rest by 0.

    Of equally distant pixels the upper and left ones come first. Looks in growing discs, so that holes cost in
    proportion to their depth; fewer neighbours are used only where the whole map holds fewer.
    """
    h, w = depth_HW.shape
    is_known = known(depth_HW)
    filled = torch.where(is_known, depth_HW, 0.0)
    row, column = (wanted_HW & ~is_known).nonzero(as_tuple=True)
    radius, need = _FIRST_RADIUS, min(neighbours, int(is_known.sum()))
    while len(row):
        dy, dx = _disc(radius, depth_HW.device)
        late = torch.ones(len(row), dtype=torch.bool, device=depth_HW.device)
        for part in torch.arange(len(row), device=row.device).split(max(1, 2**22 // len(dy))):
            y, x = row[part, None] + dy, column[part, None] + dx
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            index = torch.where(inside, y * w + x, 0)
            use = inside & is_known.flatten()[index]
            use &= use.cumsum(dim=1) <= neighbours
            count = use.sum(dim=1)
            mean = (filled.flatten()[index] * use).sum(dim=1) / count
            done = count >= need
            filled[row[part][done], column[part][done]] = mean[done]
            late[part] = ~done
        row, column, radius = row[late], column[late], 2 * radius
    return filled


def _disc(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Offsets (P,) within `radius`, nearest first."""
    side = torch.arange(-radius, radius + 1, device=device)
    dy, dx = torch.meshgrid(side, side, indexing="ij")
    squared = (dy**2 + dx**2).flatten()
    order = squared.argsort(stable=True)
    order = order[squared[order] <= radius**2]
    return dy.flatten()[order], dx.flatten()[order]
