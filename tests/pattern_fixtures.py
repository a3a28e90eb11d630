"""What the tests of the prompt patterns share: drawing by name, and depth maps and images to draw from."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from metricanything.patterns import get_pattern
from metricanything.patterns.registry import FAMILIES, NOISES, REGIONS

HAS_OPENCV = find_spec("cv2") is not None
TABLES = (FAMILIES, REGIONS, NOISES)

#: Every family with and without numbers, every suffix with and without numbers, and two chains of suffixes.
NAMES = sorted(
    {f.example for table in TABLES for f in table.values()}
    | {f.name for f in FAMILIES.values() if f.plain is not None}
    | {f"uniform+{f.name}" for table in (REGIONS, NOISES) for f in table.values()}
    | {"all+hole-5", "grid-4+hole-5+fov-60+outliers-10+noise-1", "lidar+shift-2+range-1-3"}
)
#: Names whose points may lie elsewhere than the depth they were drawn from, and those that change values.
MOVED = [n for n in NAMES if "radar" in n or "+shift" in n]
CHANGED = [n for n in NAMES if n in MOVED or "downscale" in n or "+outliers" in n or "+noise" in n]


def drawable(names: list[str]) -> list[str]:
    """Those that can be drawn here: keypoints need OpenCV, which is an extra."""
    return [n for n in names if HAS_OPENCV or not n.startswith(("sift", "orb"))]


def draw(pattern: str, depth: Tensor, seed: int = 0) -> Tensor:
    """The prompt of a pattern by name, from maps (B, H, W) and images that the sizes alone decide."""
    return get_pattern(pattern).draw(depth, torch.Generator().manual_seed(seed), image_like(depth))


def hits(pattern: str, depth: Tensor, seed: int = 0) -> Tensor:
    """bool (B, H, W): where that prompt has points."""
    return torch.isfinite(draw(pattern, depth, seed))


def image_like(depth: Tensor) -> Tensor:
    """Blocky noise in [0, 1] with corners to detect: float32 (B, 3, H, W), each image of its own."""
    batch, h, w = depth.shape
    blocks = np.random.default_rng(0).random((batch, 3, h // 8 + 1, w // 8 + 1))
    image = np.kron(blocks, np.ones((8, 8)))[:, :, :h, :w]
    return torch.from_numpy(image.astype(np.float32))


def sparse_depth(seed: int, shape: tuple[int, int, int], share: float) -> Tensor:
    """Depths between 1 and 9 m, of which this share is known."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 9, shape).astype(np.float32)
    depth[rng.random(shape) > share] = np.nan
    return torch.from_numpy(depth)
