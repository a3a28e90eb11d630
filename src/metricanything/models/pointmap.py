"""The *Prompt-Free Metric Point Map Model* as published: a DINOv2 encoder, a convolutional neck, and heads for points,
mask, metric scale and, in some checkpoints, normals (the layout of MoGe-2, arXiv 2507.02546).

Shapes: B batch, D token width, C channels, h w the token grid, H W the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.core.errors import InputError
from metricanything.models.conv_stack import ConvStack, ConvStackConfig
from metricanything.models.images import IMAGENET_MEAN, IMAGENET_STD
from metricanything.models.precision import exact, exactly
from metricanything.models.strips import run_in_strips
from metricanything.models.vit import ViT, ViTConfig

_FINEST = 2  # levels that are computed in strips
_STREAMED_ROWS = 32  # of the level before them
Remap = Literal["linear", "sinh", "exp", "sinh_exp"]


@dataclass(frozen=True)
class PointEncoderConfig:
    """The transformer, the blocks whose outputs are used, and the channels they are projected to."""

    backbone: ViTConfig
    intermediate_layers: tuple[int, ...]
    dim_out: int

    def __post_init__(self) -> None:
        layers = self.intermediate_layers
        if isinstance(layers, int):  # the last so many
            object.__setattr__(self, "intermediate_layers", tuple(range(self.backbone.depth))[-layers:])
        elif not layers or not all(0 <= i < self.backbone.depth for i in layers):
            raise InputError(f"intermediate_layers {list(layers)} must lie in 0..{self.backbone.depth - 1}")


def _stack(dim_in: Sequence[int], dim_out: int | None, blocks: tuple[int, ...]) -> ConvStackConfig:
    return ConvStackConfig(
        tuple(dim_in), (1024, 256, 128, 64, 32), (None,) * 4 + (dim_out,),
        ("conv_transpose",) * 3 + ("bilinear",), blocks, res_block_in_norm="none", res_block_hidden_norm="none",
    )  # fmt: skip


_NECK = _stack((1026, 2, 2, 2, 2), None, (0, 2, 2, 2, 0))
_POINTS = _stack((1024, 256, 128, 64, 32), 3, (0, 1, 1, 1, 0))
_MASK = _stack((1024, 256, 128, 64, 32), 1, (0, 1, 1, 1, 0))


@dataclass(frozen=True)
class PointMapConfig:
    """The `model_config` of a checkpoint; the defaults are those of the released student (moge-2-vitl)."""

    encoder: PointEncoderConfig = PointEncoderConfig(
        ViTConfig(patch_size=14, width=1024, depth=24, heads=16, mlp="gelu", mlp_width=4096), (5, 11, 17, 23), 1024
    )
    neck: ConvStackConfig = _NECK
    points_head: ConvStackConfig = _POINTS
    mask_head: ConvStackConfig | None = _MASK
    normal_head: ConvStackConfig | None = None
    scale_head: tuple[int, ...] | None = (1024, 1024, 1024, 1)
    remap_output: Remap = "exp"
    num_tokens_range: tuple[int, int] = (1200, 3600)


@dataclass(frozen=True)
class RawPointMap:
    """What the heads say, before resizing and remapping, at 16 times the token grid; float32.

    raw points (B, 3, 16 h, 16 w), mask logit (B, 1, ...) and raw normals (B, 3, ...) where there is such a head,
    log metric scale (B,), 0 without a scale head.
    """

    points_B3HW: Tensor
    mask_logit_B1HW: Tensor | None
    normal_B3HW: Tensor | None
    log_scale_B: Tensor


class PointEncoder(nn.Module):
    """Image in [0, 1] -> sum of projected features, and the class token."""

    def __init__(self, config: PointEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.backbone.width
        self.backbone = ViT(config.backbone)
        self.output_projections = nn.ModuleList(nn.Conv2d(width, config.dim_out, 1) for _ in config.intermediate_layers)
        self.image_mean: Tensor
        self.image_std: Tensor
        self.register_buffer("image_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, image_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, h patch, w patch) -> (B, C, h, w) and the class token (B, D) of the last tapped block, normalised."""
        vit, patch = self.backbone, self.config.backbone.patch_size
        h, w = image_B3HW.shape[-2] // patch, image_B3HW.shape[-1] // patch
        # In the order of the blocks, however the configuration lists them, as published.
        _, taps = vit((image_B3HW - self.image_mean) / self.image_std, sorted(self.config.intermediate_layers))
        first, *others = self.output_projections
        normed = vit.norm(taps.pop(0))
        features = first(vit.patch_map(normed, h, w))
        for project in others:
            normed = vit.norm(taps.pop(0))
            features = features.add_(project(vit.patch_map(normed, h, w)))
        return features, normed[:, 0]


class ScaleHead(nn.Sequential):
    """Linear layers with ReLU between them."""

    def __init__(self, dims: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(dims):
            layers += [nn.Linear(c_in, c_out), nn.ReLU()]
        super().__init__(*layers[:-1])


class PointMap(nn.Module):
    """Image in [0, 1], already of the size of the token grid -> raw points, mask, normals, metric scale."""

    prompted = False
    Config = PointMapConfig

    def __init__(self, config: PointMapConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PointEncoder(config.encoder)
        self.neck = ConvStack(config.neck)
        self.points_head = ConvStack(config.points_head)
        if config.mask_head is not None:
            self.mask_head = ConvStack(config.mask_head)
        if config.normal_head is not None:
            self.normal_head = ConvStack(config.normal_head)
        if config.scale_head is not None:
            self.scale_head = exact(ScaleHead(config.scale_head))
        for head in self.heads.values():
            exact(head.output_blocks[-1])

    @property
    def backbone(self) -> ViT:
        """The transformer, which `backbones.load_backbone` can fill."""
        return self.encoder.backbone

    @property
    def heads(self) -> dict[str, ConvStack]:
        """The heads that give maps, by name, in the order of their outputs."""
        names = ("points_head", "mask_head", "normal_head")
        return {name: getattr(self, name) for name in names if getattr(self.config, name) is not None}

    def forward(self, image_B3HW: Tensor, aspect_B: Tensor, *, streamed: bool = True) -> RawPointMap:
        """image: (B, 3, 14 h, 14 w) in [0, 1]; aspect: width / height of the image it was resized from (B,).

        streamed: the finest level, by far the widest, is computed in strips: the same output for less memory.
        """
        features, token = self.encoder(image_B3HW)
        maps = self._heads(features, aspect_B, streamed)
        scale = (
            exactly(self.scale_head, token)[:, 0] if self.config.scale_head is not None else torch.zeros_like(aspect_B)
        )
        return RawPointMap(maps["points_head"], maps.get("mask_head"), maps.get("normal_head"), scale)

    def _heads(self, features_BChw: Tensor, aspect_B: Tensor, streamed: bool) -> dict[str, Tensor]:
        """The last level of every head, float32: coarse levels whole, the finest, by far the widest, in strips."""
        heads, levels = list(self.heads.values()), len(self.config.neck.dim_res_blocks)
        split = max(levels - _FINEST, 1)
        h, w = features_BChw.shape[-2:]
        uv = [view_plane_grid(h << i, w << i, aspect_B).to(features_BChw.dtype) for i in range(levels)]
        neck, outputs = self.neck.levels([torch.cat([features_BChw, uv[0]], dim=1), *uv[1:]], split)
        del features_BChw
        coarse = [head.levels(outputs, split)[0] for head in heads]
        outputs.clear()

        def finest(neck: Tensor, *others: Tensor) -> Tensor:
            planes, coarse = others[: levels - split], list(others[levels - split :])
            for i, plane in enumerate(planes, split):
                neck = self.neck.level(i, neck, plane)
                shared = self.neck.output_blocks[i](neck)
                coarse = [head.level(i, x, shared) for head, x in zip(heads, coarse, strict=True)]
            last = [exactly(head.output_blocks[-1], x) for head, x in zip(heads, coarse, strict=True)]
            return torch.cat(last, dim=1)

        reach = self.neck.reach(split) + max(head.reach(split) for head in heads)
        maps = run_in_strips(
            finest,
            [neck, *uv[split:], *coarse],
            units=neck.shape[-2],
            rows=_STREAMED_ROWS if streamed and math.isfinite(reach) else None,
            halo=math.ceil(reach) if math.isfinite(reach) else 0,
        )
        widths = [head.config.dim_out[-1] or head.config.dim_res_blocks[-1] for head in heads]
        return dict(zip(self.heads, maps.split(widths, dim=1), strict=True))

    def remap(self, raw_B3HW: Tensor) -> Tensor:
        """Affine points (B, 3, H, W) of the raw output, after it was resized to the image."""
        return remapped(raw_B3HW, self.config.remap_output)


def remapped(raw_B3HW: Tensor, kind: Remap) -> Tensor:
    """Affine points (B, 3, H, W) of raw ones."""
    xy, z = raw_B3HW[:, :2], raw_B3HW[:, 2:]
    if kind == "linear":
        return raw_B3HW
    if kind == "sinh":
        return raw_B3HW.sinh()
    z = z.exp()
    return torch.cat([xy * z if kind == "exp" else xy.sinh(), z], dim=1)


def token_grid(height: int, width: int, tokens: int) -> tuple[int, int]:
    """Rows and columns of a grid of about `tokens` patches with the image's aspect ratio, as published."""
    aspect = width / height
    return max(round(math.sqrt(tokens / aspect)), 1), max(round(math.sqrt(tokens * aspect)), 1)


def resize_to_grid(image_B3HW: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The image at the network's input size: bilinear with antialiasing, as published."""
    size = (grid[0] * patch, grid[1] * patch)
    return F.interpolate(image_B3HW, size, mode="bilinear", align_corners=False, antialias=True)


def view_plane_grid(height: int, width: int, aspect_B: Tensor) -> Tensor:
    """(B, 2, height, width) float32 coordinates of the pixel centres of a grid over an image of the given aspect.

    In units of half the image diagonal, centred: u spans +-a / sqrt(1 + a^2) (w - 1) / w, v +-1 / sqrt(1 + a^2)
    (h - 1) / h, with the aspect ratio a of the image, not of the grid.
    """
    span = (1 + aspect_B.square()).rsqrt()
    u, v = (torch.linspace(-(n - 1) / n, (n - 1) / n, n, device=aspect_B.device) for n in (width, height))
    u_BW, v_BH = (span * aspect_B)[:, None] * u, span[:, None] * v
    shape = (len(aspect_B), height, width)
    return torch.stack([u_BW[:, None].expand(shape), v_BH[:, :, None].expand(shape)], dim=1)
