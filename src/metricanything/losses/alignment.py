"""The truncated alignment solver of MoGe: scale and shift of least weighted absolute error, for many problems at once.

For B problems of N samples with C coordinates it minimises

    sum_i w_i |a p_i + b - q_i|                       (truncation None)
    sum_i min(t, w_i |a p_i + b - q_i|)               (truncation t > 0: an outlier costs t and no more)

where the sum also runs over the coordinates. The scale alone is exact: the untruncated cost is least at the weighted
median of q / p with weights w |p|, and the truncated one, piecewise linear in `a`, is evaluated at all its kinks by a
sweep over sorted breakpoints. With a shift each sample in turn is an anchor that is met exactly, which leaves a scale,
and the anchor of least cost wins. For one coordinate with a shift, and for a shift along z alone, that is the optimum.

Samples of weight 0 do not count, whatever finite numbers they hold. Nothing depends on the values but values: the same
operations run for all inputs of a shape, without waiting for a GPU. Time is O(N^2 log N) for each problem.
`evaluation.alignment_l1` states the same for single problems of any samples.

Source: Wang et al. 2024 (MoGe, arXiv 2410.19115), section on alignment and its appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 2**20  # numbers per array while anchors are tried: bounds the memory


@dataclass(frozen=True)
class Shortlist:
    """Try all anchors on a few samples first, and only the best of them on all: O(N) instead of O(N^2), nearly as good.

    `benchmarks/bench_alignment.py` measures how much more the alignment then costs.
    """

    samples: int = 32
    anchors: int = 8


def best_scale(x_RM: Tensor, y_RM: Tensor, w_RM: Tensor, truncation: float | None) -> tuple[Tensor, Tensor]:
    """Per row the index (R,) of the sample whose ratio y / x is the scale `a` of least sum w |a x - y|, and that cost.

    The index is -1, and the cost that of a = 0, where no sample tells the scale.
    """
    slope = w_RM * x_RM.abs()
    ratio = y_RM / x_RM
    tells = (slope > 0) & torch.isfinite(ratio)
    if truncation is not None:
        reach = truncation / slope
        tells = tells & torch.isfinite(reach)
    slope, ratio = torch.where(tells, slope, 0.0), torch.where(tells, ratio, 0.0)
    if truncation is None:
        order = ratio.argsort(dim=1)
        mass = slope.gather(1, order).cumsum(dim=1)
        # The first sample that reaches half of all mass; a sample without mass is never the first to reach anything.
        middle = (2 * mass < mass[:, -1:]).sum(dim=1, keepdim=True).clamp_max(x_RM.shape[1] - 1)
        index = order.gather(1, middle)[:, 0]
    else:
        index = _sweep(ratio, slope, torch.where(tells, reach, 0.0), tells)
    index = torch.where(tells.any(dim=1), index, -1)
    scale = torch.where(index >= 0, ratio.gather(1, index.clamp_min(0)[:, None])[:, 0], 0.0)
    return index, _cost(scale, x_RM, y_RM, w_RM, truncation)


def _sweep(ratio: Tensor, slope: Tensor, reach: Tensor, tells: Tensor) -> Tensor:
    """Per row the index of the ratio where the truncated cost is least.

    From left to right a sample costs t up to its ratio minus its reach, falls to 0 at its ratio and climbs back to t;
    between these breakpoints the cost is linear, so that a running sum gives it at all of them, up to a constant. It is
    least at a ratio, since it bends downwards at all others.
    """
    samples = ratio.shape[1]
    place = torch.cat([ratio - reach, ratio, ratio + reach], dim=1)
    place, order = place.sort(dim=1)
    bend = torch.cat([-slope, 2 * slope, -slope], dim=1).gather(1, order)
    rise = bend.cumsum(dim=1)[:, :-1] * place.diff(dim=1)
    cost = torch.cat([torch.zeros_like(place[:, :1]), rise.cumsum(dim=1)], dim=1)
    eligible = (order >= samples) & (order < 2 * samples)
    eligible = eligible & tells.gather(1, order % samples)
    best = torch.where(eligible, cost, torch.inf).argmin(dim=1, keepdim=True)
    return order.gather(1, best)[:, 0] % samples


def _cost(scale_R: Tensor, x_RM: Tensor, y_RM: Tensor, w_RM: Tensor, truncation: float | None) -> Tensor:
    residual = w_RM * (scale_R[:, None] * x_RM - y_RM).abs()
    return (residual if truncation is None else residual.clamp_max(truncation)).sum(dim=1)


@torch.no_grad()
def best_anchor(
    p_BNC: Tensor,
    q_BNC: Tensor,
    w_BN: Tensor,
    shifted: Sequence[bool],
    truncation: float | None,
    shortlist: Shortlist | None,
) -> tuple[Tensor, Tensor]:
    """The anchor (B,) of least cost, -1 without a sample that counts, and the index (B,) in its N C ratios, or -1.

    `shifted` (C,) says which coordinates have a shift. Where all predictions are equal any scale costs the same: then
    the scale is 0, and the best anchor the weighted median of the truth.
    """
    batch, samples, _ = p_BNC.shape
    anchors = torch.arange(samples, device=p_BNC.device).expand(batch, -1)
    if shortlist is not None and samples > max(shortlist.anchors, shortlist.samples):
        some = _spread(w_BN, shortlist.samples)
        cost = _anchored(p_BNC, q_BNC, w_BN, anchors, some, shifted, truncation)[0]
        anchors = cost.topk(shortlist.anchors, dim=1, largest=False).indices
    cost, index = _anchored(p_BNC, q_BNC, w_BN, anchors, None, shifted, truncation)
    if not samples:
        return (torch.full((batch,), -1, device=p_BNC.device),) * 2
    least, place = cost.min(dim=1, keepdim=True)
    found = torch.isfinite(least)
    anchor, ratio = (torch.where(found, v.gather(1, place), -1)[:, 0] for v in (anchors, index))
    return anchor, ratio


def _spread(w_BN: Tensor, count: int) -> Tensor:
    """Indices (B, count) of samples that count, evenly spaced among them; some twice where they are few."""
    counts = w_BN > 0
    order = counts.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    steps = (torch.arange(count, device=w_BN.device) + 0.5) / count
    return order.gather(1, (steps * counts.sum(dim=1, keepdim=True)).long())


def _anchored(
    p_BNC: Tensor,
    q_BNC: Tensor,
    w_BN: Tensor,
    anchors_BK: Tensor,
    some_BS: Tensor | None,
    shifted: Sequence[bool],
    truncation: float | None,
) -> tuple[Tensor, Tensor]:
    """Least cost (B, K), over all samples or some of them, of each anchor, and the index of its ratio (B, K)."""
    batch, _, columns = p_BNC.shape
    moves = torch.tensor(shifted, dtype=p_BNC.dtype, device=p_BNC.device)

    def take(values_BNC: Tensor, index_BK: Tensor) -> Tensor:
        return values_BNC.gather(1, index_BK[..., None].expand(-1, -1, columns))

    p, q, w = p_BNC, q_BNC, w_BN
    if some_BS is not None:
        p, q, w = take(p, some_BS), take(q, some_BS), w.gather(1, some_BS)
    weights = w.repeat_interleave(columns, dim=1)
    step = max(1, _CHUNK // max(1, batch * weights.shape[1]))
    costs, indices = [w_BN.new_empty(batch, 0)], [anchors_BK[:, :0]]
    for chosen in anchors_BK.split(step, dim=1) if anchors_BK.shape[1] else ():
        x, y = (
            (v[:, None] - (take(whole, chosen) * moves)[:, :, None]).flatten(2).flatten(0, 1)
            for v, whole in ((p, p_BNC), (q, q_BNC))
        )
        index, cost = best_scale(x, y, weights.repeat_interleave(chosen.shape[1], dim=0), truncation)
        costs.append(torch.where(w_BN.gather(1, chosen) > 0, cost.view(batch, -1), torch.inf))
        indices.append(index.view(batch, -1))
    return torch.cat(costs, dim=1), torch.cat(indices, dim=1)


def align(
    p_BNC: Tensor,
    q_BNC: Tensor,
    w_BN: Tensor,
    shifted: Sequence[bool],
    truncation: float | None,
    shortlist: Shortlist | None = None,
) -> tuple[Tensor, Tensor]:
    """Scale (B,) and shift (B, C) of least cost, 0 for coordinates without a shift; both 0 without an alignment.

    They depend on the predictions that decide them, two samples, and gradients flow to these.
    """
    anchor, ratio = best_anchor(p_BNC, q_BNC, w_BN, shifted, truncation, shortlist)
    columns = p_BNC.shape[2]
    moves = torch.tensor(shifted, dtype=p_BNC.dtype, device=p_BNC.device)

    def at(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index.clamp_min(0)[:, None, None].expand(-1, 1, columns))[:, 0]

    sample, column = ratio // columns, (ratio % columns).clamp_min(0)[:, None]
    offset_p, offset_q = (at(values, anchor) * moves for values in (p_BNC, q_BNC))
    x, y = ((at(v, sample) - o).gather(1, column)[:, 0] for v, o in ((p_BNC, offset_p), (q_BNC, offset_q)))
    told = ratio >= 0
    scale = torch.where(told, y / torch.where(told & (x != 0), x, 1.0), 0.0)
    shift = torch.where((anchor >= 0)[:, None], offset_q - scale[:, None] * offset_p, 0.0)
    return scale, shift
