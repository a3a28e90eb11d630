"""How prompts are drawn from dense depth; one seeded library for training and evaluation.

A pattern is a frozen dataclass with `draw(depth_BHW, generator, image_B3HW) -> prompt_BHW`: depth maps in, prompt depth
out, NaN where there is no point (`drawing.Pattern`). Names for the command line are in `registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metricanything.patterns.drawing import Pattern


def get_pattern(name: str) -> Pattern:
    """The pattern of this name, such as `uniform-500` or `lidar-8+outliers-5`; InputError with the known ones."""
    from metricanything.patterns import registry

    return registry.parse(name)


def draw_prompt(
    depth: NDArray[np.float32], pattern: str, seed: int, image: NDArray[np.uint8] | None = None
) -> SparsePrompt:
    """A `SparsePrompt` drawn from one depth map (H, W) in metres.

    `image` uint8 (H, W, 3) is needed by keypoints alone. Raises InputError when there is no point: where the pattern
    hits no known pixel, and always for `none`.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    depth_BHW = torch.from_numpy(np.ascontiguousarray(depth, dtype=np.float32))[None]
    image_B3HW = None if image is None else torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    prompt = get_pattern(pattern).draw(depth_BHW, generator, image_B3HW)[0].numpy()
    if pattern == "none":
        raise InputError("prompt pattern 'none' has no points; predict with prompt=None instead")
    if np.isnan(prompt).all():
        size = f"{depth.shape[1]}x{depth.shape[0]}"
        raise InputError(f"prompt pattern {pattern!r} hits no known pixel of the {size} depth map; use a denser one")
    return SparsePrompt.from_depth(prompt, unit="m")
