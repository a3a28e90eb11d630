"""Losses on point maps known up to scale and z-shift (MoGe, arXiv 2410.19115; MoGe-2, arXiv 2507.02546).

Points are (B, 3, H, W) in the camera frame, masks bool (B, 1, H, W); losses are per image (B,). Points may be anything,
NaN and inf too, where the mask is False.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metricanything.losses.alignment import Shortlist, align
from metricanything.losses.depth import masked_mean, working

TRUNCATION = 1.0  # weighted error beyond which a sample counts as an outlier: 100 % of its depth
_NEAREST = 1e-3  # metres, or units of the label: closer labels weigh no more
_HEAVIEST = 10.0  # times the mean weight
_FLOOR = 0.1  # of the harmonic mean depth
_RATIO = 10.0  # between the scale of a patch and that of the image, either way
_FILLED = 0.25  # share of a patch's samples that must count


def align_points(
    points: Tensor, target: Tensor, mask: Tensor, side: int = 48, shortlist: Shortlist | None = None
) -> tuple[Tensor, Tensor]:
    """Scale a (B,) and z-shift b (B,) of least sum of min(1, |a p + (0, 0, b) - q| / q_z), as MoGe trains with.

    The sum runs over coordinates too. Solved (`losses.alignment`) on `side` x `side` samples: of each cell the
    supervised pixel nearest to its centre. Without an alignment, or one of a <= 0, both are 0, without gradient, and
    the losses below count nothing.
    """
    index, found = grid_pixels(mask, side)
    p, q = (_at(torch.where(mask, working(x), 0.0), index) for x in (points, target))
    weight = found / torch.where(found, q[..., 2], 1.0).clamp_min(_NEAREST)
    scale, shift = align(p, q, weight, (False, False, True), TRUNCATION, shortlist)
    good = scale > 0
    return torch.where(good, scale, 0.0), torch.where(good, shift[:, 2], 0.0)


def grid_pixels(mask: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """For each cell of a grid the flat index (B, side side) of a masked pixel, and whether there is one."""
    height, width = mask.shape[-2:]
    device = mask.device
    row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    down, across = (row + 0.5) * side / height, (column + 0.5) * side / width
    cell = (down.floor() * side + across.floor()).long().flatten()
    away = ((down % 1 - 0.5) ** 2 + (across % 1 - 0.5) ** 2).flatten()
    order = away.argsort(stable=True)  # nearest to the centre first; the first masked pixel of each cell is taken
    pixels = height * width
    rank = torch.where(mask.flatten(1)[:, order], torch.arange(pixels, device=device), pixels)
    first = torch.full((len(mask), side * side), pixels, device=device)
    first = first.scatter_reduce(1, cell[order].expand(len(mask), -1), rank, "amin")
    found = first < pixels
    return order[torch.where(found, first, 0)], found


def _at(values_BCHW: Tensor, index_BN: Tensor) -> Tensor:
    """The pixels (B, N, C) at flat indices."""
    flat = values_BCHW.flatten(2)
    return flat.gather(2, index_BN[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def global_points(points: Tensor, target: Tensor, mask: Tensor, scale_B: Tensor, shift_B: Tensor) -> Tensor:
    """Mean over supervised pixels and coordinates of w |a p + (0, 0, b) - q| after the given alignment; 0 without one.

    w = 1 / q_z, but at most 10 times its mean over the image.
    """
    points, target, scale_B, shift_B = working(points), working(target), working(scale_B), working(shift_B)
    offset = torch.stack([torch.zeros_like(shift_B), torch.zeros_like(shift_B), shift_B], dim=1)
    aligned = scale_B.view(-1, 1, 1, 1) * torch.where(mask, points, 1.0) + offset[:, :, None, None]
    safe = torch.where(mask, target, 1.0)
    weight = 1 / safe[:, 2:].clamp_min(_NEAREST)
    weight = weight.minimum(_HEAVIEST * masked_mean(weight, mask).view(-1, 1, 1, 1))
    error = (aligned - safe).abs().mean(dim=1, keepdim=True) * weight
    return torch.where(scale_B > 0, masked_mean(error, mask), 0.0)


def draw_anchors(mask: Tensor, count: int) -> Tensor:
    """Flat indices (B, count) of pixels drawn at random, supervised ones first, by torch's generator."""
    drawn = torch.rand(mask.flatten(1).shape, device=mask.device) + mask.flatten(1)
    return drawn.topk(min(count, drawn.shape[1]), dim=1).indices


def local_points(
    points: Tensor,
    target: Tensor,
    mask: Tensor,
    focal_B: Tensor,
    scale_B: Tensor,
    anchors_BK: Tensor,
    *,
    level: int,
    side: int,
    shortlist: Shortlist | None = None,
) -> Tensor:
    """Mean over the samples of patches, and coordinates, of w |a p + b - q|, each patch aligned by itself.

    A patch is the sphere around the true point of an anchor pixel that, seen from the camera, has 1 / level of the
    image's diagonal as its diameter; `focal_B` is the focal length over the image width. It is looked at in `side` x
    `side` pixels, at even distances. Its own scale a and shift b (3) are solved like the image's. w = 1 / q_z, of
    nothing nearer than a tenth of the harmonic mean depth. Patches of which less than a quarter is supervised, or whose
    scale is not within a factor of 10 of the image's, `scale_B`, do not count.
    """
    height, width = mask.shape[-2:]
    p_B3HW, q_B3HW = (torch.where(mask, working(x), 0.0) for x in (points, target))
    radius = 0.5 * math.hypot(height, width) / level
    index, inside = _windows(anchors_BK, height, width, radius, side)
    p, q = (_at(x, index.flatten(1)).unflatten(1, index.shape[1:]) for x in (p_B3HW, q_B3HW))  # (B, K, S, 3)
    counts = inside & mask.flatten(1).gather(1, index.flatten(1)).view_as(inside)
    centre = _at(q_B3HW, anchors_BK)[:, :, None]
    supervised = mask.flatten(1).gather(1, anchors_BK)[..., None]
    reach = centre[..., 2] * radius / (working(focal_B)[:, None, None] * width)
    counts = counts & supervised & ((q - centre).norm(dim=-1) <= reach)
    near = masked_mean(1 / torch.where(mask, q_B3HW[:, 2:], 1.0).clamp_min(_NEAREST), mask)
    floor = _FLOOR / torch.where(near > 0, near, 1.0)
    weight = counts / torch.where(counts, q[..., 2], 1.0).maximum(floor[:, None, None])
    shifted = (True, True, True)
    a, b = align(p.flatten(0, 1), q.flatten(0, 1), weight.flatten(0, 1), shifted, TRUNCATION, shortlist)
    a, b = a.view_as(anchors_BK), b.view(*anchors_BK.shape, 1, 3)
    whole = scale_B[:, None]
    good = (counts.sum(dim=-1) >= _FILLED * side * side) & (a * _RATIO > whole) & (a < _RATIO * whole) & (whole > 0)
    error = (a[..., None, None] * p + b - q).abs().mean(dim=-1) * weight
    used = counts & good[..., None]
    return torch.where(used, error, 0.0).sum(dim=(1, 2)) / used.sum(dim=(1, 2)).clamp_min(1)


def _windows(anchors_BK: Tensor, height: int, width: int, radius: float, side: int) -> tuple[Tensor, Tensor]:
    """Flat indices (B, K, side side) of the pixels around anchors, and whether they lie in the image."""
    steps = torch.linspace(-radius, radius, side, device=anchors_BK.device).round().long()
    row = (anchors_BK // width)[..., None, None] + steps[:, None]
    column = (anchors_BK % width)[..., None, None] + steps
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return index.flatten(2), inside.flatten(2)


def metric_scale(log_scale_B: Tensor, scale_B: Tensor, metric_B: Tensor) -> Tensor:
    """Squared error of the predicted log scale against that of the (detached) alignment, where labels are metric.

    Zero where there is no alignment.
    """
    known = metric_B & (scale_B > 0)
    target = torch.where(known, working(scale_B).detach(), 1.0).log()
    return torch.where(known, (working(log_scale_B) - target).square(), 0.0)
