"""The compact *Prompt-Based Metric Depth Map Model*: image + sparse metric prompt -> metric depth."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from metricanything.models.compact.decoder import Decoder, DecoderConfig
from metricanything.models.compact.encoder import CompactEncoder, EncoderConfig
from metricanything.models.outputs import CHANNELS
from metricanything.models.prompting import PromptAnchor, PromptedDepth, PromptLevel


@dataclass(frozen=True)
class DepthConfig:
    """Configuration of a compact depth-map network, prompted or not."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


class CompactTeacher(PromptedDepth):
    """Image encoder that never sees the prompt; prompt fused in the decoder; output anchored to the prompt."""

    Config = DepthConfig

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CompactEncoder(config.encoder)
        self.decoder = Decoder(config.encoder, config.decoder, channels=CHANNELS, prompted=True)
        self.anchor = PromptAnchor(config.decoder.widths)

    def encode(self, image_B3HW: Tensor) -> list[Tensor]:
        """Feature maps at strides 2, 4, 8, 16 and 32."""
        return self.encoder(image_B3HW)

    def decode(
        self, features: list[Tensor], levels: list[PromptLevel] | None, prompted_B111: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Output maps at stride 2 and the decoder's features at strides 2, 4, 8 and 16."""
        return self.decoder(features, levels, prompted_B111)
