"""The compact *Prompt-Free Metric Depth Map Model*: image -> canonical inverse depth."""

from __future__ import annotations

from torch import Tensor, nn

from metricanything.models.compact.decoder import Decoder
from metricanything.models.compact.encoder import CompactEncoder
from metricanything.models.compact.teacher import DepthConfig
from metricanything.models.outputs import LOG_C_START, DepthOutput, depth_output


class CompactDepthMap(nn.Module):
    """The teacher's network without its prompt path."""

    prompted = False
    Config = DepthConfig

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CompactEncoder(config.encoder)
        self.decoder = Decoder(config.encoder, config.decoder, channels=2, prompted=False)

    def forward(self, image_B3HW: Tensor) -> DepthOutput:
        """RGB in [0, 1] (B, 3, H, W) -> log canonical inverse depth and mask logit."""
        raw, _ = self.decoder(self.encoder(image_B3HW))
        return depth_output(raw[:, :1].float() + LOG_C_START, raw[:, 1:], (image_B3HW.shape[-2], image_B3HW.shape[-1]))
