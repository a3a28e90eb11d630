"""Local networks on large maps, one horizontal strip at a time: the same output for a fraction of the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def run_in_strips(
    function: Callable[..., Tensor], maps: Sequence[Tensor], *, units: int, rows: int | None, halo: int
) -> Tensor:
    """`function(*maps)` of maps (B, C, H_i, W_i), computed from strips of `rows` units and put together.

    A unit is the common measure of height: each H_i, and the height of the output, is a multiple of `units`. Every
    strip is read with `halo` more units on both sides, which are cut off its output: with at least the reach of the
    function's convolutions, what they see at the edge of a strip never shows, and the image's own borders are padded
    as ever. The result equals that of the whole maps up to rounding. With `rows` None the maps go through whole.
    """
    if rows is None or rows + 2 * halo >= units:
        return function(*maps)
    parts: list[Tensor] = []
    whole: Tensor | None = None
    for start in range(0, units, rows):
        stop = min(start + rows, units)
        first, last = max(start - halo, 0), min(stop + halo, units)
        out = function(*(x[..., first * (n := x.shape[-2] // units) : last * n, :] for x in maps))
        k = out.shape[-2] // (last - first)
        out = out[..., (start - first) * k : (stop - first) * k, :]
        if torch.is_grad_enabled():
            parts.append(out)
            continue
        if whole is None:  # written in place: a list of strips would be held twice when it is joined
            whole = out.new_empty((*out.shape[:-2], units * k, out.shape[-1]))
            if out.is_contiguous(memory_format=torch.channels_last) and out.shape[1] > 1:
                whole = whole.contiguous(memory_format=torch.channels_last)
        whole[..., start * k : stop * k, :] = out
    return torch.cat(parts, dim=-2) if whole is None else whole
