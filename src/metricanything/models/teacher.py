"""The compact *Prompt-Based Metric Depth Map Model*: image + sparse metric prompt -> metric depth."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.models.decoder import Decoder, DecoderConfig
from metricanything.models.encoder import CompactEncoder, EncoderConfig
from metricanything.models.fusion import PromptAnchor, PromptEncoding

LOG_C_START = -1.3  # log C of a surface 3 m away seen with a common field of view: where an untrained head starts


@dataclass(frozen=True)
class DepthConfig:
    """Configuration of a compact depth-map network, prompted or not."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(frozen=True)
class DepthOutput:
    """Log canonical inverse depth log(f_px / (W D)) and the logit of "this pixel has a finite depth", (B, 1, H, W)."""

    log_c_B1HW: Tensor
    mask_logit_B1HW: Tensor


def depth_head(raw_B2hw: Tensor, size: tuple[int, int]) -> DepthOutput:
    """Resize the two head channels to the image (bilinear; they are dense) and name them."""
    raw = F.interpolate(raw_B2hw, size=size, mode="bilinear", align_corners=False)
    return DepthOutput(raw[:, :1] + LOG_C_START, raw[:, 1:])


class CompactTeacher(nn.Module):
    """Image encoder that never sees the prompt; prompt fused in the decoder; output anchored to the prompt."""

    prompted = True

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CompactEncoder(config.encoder)
        self.encoding = PromptEncoding()
        self.decoder = Decoder(config.encoder, config.decoder, channels=2, prompted=True)
        self.anchor = PromptAnchor()

    def forward(self, image_B3HW: Tensor, prompt_c_B1HW: Tensor | None = None) -> DepthOutput:
        """RGB in [0, 1] and the prompt as canonical inverse depth C > 0 at measured pixels, 0 elsewhere.

        Samples without any point, and `None`, are predicted from the image alone.
        """
        features = self.encoder(image_B3HW)
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        if prompt_c_B1HW is None:
            return depth_head(self.decoder(features), size)
        mask = (prompt_c_B1HW > 0).to(image_B3HW)
        log_c = torch.where(prompt_c_B1HW > 0, prompt_c_B1HW, 1.0).log()
        prompted = mask.amax(dim=(1, 2, 3), keepdim=True)
        levels = self.encoding(log_c, mask, stages=len(features))
        output = depth_head(self.decoder(features, levels, prompted), size)
        return DepthOutput(self.anchor(output.log_c_B1HW, log_c, mask, prompted), output.mask_logit_B1HW)
