"""Pretrained transformers for the encoders: DINOv2 and DINOv3, in the original or transformers' layout.

Also the encoders of the published students, which are fine-tuned ones. Only the `ViT` of `models.vit` is filled; what
does not fit by name or shape is an error.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from metricanything.core.errors import InputError
from metricanything.models.checkpoint import read_state
from metricanything.models.hub import find_weights, is_repo
from metricanything.models.layouts import State, describe_mismatch
from metricanything.models.vit import ViT

#: Where the encoders of published students sit in their checkpoints.
_PREFIXES = ("encoder.patch_encoder.", "encoder.backbone.", "")
#: transformers' names -> original ones; the first group of a match is kept. Both of its major versions are known.
_RENAMED = [
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.register_tokens", "registers"),
    (r"embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)", r"patch_embed.proj.\1"),
    (r"(?:encoder\.layer|model\.layer|layer)\.(\d+)\.(.+)", r"blocks.\1.\2"),
    (r"(?:layernorm|norm)\.(weight|bias)", r"norm.\1"),
]
_RENAMED_IN_BLOCK = [
    (r"attention\.(?:attention\.)?(q_proj|query)\.", "attn.q."),
    (r"attention\.(?:attention\.)?(k_proj|key)\.", "attn.k."),
    (r"attention\.(?:attention\.)?(v_proj|value)\.", "attn.v."),
    (r"attention\.(?:o_proj|output\.dense)\.", "attn.proj."),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
    (r"mlp\.up_proj\.", "mlp.fc1."),
    (r"mlp\.down_proj\.", "mlp.fc2."),
]
_RENAMED_IN_GATED_BLOCK = [
    (r"mlp\.gate_proj\.", "mlp.w1."),
    (r"mlp\.up_proj\.", "mlp.w2."),
    (r"mlp\.(?:down_proj|weights_out)\.", "mlp.w3."),
    (r"mlp\.weights_in\.", "mlp.w12."),
]


def load_backbone(vit: ViT, source: str | Path) -> None:
    """Fill a transformer with pretrained weights, in place.

    source: a Hub id ("facebook/dinov2-small"), or a file: DINOv2 or DINOv3 in the original or transformers' layout, or
    a published student. Patch kernels of another size are resampled (bicubic, as Depth Pro does); the position table is
    kept as it is, and interpolated when the network runs. Raises InputError naming what is missing or does not fit.
    """
    path = find_weights(source) if isinstance(source, str) and is_repo(source) and not Path(source).exists() else source
    state = original_layout(read_state(Path(path)), vit)
    expected = vit.state_dict()
    kernel = state.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[:2] == expected["patch_embed.proj.weight"].shape[:2]:
        state["patch_embed.proj.weight"] = resample_kernel(kernel, vit.config.patch_size)
    if (problem := describe_mismatch(expected, state)) is not None:
        raise InputError(f"{source}: does not fit this transformer: {problem}; take one of the same family and size")
    vit.load_state_dict(state)


def resample_kernel(kernel_D3PP: Tensor, size: int) -> Tensor:
    """Patch kernels (D, 3, P, P) at another patch size, so that a patch's resized pixels give about the same token."""
    side = kernel_D3PP.shape[-1]
    if side == size:
        return kernel_D3PP
    resized = F.interpolate(kernel_D3PP.float(), size=(size, size), mode="bicubic", align_corners=False)
    return resized * (side / size) ** 2  # the sum over the patch, not the mean, makes the token


def original_layout(state: State, vit: ViT) -> dict[str, Tensor]:
    """A transformer's weights by the original names, from any of the known layouts."""
    prefix = next((p for p in _PREFIXES if p + "cls_token" in state), None)
    if prefix is None:
        return _from_transformers(state, vit)
    own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    mask = own.get("mask_token")
    if mask is not None and mask.dim() == 3:
        own["mask_token"] = mask[0]
    return own


def _from_transformers(state: State, vit: ViT) -> dict[str, Tensor]:
    gated = vit.config.mlp != "gelu"
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        for pattern, name in _RENAMED:
            if match := re.fullmatch(rf"(?:dinov2|dinov3_vit|dinov2_with_registers)?\.?{pattern}", key):
                renamed[match.expand(name)] = value
                break
    for pattern, name in [*(_RENAMED_IN_GATED_BLOCK if gated else []), *_RENAMED_IN_BLOCK]:
        renamed = {re.sub(rf"^(blocks\.\d+\.){pattern}", rf"\g<1>{_shifted(name)}", k): v for k, v in renamed.items()}
    if not renamed:
        raise InputError(f"holds no DINOv2 or DINOv3 transformer (first keys: {', '.join(list(state)[:3])})")
    return _joined(renamed, vit)


def _shifted(name: str) -> str:
    """A replacement for a pattern that comes after one more group."""
    return re.sub(r"\\(\d)", lambda match: rf"\g<{int(match[1]) + 1}>", name)


def _joined(state: dict[str, Tensor], vit: ViT) -> dict[str, Tensor]:
    """Queries, keys and values in one matrix, and the names that depend on the family."""
    config = vit.config
    out = {k: v for k, v in state.items() if not re.search(r"\.attn\.[qkv]\.", k)}
    for i in range(config.depth):
        key = f"blocks.{i}.attn."
        parts = [state.get(f"{key}{part}.weight") for part in "qkv"]
        if any(part is None for part in parts):
            continue  # named as missing by the caller
        out[f"{key}qkv.weight"] = torch.cat([part for part in parts if part is not None])
        biases = [state.get(f"{key}{part}.bias") for part in "qkv"]
        zero = torch.zeros(config.width)
        out[f"{key}qkv.bias"] = torch.cat([zero if bias is None else bias for bias in biases])
        if config.bias_mask:  # transformers leaves out the key bias that DINOv3 masks
            out[f"{key}qkv.bias_mask"] = torch.cat([torch.full((config.width,), float(b is not None)) for b in biases])
    for i in range(config.depth):
        _match_gates(out, f"blocks.{i}.mlp.", fused=config.mlp == "swiglu_fused")
    if "registers" in out:
        out["storage_tokens" if config.position == "rope" else "register_tokens"] = out.pop("registers")
    if "mask_token" in out:
        out["mask_token"] = out["mask_token"].reshape(1, -1)
    if config.position == "rope":
        # transformers recomputes the periods; the values that the models were trained with are those of a new network.
        out.setdefault("rope_embed.periods", vit.rope_embed.periods.clone())
    return out


def _match_gates(state: dict[str, Tensor], key: str, *, fused: bool) -> None:
    """Gate and value of a SwiGLU in one matrix or in two, as the transformer keeps them."""
    for kind in ("weight", "bias"):
        one, gate, value = f"{key}w12.{kind}", f"{key}w1.{kind}", f"{key}w2.{kind}"
        if fused and gate in state and value in state:
            state[one] = torch.cat([state.pop(gate), state.pop(value)])
        elif not fused and one in state:
            state[gate], state[value] = state.pop(one).chunk(2)
