"""The compact image encoder: a convolutional stem to stride 16, transformer blocks at stride 32.

Shapes: B batch, H W height and width in pixels (multiples of 32), C channels, N tokens, D token width.
It sees the image alone, never the prompt (the method's teacher keeps its encoder prompt-free).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.core.errors import InputError
from metricanything.models.images import normalise

STRIDE = 32


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the compact encoder."""

    widths: tuple[int, int, int, int] = (24, 32, 64, 128)
    """Channels at strides 2, 4, 8 and 16."""
    blocks: tuple[int, int, int] = (1, 2, 2)
    """Residual blocks at strides 4, 8 and 16."""
    token_width: int = 256
    """Channels at stride 32."""
    token_blocks: int = 6
    """Transformer blocks at stride 32."""
    heads: int = 4

    def __post_init__(self) -> None:
        # No tensor's shape tells the number of heads: a wrong one would be found only in the middle of a prediction.
        if not isinstance(self.heads, int) or self.heads < 1 or self.token_width % self.heads:
            raise InputError(f"encoder: heads must divide token_width {self.token_width}, got {self.heads!r}")


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(x)))): two 3x3 convolutions; GroupNorm keeps samples of a batch independent."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x_BCHW + self.conv2(F.relu(self.norm(self.conv1(x_BCHW))))


class Downsample(nn.Sequential):
    """Halve the resolution with a strided 3x3 convolution."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False), nn.GroupNorm(8, c_out), nn.ReLU())


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP; a depthwise 3x3 convolution tells positions for any grid (Chu et al., CPVT)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BDHW: Tensor) -> Tensor:
        """(B, D, H, W) -> (B, D, H, W)."""
        x_BDHW = x_BDHW + self.position(x_BDHW)
        b, d, h, w = x_BDHW.shape
        x_BND = x_BDHW.flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm1(x_BND)).view(b, h * w, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x_BND = x_BND + self.proj(attended.transpose(1, 2).reshape(b, h * w, d))
        x_BND = x_BND + self.mlp(self.norm2(x_BND))
        return x_BND.transpose(1, 2).reshape(b, d, h, w)


def uv_grid(height: int, width: int, like: Tensor) -> Tensor:
    """(1, 2, H, W) pixel-centre coordinates in units of half the image diagonal, centred (MoGe's view plane).

    float32 on the device of `like`, whatever its type: bfloat16 has no numbers for the pixels beyond the 256th.
    """
    half_diagonal = (height**2 + width**2) ** 0.5 / 2
    u = (torch.arange(width, device=like.device, dtype=torch.float32) + 0.5 - width / 2) / half_diagonal
    v = (torch.arange(height, device=like.device, dtype=torch.float32) + 0.5 - height / 2) / half_diagonal
    return torch.stack(torch.meshgrid(u, v, indexing="xy"))[None]


class CompactEncoder(nn.Module):
    """RGB in [0, 1] (B, 3, H, W) -> feature maps at strides 2, 4, 8, 16 and 32, fine to coarse."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        w2, w4, w8, w16 = config.widths
        self.stem = nn.Conv2d(3 + 2, w2, 3, stride=2, padding=1)
        n4, n8, n16 = config.blocks
        self.stage4 = nn.Sequential(Downsample(w2, w4), *[ResidualBlock(w4) for _ in range(n4)])
        self.stage8 = nn.Sequential(Downsample(w4, w8), *[ResidualBlock(w8) for _ in range(n8)])
        self.stage16 = nn.Sequential(Downsample(w8, w16), *[ResidualBlock(w16) for _ in range(n16)])
        self.down32 = Downsample(w16, config.token_width)
        self.tokens = nn.Sequential(
            *[TransformerBlock(config.token_width, config.heads) for _ in range(config.token_blocks)]
        )

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Raises ValueError when a side is not a multiple of 32."""
        b, _, h, w = image_B3HW.shape
        if h % STRIDE or w % STRIDE:
            raise ValueError(f"image sides must be multiples of {STRIDE}, got {h}x{w}")
        x = normalise(image_B3HW)
        x = torch.cat([x, uv_grid(h, w, x).to(x.dtype).expand(b, -1, -1, -1)], dim=1)
        f2 = F.relu(self.stem(x))
        f4 = self.stage4(f2)
        f8 = self.stage8(f4)
        f16 = self.stage16(f8)
        f32 = self.tokens(self.down32(f16))
        return [f2, f4, f8, f16, f32]
