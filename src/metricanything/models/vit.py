"""The plain vision transformer of the full-size models, in the layouts of DINOv2 and DINOv3.

Parameter names are those of the original code, so that published weights load strictly. Facts that matter for equal
numbers: DINOv3's rotary periods are stored values (rounded to bfloat16), not recomputed ones; its qkv bias is
multiplied by a stored mask; DINOv2's position table is interpolated by scale factor.

Shapes: B batch, N tokens (prefix and patches), D token width, H W pixels, h w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.core.errors import InputError

Mlp = Literal["gelu", "swiglu", "swiglu_fused"]


@dataclass(frozen=True)
class ViTConfig:
    """Sizes and conventions of one transformer."""

    patch_size: int
    width: int
    depth: int
    heads: int
    mlp: Mlp
    """gelu: fc1, fc2. swiglu: w1, w2, w3. swiglu_fused: w1 and w2 in one matrix, w12, w3."""
    mlp_width: int
    registers: int = 0
    """Tokens between the class token and the patches."""
    position: Literal["table", "rope"] = "table"
    table_side: int = 37
    """Patches per side of the stored position table."""
    table_offset: float = 0.1
    """Added to the number of patches before the scale factor of the interpolation is taken; 0 = interpolate by size."""
    table_antialias: bool = False
    eps: float = 1e-6
    """Of the layer norms."""
    bias_mask: bool = False
    """Whether the qkv bias is multiplied by a stored mask."""
    mask_token: bool = True
    """Whether the weights hold a mask token (which inference does not use)."""

    def __post_init__(self) -> None:
        # No tensor's shape tells the number of heads: a wrong one would be found only in the middle of a prediction.
        if not isinstance(self.heads, int) or self.heads < 1 or self.width % self.heads:
            raise InputError(f"num_heads must divide the token width {self.width}, got {self.heads!r}")
        if self.position == "rope" and (self.width // self.heads) % 4:
            raise InputError(f"rotary positions need heads of a multiple of 4 channels, got {self.width // self.heads}")

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token and the registers."""
        return 1 + self.registers


class PatchEmbed(nn.Module):
    """Non-overlapping patches -> tokens; rows and columns beyond the last whole patch are left out."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w)."""
        return self.proj(image_B3HW)


class RopePeriods(nn.Module):
    """The stored periods of DINOv3's axial rotary position embedding."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.periods: Tensor
        exponents = torch.arange(head_width // 4, dtype=torch.float32) / (head_width // 4)
        # The rounding is part of the published models: their files hold the periods as bfloat16 once held them.
        self.register_buffer("periods", (100**exponents).bfloat16().float())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RopePeriods:
        """Move like any module, but keep float32 in a network of lower precision: angles are computed from these."""
        periods = self.periods
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.periods.dtype != torch.float32:
            self.periods = periods.to(device=self.periods.device, dtype=torch.float32)
        return self

    def forward(self, h: int, w: int, prefix: int) -> tuple[Tensor, Tensor]:
        """cos and sin (prefix + h w, head width) float32; prefix tokens are not rotated.

        The angle of a patch is 2 pi c / period, with its centre c in [-1, 1] on each axis: first the rows' angles, then
        the columns', repeated to fill the head (DINOv3, arXiv 2508.10104, and its code).
        """
        like = self.periods
        y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) / n * 2 - 1 for n in (h, w))
        y, x = (2 * torch.pi * c[:, None] / like for c in (y, x))
        p = len(like)
        angle = torch.cat([y[:, None].expand(h, w, p), x[None].expand(h, w, p)], dim=-1).reshape(h * w, 2 * p)
        angle = F.pad(angle.repeat(1, 2), (0, 0, prefix, 0))
        return angle.cos(), angle.sin()


def rotate(x_BhNd: Tensor, cos_Nd: Tensor, sin_Nd: Tensor) -> Tensor:
    """Rotary embedding in float32, pairing channel k with k + d / 2; the type of `x` is kept."""
    x = x_BhNd.to(cos_Nd.dtype)
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat([-second, first], dim=-1).mul_(sin_Nd).addcmul_(x, cos_Nd)
    return rotated.to(x_BhNd.dtype)


class MaskedBiasLinear(nn.Linear):
    """A linear layer whose bias is multiplied by a stored mask: DINOv3 switches the key bias off this way."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out)
        self.bias_mask: Tensor
        mask = torch.ones(out)
        mask[out // 3 : 2 * out // 3] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., out)."""
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        make = MaskedBiasLinear if config.bias_mask else nn.Linear
        self.qkv = make(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x_BND: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        b, n, d = x_BND.shape
        q, k, v = self.qkv(x_BND).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class GeluMlp(nn.Module):
    """Linear, GELU (exact), linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """w3(silu(w1 x) * w2 x) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class FusedSwiGlu(nn.Module):
    """`SwiGlu` with w1 and w2 stored as the halves of one matrix."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


_MLPS = {"gelu": GeluMlp, "swiglu": SwiGlu, "swiglu_fused": FusedSwiGlu}
_MLP_TOKENS = 4096  # tokens that pass through an MLP together at inference: its hidden layer is the widest tensor


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., arXiv 2103.17239)."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))


class Block(nn.Module):
    """x + g1 attention(norm1 x), then x + g2 mlp(norm2 x)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        start = 1e-5 if config.position == "rope" else 1.0
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.width, start)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = _MLPS[config.mlp](config.width, config.mlp_width)
        self.ls2 = LayerScale(config.width, start)

    def forward(self, x_BND: Tensor, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        x_BND = torch.addcmul(x_BND, self.attn(self.norm1(x_BND), rope), self.ls1.gamma)
        tokens = x_BND.shape[0] * x_BND.shape[1]
        if torch.is_grad_enabled() or tokens <= _MLP_TOKENS:
            return torch.addcmul(x_BND, self.mlp(self.norm2(x_BND)), self.ls2.gamma)
        rows = x_BND.flatten(0, 1).split(_MLP_TOKENS)
        added = [torch.addcmul(x, self.mlp(self.norm2(x)), self.ls2.gamma) for x in rows]
        return torch.cat(added).view_as(x_BND)


class ViT(nn.Module):
    """Normalised image -> tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.position == "table":
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.table_side**2, width))
        if config.registers:
            name = "storage_tokens" if config.position == "rope" else "register_tokens"
            self.register_parameter(name, nn.Parameter(torch.zeros(1, config.registers, width)))
        if config.mask_token:
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbed(config)
        if config.position == "rope":
            self.rope_embed = RopePeriods(width // config.heads)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.eps)
        if not self.cls_token.is_meta:
            self._initialise()

    def forward(self, image_B3HW: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """Tokens after the last block, and after each of the blocks `taps` (from 0), all without the final norm.

        image: normalised, float (B, 3, H, W). Tokens: (B, prefix + h w, D), the class token first.
        """
        x_BDhw = self.patch_embed(image_B3HW)
        h, w = x_BDhw.shape[-2:]
        x_BND = self._with_prefix(x_BDhw.flatten(2).transpose(1, 2), h, w)
        rope = self.rope_embed(h, w, self.config.prefix) if self.config.position == "rope" else None
        tapped: dict[int, Tensor] = {}
        for i, block in enumerate(self.blocks):
            x_BND = block(x_BND, rope)
            if i in taps:
                tapped[i] = x_BND
        return x_BND, [tapped[i] for i in taps]

    def _with_prefix(self, patches_BND: Tensor, h: int, w: int) -> Tensor:
        """Prefix tokens before the patches, positions added where they come from a table (registers have none)."""
        b = patches_BND.shape[0]
        cls: Tensor = self.cls_token
        if self.config.position == "table":
            cls = cls + self.pos_embed[:, :1]
            patches_BND = patches_BND + interpolate_table(self.pos_embed[:, 1:], h, w, self.config)
        registers = getattr(self, "storage_tokens", None)
        registers = getattr(self, "register_tokens", None) if registers is None else registers
        prefix = [cls] if registers is None else [cls, registers]
        return torch.cat([*(token.expand(b, -1, -1) for token in prefix), patches_BND], dim=1)

    def patch_map(self, tokens_BND: Tensor, h: int, w: int) -> Tensor:
        """The patch tokens as a map (B, D, h, w), channels last in memory."""
        return tokens_BND[:, self.config.prefix :].unflatten(1, (h, w)).permute(0, 3, 1, 2)

    def _initialise(self) -> None:
        """Truncated normal weights of standard deviation 0.02 and zero biases, as ViTs are usually started."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters(recurse=False):
            if name != "mask_token":
                nn.init.trunc_normal_(parameter, std=0.02)


def interpolate_table(table_1ND: Tensor, h: int, w: int, config: ViTConfig) -> Tensor:
    """Position table (1, side^2, D) bicubically resampled to h x w patches: (1, h w, D).

    DINOv2 (arXiv 2304.07193, its code) passes the scale factor (h + 0.1) / side, which samples at other places than a
    resize to the same size; interpolating by size instead moved published depths by up to 31 %.
    """
    side = config.table_side
    if h == w == side:
        return table_1ND
    grid = table_1ND.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    offset = config.table_offset
    how: dict[str, Any] = {"size": (h, w)}
    if offset:
        how = {"scale_factor": ((h + offset) / side, (w + offset) / side)}
    grid = F.interpolate(grid, mode="bicubic", antialias=config.table_antialias, **how)
    return grid.flatten(2).transpose(1, 2).to(table_1ND.dtype)
