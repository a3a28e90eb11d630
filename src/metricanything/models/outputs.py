"""What the project's own depth networks say of an image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

LOG_C_START = -1.3  # log C of a surface 3 m away seen with a common field of view: where an untrained head starts
CHANNELS = 3  # of a head: log C, mask, log confidence


@dataclass(frozen=True)
class DepthOutput:
    """Maps (B, 1, H, W) float32.

    log canonical inverse depth log(f_px / (W D)); the logit of "this pixel has a finite depth"; and, where the network
    states one, the log confidence: minus the logarithm of the relative error that it expects of itself.
    """

    log_c_B1HW: Tensor
    mask_logit_B1HW: Tensor
    log_confidence_B1HW: Tensor | None = None


def depth_output(log_c_B1hw: Tensor, rest_BChw: Tensor, size: tuple[int, int]) -> DepthOutput:
    """Log C and a head's other maps, resized to the image (bilinear; they are dense)."""
    log_c, rest = (
        F.interpolate(x.float(), size=size, mode="bilinear", align_corners=False) for x in (log_c_B1hw, rest_BChw)
    )
    return DepthOutput(log_c, rest[:, :1], rest[:, 1:2] if rest.shape[1] > 1 else None)
