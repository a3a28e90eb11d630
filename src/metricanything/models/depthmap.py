"""The *Prompt-Free Metric Depth Map Model* as published: 35 tiles through one ViT, a residual decoder, C at the end.

The layout is that of MetricAnything's released student (DINOv3 ViT-H+/16) and, with a second ViT for the global view
and a field-of-view network, of Depth Pro (arXiv 2410.02073). Parameter names are the published ones.

Shapes: B batch, D token width, C channels, M side of a map, S side of the image (1536).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.models.images import IMAGENET_MEAN, IMAGENET_STD
from metricanything.models.outputs import LOG_C_START
from metricanything.models.precision import exact, exactly
from metricanything.models.strips import run_in_strips
from metricanything.models.tiles import LEVELS, TILES_AT_ONCE, Tile, cut, paste, pyramid, tile_places
from metricanything.models.vit import ViT, ViTConfig

TILE = 384
SIDE = 4 * TILE
_STREAMED_ROWS = 12  # tokens: the finest maps have 96 rows of them, so strips of an eighth
_FUSION_REACH = 5  # rows: a skip convolution and two residual blocks of two convolutions each


@dataclass(frozen=True)
class Projection:
    """One output of the encoder: a 1x1 convolution to `hidden` channels, then `ups` doublings to `width`."""

    name: str
    hidden: int
    width: int
    ups: int


@dataclass(frozen=True)
class DepthMapConfig:
    """Sizes of the network; the defaults are those of the released student."""

    vit: ViTConfig = ViTConfig(  # noqa: RUF009 (frozen)
        patch_size=16, width=1280, depth=32, heads=20, mlp="swiglu", mlp_width=5120, registers=4,
        position="rope", eps=1e-5, bias_mask=True,
    )  # fmt: skip
    hook_block_ids: tuple[int, ...] = (7, 13, 19, 25)
    """Blocks whose raw outputs become `upsample_latent0`, `upsample_latent1`, ..."""
    projections: tuple[Projection, ...] = (
        Projection("upsample0", 256, 256, 3),
        Projection("upsample_latent3", 320, 320, 2),
        Projection("upsample_latent2", 320, 320, 2),
        Projection("upsample_latent1", 320, 320, 2),
        Projection("upsample_latent0", 320, 320, 1),
        Projection("upsample1", 320, 320, 1),
        Projection("upsample2", 640, 640, 1),
    )
    """Inputs of the decoder from fine to coarse; the last is the coarsest level, fused with the global view."""
    decoder_width: int = 256
    plain_skip: bool = False
    """Whether the finest input enters the decoder without a convolution (Depth Pro)."""
    deconvs: tuple[int, ...] = (1, 4, 5, 6)
    """Fusion blocks that double the resolution."""
    head_widths: tuple[int, ...] = (128, 32)
    """Channels of the head after its first convolution, and at full resolution."""
    head_convs: int = 4
    """Further 3x3 convolutions of the head at full resolution."""
    image_encoder: ViTConfig | None = None
    """A second ViT for the global view, and a field-of-view network with a third (Depth Pro)."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    inverse_depth_range: tuple[float, float] = (1e-3, 1e3)
    """1/m; published predictions are clamped to it."""


class Upsample(nn.Sequential):
    """1x1 convolution, then transposed 2x2 convolutions, without biases or activations."""

    def __init__(self, width: int, projection: Projection) -> None:
        hidden, out = projection.hidden, projection.width
        layers: list[nn.Module] = [nn.Conv2d(width, hidden, 1, bias=False)]
        for i in range(projection.ups):
            layers.append(nn.ConvTranspose2d(out if i else hidden, out, 2, stride=2, bias=False))
        super().__init__(*layers)

    def project(self, x_BDMM: Tensor) -> Tensor:
        """The 1x1 convolution alone, which may be applied to every tile before they are merged."""
        return self[0](x_BDMM)

    def expand(self, x_BCMM: Tensor) -> Tensor:
        """The doublings alone."""
        for layer in list(self)[1:]:
            x_BCMM = layer(x_BCMM)
        return x_BCMM


class TileEncoder(nn.Module):
    """Image -> projected feature maps, one per input of the decoder, not yet upsampled."""

    def __init__(self, config: DepthMapConfig) -> None:
        super().__init__()
        self.config = config
        width, lowest = config.vit.width, config.projections[-1]
        self.patch_encoder = ViT(config.vit)
        if config.image_encoder is not None:
            self.image_encoder = ViT(config.image_encoder)
        for projection in config.projections:
            self.add_module(projection.name, Upsample(width, projection))
        self.upsample_lowres = nn.ConvTranspose2d(width, lowest.width, 2, stride=2)
        self.fuse_lowres = nn.Conv2d(2 * lowest.width, lowest.width, 1)

    def forward(self, image_B3SS: Tensor, tiles_per_pass: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Merged maps (fine to coarse, without the coarsest input) and the coarsest input, fused and upsampled.

        tiles_per_pass: how many of the 35 tiles of an image go through the ViT together; all of them when None.
        """
        levels = pyramid(image_B3SS)
        b, t = image_B3SS.shape[0], TILE // self.config.vit.patch_size
        merged: dict[str, Tensor] = {}
        lowest = None
        places = list(tile_places())
        for group in _chunks(places, tiles_per_pass or TILES_AT_ONCE):
            pixels = torch.cat([cut(levels, tile, TILE) for tile in group])
            last, tapped = self.patch_encoder(pixels, self.config.hook_block_ids if group[0].level == 0 else ())
            last = self.patch_encoder.norm(last)
            for i, tile in enumerate(group):
                own = slice(i * b, (i + 1) * b)
                sources = {f"upsample{tile.level}": last[own]}
                if tile.level == 0:
                    sources |= {f"upsample_latent{k}": tap[own] for k, tap in enumerate(tapped)}
                for name, tokens in sources.items():
                    features = self.patch_encoder.patch_map(tokens, t, t)
                    if tile.level == len(LEVELS) - 1:
                        lowest = features
                        continue
                    self._merge(merged, name, getattr(self, name).project(features), tile)
        assert lowest is not None
        return [merged[p.name] for p in self.config.projections[:-1]], self._lowres(lowest, levels[-1])

    def _merge(self, merged: dict[str, Tensor], name: str, features_BCtt: Tensor, tile: Tile) -> None:
        b, c, t, _ = features_BCtt.shape
        if name not in merged:
            side = LEVELS[tile.level].merged(t)
            merged[name] = torch.empty(
                (b, c, side, side), dtype=features_BCtt.dtype, device=features_BCtt.device,
                memory_format=torch.channels_last,
            )  # fmt: skip
        paste(merged[name], features_BCtt, tile)

    def _lowres(self, coarse_BDtt: Tensor, small_B3TT: Tensor) -> Tensor:
        """The coarsest level joined with the global view: the same features again, or those of a second ViT."""
        view = coarse_BDtt
        if self.config.image_encoder is not None:
            t = TILE // self.config.image_encoder.patch_size
            view = self.image_encoder.patch_map(self.image_encoder.norm(self.image_encoder(small_B3TT)[0]), t, t)
        coarse = getattr(self, self.config.projections[-1].name)(coarse_BDtt)
        return self.fuse_lowres(torch.cat([coarse, self.upsample_lowres(view)], dim=1))


def _chunks(places: Sequence[Tile], size: int) -> list[list[Tile]]:
    """Tiles in groups of at most `size`; when streamed, a group stays within one level (only the first is tapped)."""
    if size >= len(places):
        return [list(places)]
    groups: list[list[Tile]] = []
    for tile in places:
        if groups and groups[-1][0].level == tile.level and len(groups[-1]) < size:
            groups[-1].append(tile)
        else:
            groups.append([tile])
    return groups


class Residual(nn.Module):
    """y + conv(relu(conv(relu(y))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x_BCMM: Tensor) -> Tensor:
        """(B, C, M, M) -> (B, C, M, M)."""
        return x_BCMM + self.residual(x_BCMM)


class Fusion(nn.Module):
    """Add a skip input, refine, and double the resolution where the layout says so."""

    def __init__(self, width: int, *, skip: bool, deconv: bool) -> None:
        super().__init__()
        self.resnet1 = Residual(width) if skip else None
        self.resnet2 = Residual(width)
        self.deconv = nn.ConvTranspose2d(width, width, 2, stride=2, bias=False) if deconv else None
        self.out_conv = nn.Conv2d(width, width, 1)

    def merge(self, x_BCMM: Tensor, skip_BCMM: Tensor | None) -> Tensor:
        """The part at the input's resolution."""
        if skip_BCMM is not None and self.resnet1 is not None:
            x_BCMM = x_BCMM + self.resnet1(skip_BCMM)
        return self.resnet2(x_BCMM)

    def expand(self, x_BCMM: Tensor) -> Tensor:
        """The doubling and the output convolution."""
        return self.out_conv(x_BCMM if self.deconv is None else self.deconv(x_BCMM))


class Decoder(nn.Module):
    """The convolution of every input and the fusion blocks; `DepthMap` runs them level by level."""

    def __init__(self, config: DepthMapConfig) -> None:
        super().__init__()
        width, inputs = config.decoder_width, config.projections
        self.convs = nn.ModuleList(nn.Conv2d(p.width, width, 3, padding=1, bias=False) for p in inputs)
        if config.plain_skip:
            self.convs[0] = nn.Identity()
        last = len(inputs) - 1
        self.fusions = nn.ModuleList(
            # Depth Pro has weights for a skip input of the coarsest level too, which it never gets.
            Fusion(width, skip=i != last or config.image_encoder is not None, deconv=i in config.deconvs)
            for i in range(len(inputs))
        )

    def fusion(self, i: int) -> Fusion:
        """Fusion block i, from fine (0) to coarse."""
        return cast(Fusion, self.fusions[i])


class DepthMap(nn.Module):
    """Normalised square image -> canonical inverse depth C = f_px / (W D) >= 0."""

    prompted = False
    Config = DepthMapConfig

    def __init__(self, config: DepthMapConfig) -> None:
        super().__init__()
        self.config = config
        width, (half, full) = config.decoder_width, config.head_widths
        self.encoder = TileEncoder(config)
        self.decoder = Decoder(config)
        layers: list[nn.Module] = [
            nn.Conv2d(width, half, 3, padding=1),
            nn.ConvTranspose2d(half, half, 2, stride=2),
            nn.Conv2d(half, full, 3, padding=1),
            nn.ReLU(),
        ]
        for _ in range(config.head_convs):
            layers += [nn.Conv2d(full, full, 3, padding=1), nn.ReLU()]
        last = exact(nn.Conv2d(full, 1, 1))
        # Published runs start at 0, where the ReLU can be dead; this is a surface some 3 m away.
        nn.init.constant_(last.bias, math.exp(LOG_C_START))  # type: ignore[arg-type]
        self.head = nn.Sequential(*layers, last, nn.ReLU())
        if config.image_encoder is not None:
            self.fov = FieldOfView(width, config.image_encoder)

    @property
    def backbone(self) -> ViT:
        """The transformer that sees the tiles, which `backbones.load_backbone` can fill."""
        return self.encoder.patch_encoder

    def forward(self, image_B3SS: Tensor, tiles_per_pass: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Canonical inverse depth (B, 1, S, S) and the horizontal field of view in degrees (B,), if it has that part.

        image: (B, 3, 1536, 1536), normalised with the configuration's mean and std. With `tiles_per_pass`, the ViT sees
        that many tiles at a time and the decoder works in strips: the same output for a fraction of the memory.
        """
        maps, lowest = self.encoder(image_B3SS, tiles_per_pass)
        last = len(maps)
        coarse = self.decoder.convs[last](lowest)
        x = self.decoder.fusion(last).merge(coarse, None)
        for i in reversed(range(last)):
            # The decoder's inputs are upsampled when they are needed, not all before.
            x = self._stage(i, x, maps.pop(), _STREAMED_ROWS if tiles_per_pass else None)
        return x, self.fov(image_B3SS, coarse) if self.config.image_encoder is not None else None

    def _stage(self, i: int, x_BCMM: Tensor, map_BCMM: Tensor, rows: int | None) -> Tensor:
        """From fusion i + 1's refined features to fusion i's; the finest goes on to the output."""
        above, fusion, upsample = self.decoder.fusion(i + 1), self.decoder.fusion(i), self.config.projections[i].name

        def local(x: Tensor, features: Tensor) -> Tensor:
            skip = self.decoder.convs[i](getattr(self.encoder, upsample).expand(features))
            x = fusion.merge(above.expand(x), skip)
            return x if i else exactly(self.head[-2:], self.head[:-2](fusion.expand(x)))

        units = map_BCMM.shape[-2]
        per_unit = x_BCMM.shape[-2] * (1 if above.deconv is None else 2) // units
        reach = _FUSION_REACH + (0 if i else 1 + (2 + self.config.head_convs) // 2)  # the head ends at twice the size
        return run_in_strips(local, [x_BCMM, map_BCMM], units=units, rows=rows, halo=-(-reach // per_unit))


class FieldOfView(nn.Module):
    """Depth Pro's field-of-view network: a small ViT's tokens and the coarsest decoder features -> degrees."""

    def __init__(self, width: int, vit: ViTConfig) -> None:
        super().__init__()
        w2, w4, w8 = width // 2, width // 4, width // 8
        self.encoder = nn.Sequential(ViT(vit), nn.Linear(vit.width, w2))
        self.downsample = nn.Sequential(nn.Conv2d(width, w2, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Sequential(
            nn.Conv2d(w2, w4, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(w4, w8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(w8, 1, 6),
        )  # fmt: skip

    def forward(self, image_B3SS: Tensor, coarse_BCMM: Tensor) -> Tensor:
        """(B,) degrees."""
        vit, linear = self.encoder[0], self.encoder[1]
        assert isinstance(vit, ViT)
        small = F.interpolate(image_B3SS, scale_factor=0.25, mode="bilinear", align_corners=False)
        tokens = linear(vit.norm(vit(small)[0]))[:, vit.config.prefix :]
        lowres = self.downsample(coarse_BCMM)
        return self.head(tokens.transpose(1, 2).reshape(lowres.shape) + lowres)[:, 0, 0, 0]
