"""MoGe-2's convolutional stack: a pyramid of residual blocks, each level twice the size of the one before.

Architecture and parameter names of the published point-map models (MoGe-2, arXiv 2507.02546, and its code); the
configuration is the one stored in their checkpoints.

Shapes: B batch, C channels, h w the token grid, times 2^level.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from metricanything.core.errors import InputError

Norm = Literal["layer_norm", "group_norm", "instance_norm", "none"]
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "silu": nn.SiLU,
    "elu": nn.ELU,
}
_RESAMPLERS = ("conv_transpose", "bilinear", "nearest", "pixel_shuffle")


@dataclass(frozen=True)
class ConvStackConfig:
    """Sizes of a stack, one entry per level; a single value for all levels is spread over them."""

    dim_in: tuple[int | None, ...]
    """Channels of each level's input; None = the input has the level's own width."""
    dim_res_blocks: tuple[int, ...]
    """Channels of each level."""
    dim_out: tuple[int | None, ...]
    """Channels of each level's output; None = the level's own width."""
    resamplers: tuple[str, ...]
    """How each level but the last is doubled."""
    num_res_blocks: tuple[int, ...]
    dim_times_res_block_hidden: int = 1
    res_block_in_norm: Norm = "layer_norm"
    res_block_hidden_norm: Norm = "group_norm"
    activation: str = "relu"

    def __post_init__(self) -> None:
        levels = len(self.dim_res_blocks)
        for name, count in (("dim_in", levels), ("dim_out", levels), ("num_res_blocks", levels),
                            ("resamplers", levels - 1)):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, int | str) or value is None:
                object.__setattr__(self, name, (value,) * count)
            elif len(value) < count:
                raise InputError(f"{name} needs {count} values for {levels} levels, got {len(value)}")
        if unknown := [name for name in self.resamplers if name not in _RESAMPLERS]:
            raise InputError(f"resampler {unknown[0]!r} is unknown; this version builds {', '.join(_RESAMPLERS)}")
        if self.activation not in _ACTIVATIONS:
            raise InputError(f"activation {self.activation!r} is unknown; use {', '.join(_ACTIVATIONS)}")


def conv3x3(c_in: int, c_out: int) -> nn.Conv2d:
    """The stack's 3x3 convolution: borders are replicated."""
    return nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="replicate")


def _norm(kind: Norm, width: int) -> nn.Module:
    if kind == "group_norm":
        return nn.GroupNorm(width // 32, width)
    if kind == "layer_norm":
        return nn.GroupNorm(1, width)
    return nn.InstanceNorm2d(width) if kind == "instance_norm" else nn.Identity()


class ResidualConvBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))))))."""

    def __init__(self, width: int, config: ConvStackConfig) -> None:
        super().__init__()
        act, hidden = _ACTIVATIONS[config.activation], config.dim_times_res_block_hidden * width
        self.layers = nn.Sequential(
            _norm(config.res_block_in_norm, width), act(), conv3x3(width, hidden),
            _norm(config.res_block_hidden_norm, hidden), act(), conv3x3(hidden, width),
        )  # fmt: skip

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.layers(x_BCHW).add_(x_BCHW)


def resampler(kind: str, c_in: int, c_out: int) -> nn.Sequential:
    """Doubles a map: (B, c_in, H, W) -> (B, c_out, 2 H, 2 W)."""
    if kind == "conv_transpose":
        return nn.Sequential(nn.ConvTranspose2d(c_in, c_out, 2, stride=2), conv3x3(c_out, c_out))
    if kind == "pixel_shuffle":
        return nn.Sequential(conv3x3(c_in, 4 * c_out), nn.PixelShuffle(2), conv3x3(c_out, c_out))
    align = False if kind == "bilinear" else None
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind, align_corners=align), conv3x3(c_in, c_out))


class ConvStack(nn.Module):
    """Level by level: add the level's input, refine, hand out, double."""

    def __init__(self, config: ConvStackConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.dim_res_blocks

        def pointwise(c_in: int | None, c_out: int | None, width: int) -> nn.Module:
            if c_in is None or c_out is None:
                return nn.Identity()
            return nn.Conv2d(c_in, c_out, 1)

        self.input_blocks = nn.ModuleList(pointwise(c, w, w) for c, w in zip(config.dim_in, widths, strict=False))
        self.res_blocks = nn.ModuleList(
            nn.Sequential(*(ResidualConvBlock(w, config) for _ in range(n)))
            for w, n in zip(widths, config.num_res_blocks, strict=False)
        )
        self.resamplers = nn.ModuleList(
            resampler(kind, *pair) for kind, pair in zip(config.resamplers, pairwise(widths), strict=False)
        )
        self.output_blocks = nn.ModuleList(pointwise(w, c, w) for c, w in zip(config.dim_out, widths, strict=False))

    def level(self, i: int, x_BCHW: Tensor | None, feature_BCHW: Tensor | None) -> Tensor:
        """Level i from the refined level before it (None at level 0) and its input; before its output block."""
        added = None if feature_BCHW is None else self.input_blocks[i](feature_BCHW)
        if x_BCHW is not None:
            x_BCHW = self.resamplers[i - 1](x_BCHW)
            added = x_BCHW if added is None else x_BCHW.add_(added)
        if added is None:
            raise ValueError("level 0 needs an input")
        return self.res_blocks[i](added)

    def levels(self, features: Sequence[Tensor | None], count: int) -> tuple[Tensor, list[Tensor]]:
        """The first `count` levels: the last one refined, and the outputs of all."""
        x: Tensor | None = None
        outputs = []
        for i in range(count):
            x = self.level(i, x, features[i])
            outputs.append(self.output_blocks[i](x))
        assert x is not None
        return x, outputs

    def reach(self, first: int) -> float:
        """Rows of level `first` - 1 that a pixel of the last level depends on, to either side; inf for all of them."""
        config, rows = self.config, 0.0
        for i in range(first, len(config.dim_res_blocks)):
            blocks = config.num_res_blocks[i]
            if blocks and (config.res_block_in_norm, config.res_block_hidden_norm) != ("none", "none"):
                return math.inf
            # Doubling looks one row of the level before to the side, every convolution one of its own.
            rows += 0.5 ** (i - first) + (1 + 2 * blocks) * 0.5 ** (i - first + 1)
        return rows
