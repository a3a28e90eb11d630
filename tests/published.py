"""Tiny checkpoints in the published layouts, with weights from a formula: other code can be given the same ones."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from metricanything.models.conv_stack import ConvStackConfig
from metricanything.models.depthmap import DepthMap, DepthMapConfig, Projection
from metricanything.models.pointmap import PointEncoderConfig, PointMap, PointMapConfig
from metricanything.models.vit import ViTConfig

DINOV3 = ViTConfig(
    patch_size=16, width=32, depth=6, heads=2, mlp="swiglu", mlp_width=64, registers=4, position="rope", eps=1e-5,
    bias_mask=True,
)  # fmt: skip
DINOV2 = ViTConfig(patch_size=14, width=32, depth=6, heads=2, mlp="gelu", mlp_width=128)
DEPTH_PRO_VIT = ViTConfig(
    patch_size=16, width=32, depth=6, heads=2, mlp="gelu", mlp_width=128, table_side=24, mask_token=False
)

TINY_DEPTHMAP = DepthMapConfig(
    vit=DINOV3,
    hook_block_ids=(1, 2, 4, 5),
    projections=(
        Projection("upsample0", 6, 6, 3),
        Projection("upsample_latent3", 8, 8, 2),
        Projection("upsample_latent2", 8, 8, 2),
        Projection("upsample_latent1", 8, 8, 2),
        Projection("upsample_latent0", 8, 8, 1),
        Projection("upsample1", 8, 8, 1),
        Projection("upsample2", 10, 10, 1),
    ),
    decoder_width=8,
    head_widths=(4, 5),
)
TINY_DEPTH_PRO = replace(
    TINY_DEPTHMAP,
    vit=DEPTH_PRO_VIT,
    hook_block_ids=(1, 3),
    projections=(
        Projection("upsample_latent0", 6, 8, 3),
        Projection("upsample_latent1", 6, 6, 2),
        Projection("upsample0", 7, 7, 1),
        Projection("upsample1", 9, 9, 1),
        Projection("upsample2", 10, 10, 1),
    ),
    plain_skip=True,
    deconvs=(1, 2, 3, 4),
    head_widths=(4, 32),
    head_convs=0,
    image_encoder=DEPTH_PRO_VIT,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    inverse_depth_range=(1e-4, 1e4),
)


def _stack(dim_in: tuple[int | None, ...], out: int | None, blocks: tuple[int, ...]) -> ConvStackConfig:
    return ConvStackConfig(
        dim_in, (24, 16, 12, 10, 8), (None,) * 4 + (out,), ("conv_transpose",) * 3 + ("bilinear",), blocks,
        res_block_in_norm="none", res_block_hidden_norm="none",
    )  # fmt: skip


_HEADS = (24, 16, 12, 10, 8)
TINY_POINTMAP = PointMapConfig(
    encoder=PointEncoderConfig(DINOV2, (1, 2, 4, 5), 24),
    neck=_stack((26, 2, 2, 2, 2), None, (0, 2, 2, 2, 0)),
    points_head=_stack(_HEADS, 3, (0, 1, 1, 1, 0)),
    mask_head=_stack(_HEADS, 1, (0, 1, 1, 1, 0)),
    normal_head=_stack(_HEADS, 3, (0, 1, 1, 1, 0)),
    scale_head=(32, 16, 16, 1),
    num_tokens_range=(100, 400),
)


def model_config(config: PointMapConfig) -> dict[str, Any]:
    """The `model_config` that the published code keeps with the weights of such a point map."""

    def stack(value: ConvStackConfig) -> dict[str, Any]:
        return {
            "dim_in": list(value.dim_in), "dim_out": list(value.dim_out), "resamplers": list(value.resamplers),
            "dim_res_blocks": list(value.dim_res_blocks), "num_res_blocks": list(value.num_res_blocks),
            "res_block_in_norm": value.res_block_in_norm, "res_block_hidden_norm": value.res_block_hidden_norm,
        }  # fmt: skip

    vit = config.encoder.backbone
    heads = {name: getattr(config, name) for name in ("points_head", "mask_head", "normal_head")}
    return {
        "encoder": {
            "backbone": {
                "img_size": 14 * vit.table_side, "patch_size": 14, "embed_dim": vit.width, "depth": vit.depth,
                "num_heads": vit.heads, "mlp_ratio": vit.mlp_width / vit.width, "num_register_tokens": vit.registers,
                "interpolate_antialias": vit.table_antialias, "interpolate_offset": vit.table_offset,
            },
            "intermediate_layers": list(config.encoder.intermediate_layers),
            "dim_out": config.encoder.dim_out,
        },
        "neck": stack(config.neck),
        **{name: stack(value) for name, value in heads.items() if value is not None},
        "scale_head": {"dims": list(config.scale_head or ())},
        "remap_output": config.remap_output,
        "num_tokens_range": list(config.num_tokens_range),
    }  # fmt: skip


def noise(key: str, shape: tuple[int, ...]) -> Tensor:
    """float32 values in -1..1 that depend on the key and position alone."""
    i = np.arange(1, prod(shape) + 1, dtype=np.float64)
    u = np.sin(i * 12.9898 + crc32(key.encode()) % 1000 * 78.233) * 43758.5453
    return torch.from_numpy(((u - np.floor(u)) * 2 - 1).astype(np.float32)).view(shape)


def formula(key: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that keep activations of order 1 and make every parameter matter."""
    u, last = noise(key, shape), key.rpartition(".")[2]
    if last == "periods":
        return (100 ** (torch.arange(shape[0]) / shape[0])).bfloat16().float()
    if last == "bias_mask":
        return torch.cat([torch.ones(shape[0] // 3), torch.zeros(shape[0] // 3), torch.ones(shape[0] // 3)])
    if last in ("image_mean", "image_std"):
        return torch.tensor({"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}[last]).view(shape)
    if last == "gamma":
        return 0.3 + 0.2 * u
    if last.endswith(("token", "tokens", "pos_embed")):
        return 0.5 * u
    if last == "bias":
        return 0.5 * u if "qkv" in key else 0.1 + 0.15 * u
    if len(shape) == 1:
        return 1 + 0.2 * u
    fan_in = shape[0] if shape[2:] == (2, 2) else prod(shape[1:])
    half = 0.5 if key.endswith(("residual.3.weight", "layers.5.weight")) else 1.0
    return u * half * 1.3 * (3 / fan_in) ** 0.5


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Formula weights for every entry of a network's state dict."""
    return {key: formula(key, tuple(value.shape)) for key, value in network.state_dict().items()}


def depthmap_state(config: DepthMapConfig = TINY_DEPTHMAP) -> dict[str, Tensor]:
    """A depth-map checkpoint whose output is positive nearly everywhere."""
    with torch.device("meta"):
        network = DepthMap(config)
    state = state_of(network)
    last = max(int(key.split(".")[1]) for key in state if key.startswith("head."))
    state[f"head.{last}.weight"] = state[f"head.{last}.weight"].abs() * 0.02  # its inputs are positive too
    state[f"head.{last}.bias"] = torch.tensor([-0.01])
    if config.image_encoder is not None:
        state["fov.head.4.bias"] = torch.tensor([60.0])
    return state


def pointmap_state(config: PointMapConfig = TINY_POINTMAP) -> dict[str, Tensor]:
    """A point-map checkpoint whose depths vary around e^0.5 and whose mask is mixed."""
    with torch.device("meta"):
        network = PointMap(config)
    state = state_of(network)
    for head in ("points_head", "mask_head"):
        state[f"{head}.output_blocks.4.weight"] *= 0.004
    state["points_head.output_blocks.4.bias"] = torch.tensor([0.0, 0.0, 0.5])
    state["mask_head.output_blocks.4.bias"] = torch.tensor([0.3])
    return state


def photo(height: int, width: int) -> np.ndarray:
    """A smooth coloured picture, uint8 (height, width, 3), by a formula."""
    v, u = np.mgrid[0:height, 0:width] / 40.0
    waves = [np.sin(u + 2 * v), np.sin(1.7 * u - v + 1), np.cos(0.6 * u * v / 3 + 2)]
    return np.stack([127.5 + 100 * w for w in waves], axis=-1).round().astype(np.uint8)
