"""How prompts are drawn from dense depth; one seeded library for training and evaluation.

A pattern is a frozen dataclass with `draw(depth_BHW, generator) -> mask_BHW`: which of the known pixels become prompt
points. Names for the command line are `family` or `family-number`: `uniform`, `uniform-500`, `lidar-8`, `grid-16`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    Drawn = torch.Tensor


class Pattern(Protocol):
    """Chooses prompt pixels."""

    def draw(self, depth_BHW: Drawn, generator: torch.Generator) -> Drawn:
        """bool (B, H, W): prompt pixels, all with finite positive `depth_BHW` (metres; NaN and inf are unknown)."""
        ...


@dataclass(frozen=True)
class Family:
    """A registered family of patterns."""

    name: str
    description: str
    make: Callable[[int | None], Pattern]
    example: str


def _uniform(number: int | None) -> Pattern:
    from metricanything.patterns.uniform import Uniform

    return Uniform() if number is None else Uniform(points=(number, number), max_fraction=1.0)


def _lidar(number: int | None) -> Pattern:
    from metricanything.patterns.lidar import LidarLines

    return LidarLines() if number is None else LidarLines(lines=(number, number))


def _grid(number: int | None) -> Pattern:
    from metricanything.patterns.grid import Grid

    return Grid() if number is None else Grid(factors=(number, number))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("uniform", "N known pixels drawn uniformly (the paper's random masking)", _uniform, "uniform-500"),
        Family("lidar", "scan lines of a virtual N-line LiDAR", _lidar, "lidar-8"),
        Family("grid", "one pixel per N x N block: a low-resolution sensor", _grid, "grid-8"),
    )
}


def get_pattern(name: str) -> Pattern:
    """The pattern called `family` or `family-number`; raises InputError with the known families."""
    match = re.fullmatch(r"([a-z_]+)(?:-([1-9][0-9]{0,8}))?", name)
    if match is None or match[1] not in FAMILIES:
        known = ", ".join(f.example for f in FAMILIES.values())
        raise InputError(f"prompt pattern {name!r} is unknown; use for example {known}")
    return FAMILIES[match[1]].make(int(match[2]) if match[2] else None)


def draw_prompt(depth: NDArray[np.float32], pattern: str, seed: int) -> SparsePrompt:
    """A `SparsePrompt` drawn from one depth map (H, W) in metres; raises InputError when no pixel was hit."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    mask = get_pattern(pattern).draw(torch.from_numpy(np.ascontiguousarray(depth))[None], generator)[0].numpy()
    if not mask.any():
        size = f"{depth.shape[1]}x{depth.shape[0]}"
        raise InputError(f"prompt pattern {pattern!r} hits no known pixel of the {size} depth map; use a denser one")
    return SparsePrompt.from_depth(np.where(mask, depth, np.float32(np.nan)), unit="m")
