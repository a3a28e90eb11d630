"""Batch: what travels from the loader to the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from metricanything.data.photometric import develop


@dataclass(frozen=True)
class Batch:
    """Training views as tensors; B images of H x W pixels."""

    image_B3HW: Tensor
    """float32 in [0, 1]; of a batch to be developed on its device, uint8 as it was decoded."""
    depth_BHW: Tensor
    """float32 z-depth in metres; NaN unknown, +inf sky."""
    focal_B: Tensor
    """float32 horizontal focal length over image width."""
    plane_BHW2: Tensor
    """float32 x/z and y/z of every pixel's ray; NaN where it sees nothing."""
    trusted_B: Tensor
    """bool: rendered labels and a teacher's: dense, with edges to trust. Others are trimmed, their edges not used."""
    metric_B: Tensor
    """bool: depth is in metres, not just up to scale."""
    sparse_B: Tensor
    """bool: depth is that of single points, a LiDAR's or of a reconstruction, not of surfaces."""
    names: tuple[str, ...]
    sources: tuple[str, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()
    """Which set of shards, and which row of it."""
    photometric_BP: Tensor | None = None
    """float32 parameters of the photometric augmentation, where `developed` is still to apply it."""
    prompt_BHW: Tensor | None = None
    """float32 prompt depth in metres, NaN without a point; drawn by the loader's `prepare`."""
    damaged: tuple[str, ...] = ()
    """What could not be read and was replaced, each with its reason."""

    def __len__(self) -> int:
        return len(self.focal_B)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device; names, and the parameters of `developed`, stay where they are."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return dataclasses.replace(moved, photometric_BP=self.photometric_BP)

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from where copies to a GPU can overlap with its work."""
        return self._each(lambda tensor: tensor.pin_memory())

    def developed(self) -> Batch:
        """The batch with float32 images, its photometric augmentation applied where that was left to its device."""
        if self.photometric_BP is None:
            return self
        return dataclasses.replace(self, image_B3HW=develop(self.image_B3HW, self.photometric_BP), photometric_BP=None)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return dataclasses.replace(self, **cast(dict[str, Any], tensors))


def canonical(depth: Tensor, focal_B: Tensor) -> Tensor:
    """Canonical inverse depth C = f / (W D) (B, 1, H, W) of z-depth (B, H, W); 0 where unknown or infinite."""
    known = torch.isfinite(depth) & (depth > 0)
    return torch.where(known, focal_B[:, None, None] / torch.where(known, depth, 1.0), 0.0)[:, None]
