"""The compact decoder: a DPT-style pyramid from stride 32 to stride 2, with the prompt fused at every stage.

Shapes: B batch, H W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.models.compact.encoder import EncoderConfig, ResidualBlock
from metricanything.models.prompting import PromptFusion, PromptLevel


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the compact decoder."""

    widths: tuple[int, int, int, int] = (24, 48, 64, 128)
    """Channels at strides 2, 4, 8 and 16."""
    fusion_width: int = 32
    """Hidden channels of each prompt fusion."""


class Stage(nn.Module):
    """Upsample the coarser features, add the encoder's, fuse the prompt, refine."""

    def __init__(self, c_coarse: int, c_skip: int, width: int, fusion_width: int | None) -> None:
        super().__init__()
        self.project = nn.Conv2d(c_coarse, width, 1)
        self.skip = nn.Conv2d(c_skip, width, 1)
        self.fusion = PromptFusion(width, fusion_width) if fusion_width else None
        self.refine = ResidualBlock(width)

    def forward(self, coarse: Tensor, skip: Tensor, level: PromptLevel | None, prompted_B111: Tensor | None) -> Tensor:
        """(B, C, h/2, w/2), (B, C', h, w) -> (B, width, h, w)."""
        x = F.interpolate(self.project(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        x = x + self.skip(skip)
        if self.fusion is not None and level is not None and prompted_B111 is not None:
            x = self.fusion(x, level, prompted_B111)
        return self.refine(x)


class Decoder(nn.Module):
    """Encoder features (+ prompt levels) -> `channels` output maps at stride 2."""

    def __init__(self, encoder: EncoderConfig, config: DecoderConfig, channels: int, *, prompted: bool) -> None:
        super().__init__()
        hidden = config.fusion_width if prompted else None
        self.fusion32 = PromptFusion(encoder.token_width, config.fusion_width) if prompted else None
        coarse = [*config.widths[1:], encoder.token_width]
        self.stages = nn.ModuleList(
            Stage(c, skip, width, hidden) for c, skip, width in zip(coarse, encoder.widths, config.widths, strict=True)
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(config.widths[0], channels, 3, padding=1))

    def forward(
        self, features: list[Tensor], levels: list[PromptLevel] | None = None, prompted_B111: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """`features` and `levels` are at strides 2, 4, 8, 16 and 32.

        Returns the output maps (B, channels, H/2, W/2) and the decoder features at strides 2, 4, 8 and 16.
        """
        x = features[-1]
        if self.fusion32 is not None and levels is not None and prompted_B111 is not None:
            x = self.fusion32(x, levels[-1], prompted_B111)
        pyramid = []
        for i in reversed(range(len(self.stages))):
            x = self.stages[i](x, features[i], None if levels is None else levels[i], prompted_B111)
            pyramid.append(x)
        return self.head(x), pyramid[::-1]
