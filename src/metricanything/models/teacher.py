"""The *Prompt-Based Metric Depth Map Model* at full size: a plain ViT, a DPT-style decoder, the prompt at every stage.

MetricAnything (arXiv 2601.22054) shows a ViT that never sees the prompt and a decoder whose stages alternate with
fusions of it, but publishes neither weights nor code; the decoder here is DPT's (Ranftl et al., arXiv 2103.13413), the
fusion PromptDA's zero-initialised one (arXiv 2412.14015) on a validity-aware pyramid (`models.prompting`). The largest
size takes the depth-map student's tile pyramid and decoder instead.

Shapes: B batch, D token width, C channels, H W pixels (multiples of 32), h w the token grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.core.errors import InputError
from metricanything.models.depthmap import Decoder, DepthMapConfig, Residual, TileEncoder
from metricanything.models.images import normalise
from metricanything.models.outputs import CHANNELS
from metricanything.models.precision import exact, exactly
from metricanything.models.prompting import PromptAnchor, PromptedDepth, PromptFusion, PromptLevel
from metricanything.models.vit import ViT, ViTConfig

STRIDES = (4, 8, 16, 32)  # of the reassembled feature maps
_PATCH = 16


def dinov2(width: int, depth: int, heads: int) -> ViTConfig:
    """A DINOv2 ViT (arXiv 2304.07193, Apache-2.0) whose patches are resampled from 14 to 16 pixels, as in Depth Pro."""
    return ViTConfig(_PATCH, width, depth, heads, mlp="gelu", mlp_width=4 * width)


def dinov3(width: int, depth: int, heads: int) -> ViTConfig:
    """A DINOv3 ViT (arXiv 2508.10104, DINOv3 License) with rotary positions and four registers."""
    return ViTConfig(
        _PATCH, width, depth, heads, mlp="gelu", mlp_width=4 * width, registers=4, position="rope", eps=1e-5,
        bias_mask=True,
    )  # fmt: skip


@dataclass(frozen=True)
class TeacherConfig:
    """Sizes of a teacher; the default is `small`."""

    vit: ViTConfig = dinov2(384, 12, 6)  # noqa: RUF009 (frozen)
    taps: tuple[int, ...] = (2, 5, 8, 11)
    """Blocks whose normalised outputs are reassembled to strides 4, 8, 16 and 32."""
    reassembled: tuple[int, ...] = (48, 96, 192, 384)
    """Channels of the reassembled maps."""
    width: int = 128
    """Channels of the decoder."""
    fusion_width: int = 64
    """Hidden channels of each prompt fusion."""

    def __post_init__(self) -> None:
        if self.vit.patch_size != _PATCH:
            raise InputError(f"a teacher's patches are of {_PATCH} pixels, got {self.vit.patch_size}")
        if len(self.taps) != len(STRIDES) or not all(0 <= i < self.vit.depth for i in self.taps):
            raise InputError(f"taps must be {len(STRIDES)} blocks in 0..{self.vit.depth - 1}, got {self.taps}")


class Reassemble(nn.Module):
    """Tokens of one block -> a feature map at stride 4, 8, 16 or 32."""

    def __init__(self, config: TeacherConfig, index: int) -> None:
        super().__init__()
        c, stride = config.reassembled[index], STRIDES[index]
        self.project = nn.Conv2d(config.vit.width, c, 1)
        self.resample: nn.Module
        if stride < _PATCH:
            k = _PATCH // stride
            self.resample = nn.ConvTranspose2d(c, c, k, stride=k)
        elif stride > _PATCH:
            self.resample = nn.Conv2d(c, c, 3, stride=2, padding=1)
        else:
            self.resample = nn.Identity()
        self.out = nn.Conv2d(c, config.width, 3, padding=1, bias=False)

    def forward(self, tokens_BDhw: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, width, 16 h / stride, 16 w / stride)."""
        return self.out(self.resample(self.project(tokens_BDhw)))


class Stage(nn.Module):
    """Add the encoder's features, fuse the prompt, refine, double the resolution."""

    def __init__(self, width: int, fusion_width: int, *, coarsest: bool) -> None:
        super().__init__()
        self.skip = None if coarsest else Residual(width)
        self.fusion = PromptFusion(width, fusion_width)
        self.refine = Residual(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(
        self, x_BCHW: Tensor | None, skip_BCHW: Tensor, level: PromptLevel | None, prompted_B111: Tensor | None
    ) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        x = skip_BCHW if x_BCHW is None or self.skip is None else x_BCHW + self.skip(skip_BCHW)
        if level is not None and prompted_B111 is not None:
            x = self.fusion(x, level, prompted_B111)
        return self.out(F.interpolate(self.refine(x), scale_factor=2.0, mode="bilinear", align_corners=False))


def output_head(width: int) -> nn.Sequential:
    """Decoder features -> log C, mask, log confidence."""
    return nn.Sequential(
        nn.Conv2d(width, width // 2, 3, padding=1), nn.ReLU(), exact(nn.Conv2d(width // 2, CHANNELS, 1))
    )


def run_head(head: nn.Sequential, x_BCHW: Tensor) -> Tensor:
    """The head's output in float32: it becomes metres."""
    return exactly(head[2], head[:2](x_BCHW))


class Teacher(PromptedDepth):
    """Sizes `small`, `base` and `large`: any aspect ratio, sides in multiples of 32 pixels."""

    Config = TeacherConfig
    SIZES: ClassVar[dict[str, TeacherConfig]] = {
        "small": TeacherConfig(),
        "base": TeacherConfig(dinov2(768, 12, 12), reassembled=(96, 192, 384, 768)),
        "large": TeacherConfig(
            dinov2(1024, 24, 16), taps=(5, 11, 17, 23), reassembled=(256, 512, 1024, 1024), width=256, fusion_width=96
        ),
    }
    """On DINOv2, whose weights are not gated."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ViT(config.vit)
        self.reassemble = nn.ModuleList(Reassemble(config, i) for i in range(len(STRIDES)))
        last = len(STRIDES) - 1
        self.decoder = nn.ModuleList(
            Stage(config.width, config.fusion_width, coarsest=i == last) for i in range(len(STRIDES))
        )
        self.finest = PromptFusion(config.width, config.fusion_width)
        self.head = output_head(config.width)
        self.anchor = PromptAnchor([config.width] * len(STRIDES))

    @property
    def backbone(self) -> ViT:
        """The transformer, which `backbones.load_backbone` can fill."""
        return self.encoder

    def encode(self, image_B3HW: Tensor) -> list[Tensor]:
        """Feature maps at strides 4, 8, 16 and 32; raises ValueError when a side is not a multiple of 32."""
        height, width = image_B3HW.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(f"image sides must be multiples of {STRIDES[-1]}, got {height}x{width}")
        h, w = height // _PATCH, width // _PATCH
        _, taps = self.encoder(normalise(image_B3HW), self.config.taps)
        maps = (self.encoder.patch_map(self.encoder.norm(tap), h, w) for tap in taps)
        return [reassemble(x) for reassemble, x in zip(self.reassemble, maps, strict=True)]

    def decode(
        self, features: list[Tensor], levels: list[PromptLevel] | None, prompted_B111: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Output maps at stride 2 and the decoder's features at strides 2, 4, 8 and 16; `levels` from stride 2 on."""
        x: Tensor | None = None
        pyramid = []
        for i in reversed(range(len(STRIDES))):
            x = self.decoder[i](x, features[i], None if levels is None else levels[i + 1], prompted_B111)
            pyramid.append(x)
        assert x is not None
        if levels is not None and prompted_B111 is not None:
            pyramid[-1] = x = self.finest(x, levels[0], prompted_B111)
        return run_head(self.head, x), pyramid[::-1]


@dataclass(frozen=True)
class TiledTeacherConfig:
    """The depth-map student's network with prompt fusions; the default is `huge`."""

    depthmap: DepthMapConfig = DepthMapConfig()  # noqa: RUF009 (frozen)
    fusion_width: int = 64


class TiledTeacher(PromptedDepth):
    """Size `huge`: 1536 x 1536 pixels seen as 35 tiles, decoded as by the depth-map student."""

    Config = TiledTeacherConfig
    SIZES: ClassVar[dict[str, TiledTeacherConfig]] = {"huge": TiledTeacherConfig()}

    def __init__(self, config: TiledTeacherConfig) -> None:
        super().__init__()
        self.config = config
        width, inputs = config.depthmap.decoder_width, config.depthmap.projections
        self.encoder = TileEncoder(config.depthmap)
        self.decoder = Decoder(config.depthmap)
        self.fusions = nn.ModuleList(PromptFusion(width, config.fusion_width) for _ in inputs)
        self.head = output_head(width)
        self.anchor = PromptAnchor([width] * 4)
        self.tiles_per_pass: int | None = None

    @property
    def backbone(self) -> ViT:
        """The transformer that sees the tiles, which `backbones.load_backbone` can fill."""
        return self.encoder.patch_encoder

    def encode(self, image_B3HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """The decoder's inputs, fine to coarse, and the coarsest of them."""
        mean, std = self.config.depthmap.mean, self.config.depthmap.std
        return self.encoder(normalise(image_B3HW, mean, std), self.tiles_per_pass)

    def decode(
        self, features: tuple[list[Tensor], Tensor], levels: list[PromptLevel] | None, prompted_B111: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Output maps at stride 2 and the decoder's features at strides 2, 4, 8 and 16."""
        maps, lowest = features
        projections, last = self.config.depthmap.projections, len(maps)
        by_size = {} if levels is None else {level.fill_B1HW.shape[-1]: level for level in levels}
        pyramid: dict[int, Tensor] = {}
        x: Tensor = self.decoder.convs[last](lowest)
        for i in reversed(range(last + 1)):
            if i == last:
                x = self.decoder.fusion(i).merge(x, None)
            else:
                skip = self.decoder.convs[i](getattr(self.encoder, projections[i].name).expand(maps[i]))
                x = self.decoder.fusion(i).merge(self.decoder.fusion(i + 1).expand(x), skip)
            if prompted_B111 is not None:
                x = self.fusions[i](x, by_size[x.shape[-1]], prompted_B111)
            pyramid[x.shape[-1]] = x  # of several at one resolution, the last
        x = pyramid[x.shape[-1]] = self.decoder.fusion(0).expand(x)
        return run_head(self.head, x), [pyramid[size] for size in sorted(pyramid, reverse=True)[:4]]


def with_dinov3(config: TeacherConfig) -> TeacherConfig:
    """The same teacher on a DINOv3 backbone of the same width, depth and heads."""
    return replace(config, vit=dinov3(config.vit.width, config.vit.depth, config.vit.heads))
