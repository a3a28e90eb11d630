"""The compact *Prompt-Based Metric Depth Map Model*: image + sparse metric prompt -> metric depth."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.models.compact.decoder import Decoder, DecoderConfig
from metricanything.models.compact.encoder import CompactEncoder, EncoderConfig
from metricanything.models.compact.fusion import PromptAnchor, PromptEncoding

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


def depth_output(log_c_B1hw: Tensor, mask_logit_B1hw: Tensor, size: tuple[int, int]) -> DepthOutput:
    """The two output maps resized from stride 2 to the image (bilinear; they are dense)."""
    log_c = F.interpolate(log_c_B1hw, size=size, mode="bilinear", align_corners=False)
    return DepthOutput(log_c, F.interpolate(mask_logit_B1hw, size=size, mode="bilinear", align_corners=False))


class CompactTeacher(nn.Module):
    """Image encoder that never sees the prompt; prompt fused in the decoder; output anchored to the prompt."""

    prompted = True
    Config = DepthConfig

    def __init__(self, config: DepthConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = CompactEncoder(config.encoder)
        self.encoding = PromptEncoding()
        self.decoder = Decoder(config.encoder, config.decoder, channels=2, prompted=True)
        self.anchor = PromptAnchor(config.decoder.widths)

    def forward(self, image_B3HW: Tensor, prompt_c_B1HW: Tensor | None = None) -> DepthOutput:
        """RGB in [0, 1] and the prompt as canonical inverse depth C > 0 at measured pixels, 0 elsewhere.

        Samples without any point, and `None`, are predicted from the image alone.
        """
        features = self.encoder(image_B3HW)
        size = (image_B3HW.shape[-2], image_B3HW.shape[-1])
        if prompt_c_B1HW is None:
            raw, _ = self.decoder(features)
            return depth_output(raw[:, :1].float() + LOG_C_START, raw[:, 1:], size)
        measured = torch.isfinite(prompt_c_B1HW) & (prompt_c_B1HW > 0)
        # What was measured stays float32 in a network of lower precision: bf16 would round metres by 0.4 %.
        mask = measured.float()
        prompt_log_c = torch.where(measured, prompt_c_B1HW, 1.0).float().log()
        prompted = mask.amax(dim=(1, 2, 3), keepdim=True)
        levels = self.encoding(prompt_log_c, mask, stages=len(features))
        raw, pyramid = self.decoder(features, levels, prompted)
        log_c = self.anchor(raw[:, :1].float() + LOG_C_START, prompt_log_c, mask, pyramid)
        return depth_output(log_c, raw[:, 1:], size)
