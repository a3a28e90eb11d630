"""Shards -> mixture -> augmentation -> batch.

Batch k is a pure function of (seed, k): which frames, which crops, which colours. Training that resumes at step k
therefore sees exactly what it would have seen, without any state to store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.data.augment import random_view


@dataclass(frozen=True)
class Batch:
    """Training views as tensors; B images of H x W pixels."""

    image_B3HW: Tensor
    """float32 in [0, 1]."""
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
    names: tuple[str, ...]


def canonical(depth: Tensor, focal_B: Tensor) -> Tensor:
    """Canonical inverse depth C = f / (W D) (B, 1, H, W) of z-depth (B, H, W); 0 where unknown or infinite."""
    known = torch.isfinite(depth) & (depth > 0)
    return torch.where(known, focal_B[:, None, None] / torch.where(known, depth, 1.0), 0.0)[:, None]


class Mixture:
    """A weighted mixture of the sources in a shard folder.

    `weights` gives the relative share of each source, 0 for those it does not name; by default the share is the square
    root of the number of frames, so that small real sources are not drowned by large rendered ones. Raises InputError
    for weights of unknown sources.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        weights: dict[str, float] | None = None,
        cache_bytes: int = 1_000_000_000,
    ) -> None:
        self.sizes, self.batch_size, self.seed = tuple(sizes), batch_size, seed
        sources = shards.sources()
        names, source_of = np.unique(sources, return_inverse=True)
        self._members = {str(name): np.flatnonzero(source_of == i) for i, name in enumerate(names)}
        if weights is None:
            weights = {name: len(own) ** 0.5 for name, own in self._members.items()}
        share = np.array([weights.get(name, 0.0) for name in self._members], dtype=float)
        if not set(weights) <= set(self._members) or not (share >= 0).all() or not share.sum() > 0:
            raise InputError(f"mixture weights {weights} must be >= 0, for sources among {', '.join(self._members)}")
        self._share = share / share.sum()
        self._shards, self._cache, self._cache_left = shards, dict[int, Frame](), cache_bytes

    def batch(self, step: int) -> Batch:
        """Batch number `step`; all its images have one of `sizes` (height, width)."""
        rng = np.random.default_rng((self.seed, step))
        height, width = self.sizes[rng.integers(len(self.sizes))]
        members = list(self._members.values())
        views, frames = [], []
        for source in rng.choice(len(members), size=self.batch_size, p=self._share):
            frame = self._frame(int(rng.choice(members[source])))
            frames.append(frame)
            views.append(random_view(frame, rng, height, width))
        planes = [_plane(view.camera.rays()) for view in views]
        return Batch(
            # Channels stay last in memory, which is how convolutions are fastest on a CPU.
            image_B3HW=torch.from_numpy(np.stack([v.image for v in views])).permute(0, 3, 1, 2).float() / 255,
            depth_BHW=torch.from_numpy(np.stack([v.depth for v in views])),
            focal_B=torch.tensor([v.camera.fx / v.camera.width for v in views], dtype=torch.float32),
            plane_BHW2=torch.from_numpy(np.stack(planes)),
            trusted_B=torch.tensor([f.kind == "rendered" or "pseudo_label" in f.notes for f in frames]),
            metric_B=torch.tensor([f.scale == "metric" for f in frames]),
            names=tuple(f.name for f in frames),
        )

    def _frame(self, number: int) -> Frame:
        """Decoded frames are kept until the budget is spent; with uniform draws, evicting would gain nothing."""
        if number in self._cache:
            return self._cache[number]
        frame = self._shards.frame(number)
        size = frame.image.nbytes + frame.depth.nbytes
        if size <= self._cache_left:
            self._cache[number] = frame
            self._cache_left -= size
        return frame


def _plane(rays: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rays[..., 2:] > 0, rays[..., :2] / rays[..., 2:], np.float32(np.nan))
