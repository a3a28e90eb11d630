"""Sparse values -> a plane in every cell of a pyramid: what a prompt says of the places between its points.

A masked pyramid collects the moments of the points under every cell (push-pull, Gortler et al., The Lumigraph, 1996).
Going down again, the plane of a cell starts from those of its coarser neighbours, each continued to the cell, and is
corrected by the cell's own points: regularised least squares (moving least squares, Lancaster and Salkauskas, 1981).
The inverse depth of a plane in space is linear in pixels, so points of one wall give that wall exactly, whatever
weights the neighbours get; where surfaces meet, learned weights choose whose plane goes on.

Shapes: B batch, K values, H W pixels, h w cells of a level; level i has stride 2**i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SOFTNESS, TILT = 3e-3, 0.1
_GEOMETRY = 6  # moments that do not depend on values: 1, x, y, xx, xy, yy
_FLOOR = 1e-3


@dataclass(frozen=True)
class Planes:
    """At the centre of each cell: values and their slopes, per cell along x and y, all (B, K, h, w)."""

    value: Tensor
    right: Tensor
    down: Tensor
    expected: Tensor
    """The value that the coarser planes gave, before the points in the cell were looked at."""
    weight_B1hw: Tensor
    """The smoothed number of points."""


def moments(values_BKHW: Tensor, mask_B1HW: Tensor) -> Tensor:
    """Moments (B, 6 + 3 K, H / 2, W / 2) of the points in each cell at stride 2, sides even.

    1, x, y, xx, xy, yy, then all values, values times x, and times y; x and y from the centre of the cell, in cells:
    numbers of the size of an image would leave nothing of float32's digits. `mask` is 0 or 1; values where it is 0 do
    not count, but must be finite.
    """
    n, x, y, xy = _of_cells(mask_B1HW)
    v, vx, vy, _ = _of_cells(values_BKHW * mask_B1HW)
    square = n / 16  # each pixel's centre is a quarter of a cell from the cell's, along x and y
    return torch.cat([n, x, y, square, xy, square, v, vx, vy], dim=1)


def _of_cells(maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums over the four pixels of each cell, and of the same times x, times y, and times both."""
    a, b, c, d = (maps[..., row::2, column::2] for row in (0, 1) for column in (0, 1))
    top, bottom, left, right = a + b, c + d, a + c, b + d
    return top + bottom, (right - left) / 4, (bottom - top) / 4, (a + d - b - c) / 16


def spread(
    moments_BMhw: Tensor,
    affinities: Sequence[Tensor] = (),
    softness: Tensor | float = SOFTNESS,
    tilt: Tensor | float = TILT,
) -> list[Planes]:
    """Planes at strides 2, 4, … down to one cell, of the moments of points at stride 2.

    `affinities[i]` (B, 9, h, w) guides how the cells at stride 2**(i + 1) take from their 3x3 coarser neighbours;
    without one, that is bilinear. A coarser plane holds with the weight `softness` of a point, its slopes with `tilt`.
    """
    sums = [moments_BMhw]
    while max(sums[-1].shape[-2:]) > 1:
        sums.append(pooled(sums[-1]))
    k = (moments_BMhw.shape[1] - _GEOMETRY) // 3
    mean, weight = sums[-1][:, _GEOMETRY : _GEOMETRY + k] / sums[-1][:, :1].clamp_min(1e-12), sums[-1][:, :1]
    levels = [Planes(mean, torch.zeros_like(mean), torch.zeros_like(mean), mean, weight)]
    for i in reversed(range(len(sums) - 1)):
        guide = affinities[i] if i < len(affinities) else None
        levels.append(_corrected(*continued(levels[-1], sums[i].shape[-2:], guide), sums[i], softness, tilt))
    return levels[::-1]


def pooled(moments_BMhw: Tensor) -> Tensor:
    """Moments at half the resolution under overlapping binomial windows of 6x6 cells; odd sides are padded with zeros.

    Windows that overlap are what makes the filled map smooth: with 2x2 boxes its error on real prompts was up to 40 %
    higher, and above that of linear interpolation (docs/decisions/compact-models.md).
    """
    h, w = moments_BMhw.shape[-2:]
    k = (moments_BMhw.shape[1] - _GEOMETRY) // 3
    m = F.pad(moments_BMhw, (2, 2 + w % 2, 2, 2 + h % 2))
    n, x, y, xx, xy, yy, v, vx, vy = _along(*m.split([1, 1, 1, 1, 1, 1, k, k, k], dim=1))
    # The other axis: the same with x and y exchanged.
    turned = (part.transpose(-1, -2) for part in (n, y, x, yy, xy, xx, v, vy, vx))
    n, y, x, yy, xy, xx, v, vy, vx = _along(*turned)
    return torch.cat([n, x, y, xx, xy, yy, v, vx, vy], dim=1).transpose(-1, -2)


def _along(
    n: Tensor, x: Tensor, y: Tensor, xx: Tensor, xy: Tensor, yy: Tensor, v: Tensor, vx: Tensor, vy: Tensor
) -> tuple[Tensor, ...]:
    """Moments under windows along the last axis, about the centres of the cells, which are twice as long."""
    k = v.shape[1]
    sums = _binomial(torch.cat([n, x, y, xx, xy, yy, v, vx, vy], dim=1), 0)
    n0, x0, y0, xx0, xy0, yy0, v0, vx0, vy0 = sums.split([1, 1, 1, 1, 1, 1, k, k, k], dim=1)
    n1, x1, y1, v1 = _binomial(torch.cat([n, x, y, v], dim=1), 1).split([1, 1, 1, k], dim=1)
    n2 = _binomial(n, 2)
    return n0, (x0 + n1) / 2, y0, (xx0 + 2 * x1 + n2) / 4, (xy0 + y1) / 2, yy0, v0, (vx0 + v1) / 2, vy0


def _binomial(x: Tensor, power: int) -> Tensor:
    """Every second of the sums under 1 5 10 10 5 1 along the last axis, over 16: (…, 2 n + 4) -> (…, n).

    Each term times its offset, -2.5 to 2.5, to a power. Sums of slices, not a convolution, which autocast would run in
    half precision.
    """
    n, sign = x.shape[-1] // 2 - 2, (-1) ** power
    even, odd = x[..., ::2], x[..., 1::2]
    outer = torch.add(odd[..., 2:], even[..., :n], alpha=sign) * (2.5**power / 16)
    middle = torch.add(even[..., 2:], odd[..., :n], alpha=sign)
    inner = torch.add(odd[..., 1 : n + 1], even[..., 1 : n + 1], alpha=sign)
    return outer.add(middle, alpha=5 * 1.5**power / 16).add(inner, alpha=10 * 0.5**power / 16)


def continued(
    coarse: Planes, size: Sequence[int], affinity_B9hw: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Values and slopes of cells half as large, convex combinations of their 3x3 coarser neighbours' planes.

    Weights are softmax(affinity + log bilinear) (convex upsampling: RAFT, Teed and Deng, ECCV 2020).
    """
    b, k, h, w = coarse.value.shape
    near = _neighbours(torch.cat([coarse.value, coarse.right, coarse.down], dim=1)).view(b, 3, k, 9, h, w)
    right, down = _offsets(h, w, near)
    here = near[:, 0] + near[:, 1] * right + near[:, 2] * down  # the neighbours' planes at the centre of the cell
    logits = _log_bilinear(near)
    if affinity_B9hw is not None:
        padded = F.pad(affinity_B9hw, (0, 2 * w - size[1], 0, 2 * h - size[0]))
        logits = logits + F.pixel_unshuffle(padded, 2).view(b, 9, 4, h, w)
    mixed = _mixed(torch.cat([here, near[:, 1], near[:, 2]], dim=1), logits)
    value, p, q = mixed.view(b, 3, k, 4, h, w).unbind(1)
    # The four finer centres lie a quarter of a coarser cell from its centre.
    side = torch.tensor([-0.25, 0.25], dtype=near.dtype, device=near.device)
    value = value + p * side.repeat(2).view(4, 1, 1) + q * side.repeat_interleave(2).view(4, 1, 1)
    fine = F.pixel_shuffle(torch.cat([value, p / 2, q / 2], dim=1).view(b, 12 * k, h, w), 2)
    c, p, q = fine[..., : size[0], : size[1]].split(k, dim=1)
    return c, p, q


def enlarged(maps_BKhw: Tensor, affinity_B36hw: Tensor) -> Tensor:
    """Twice the resolution (B, K, 2 h, 2 w): each finer cell a convex combination of its 3x3 coarser neighbours.

    The nine weights of each of the four finer cells are softmax(affinity + log bilinear), as in `continued`: borders
    are as sharp as the guide knows them, where bilinear enlargement smears them over two cells.
    """
    b, k, h, w = maps_BKhw.shape
    near = _neighbours(maps_BKhw).view(b, k, 9, h, w)
    mixed = _mixed(near, affinity_B36hw.view(b, 9, 4, h, w) + _log_bilinear(near))
    return F.pixel_shuffle(mixed.view(b, 4 * k, h, w), 2)


def _mixed(near_BM9hw: Tensor, logits_B94hw: Tensor) -> Tensor:
    """Sums (B, M, 4, h, w) of the nine neighbours' maps, weighted by the softmax over them for each of four cells."""
    weights = logits_B94hw.softmax(dim=1)
    return (weights[:, None] * near_BM9hw[:, :, :, None]).sum(dim=2)


def _corrected(c: Tensor, p: Tensor, q: Tensor, sums: Tensor, softness: Tensor | float, tilt: Tensor | float) -> Planes:
    """The planes closest to the points in each cell and to the given values and slopes along x and y."""
    k = c.shape[1]
    n, x, y, xx, xy, yy, v, vx, vy = sums.split([1, 1, 1, 1, 1, 1, k, k, k], dim=1)
    left = v - n * c - x * p - y * q, vx - x * c - xx * p - xy * q, vy - y * c - xy * p - yy * q
    change = _solve(n + softness, x, y, xx + tilt, xy, yy + tilt, *left)
    return Planes(c + change[0], p + change[1], q + change[2], c, n)


def _solve(
    a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor, x: Tensor, y: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solutions of [[a b c] [b d e] [c e f]] u = (x y z), positive definite, elementwise."""
    p, q, r = d * f - e * e, c * e - b * f, b * e - c * d
    s, t, u = a * f - c * c, b * c - a * e, a * d - b * b
    det = a * p + b * q + c * r
    return (p * x + q * y + r * z) / det, (q * x + s * y + t * z) / det, (r * x + t * y + u * z) / det


def _neighbours(maps_BChw: Tensor) -> Tensor:
    """(B, 9 C, h w): the 3x3 cells around each cell; beyond the border, the cell at the border."""
    return F.unfold(F.pad(maps_BChw, (1, 1, 1, 1), mode="replicate"), 3)


def _log_bilinear(like: Tensor) -> Tensor:
    """(1, 9, 4, 1, 1): log weight of each coarser neighbour for the four finer cells, floored to be learnable."""
    first = torch.tensor([[0.25, 0.0], [0.75, 0.75], [0.0, 0.25]], dtype=like.dtype, device=like.device)
    weights = first[:, None, :, None] * first[None, :, None, :]
    return weights.clamp_min(_FLOOR).log().view(1, 9, 4, 1, 1)


def _offsets(h: int, w: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """A cell's centre minus its neighbours', in cells, along x (9, 1, w) and y (9, h, 1)."""
    found = []
    for n in (w, h):
        place = torch.arange(n, device=like.device)
        neighbour = (place + torch.arange(-1, 2, device=like.device)[:, None]).clamp(0, n - 1)
        found.append((place - neighbour).to(like.dtype))  # beyond the border, the cell at the border
    right, down = found
    return right.repeat(3, 1).view(9, 1, w), down.repeat_interleave(3, dim=0).view(9, h, 1)
