"""Checkpoints of other layouts: which network a state dict belongs to, and its sizes, read from the tensors' shapes.

Known are the two students published with MetricAnything, stock MoGe-2 and Depth Pro, in `.pt` (bare, under
`state_dict`, or as {model_config, model}) and `.safetensors`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from metricanything.core.errors import InputError
from metricanything.models.conv_stack import ConvStackConfig
from metricanything.models.depthmap import DepthMapConfig, Projection
from metricanything.models.pointmap import PointEncoderConfig, PointMapConfig
from metricanything.models.registry import merged
from metricanything.models.vit import ViTConfig

State = Mapping[str, Tensor]

_HEAD_WIDTH = 64  # of all published DINOv2 and DINOv3 models
_NAMED_HEADS = {"dinov2_vits14": 6, "dinov2_vitb14": 12, "dinov2_vitl14": 16, "dinov2_vitg14": 24}
#: Blocks that are tapped in the published models, by depth and number; no shape tells them.
_TAPS = {(32, 4): (7, 13, 19, 25), (24, 2): (5, 11), (24, 4): (5, 11, 17, 23), (12, 4): (2, 5, 8, 11)}


def identify(state: State, stored: dict[str, Any] | None, given: dict[str, Any]) -> tuple[str, Any]:
    """The registered model a state dict is for ("depthmap" or "pointmap") and its configuration.

    `stored` is the `model_config` kept with the weights; `given` says what the shapes cannot tell: `num_heads` and
    `hook_block_ids` of a depth map, `num_heads`, `intermediate_layers` or parts of `model_config` of a point map.
    Raises InputError when the layout is unknown or the shapes do not make a network.
    """
    readers: dict[str, tuple[str, Callable[[], Any]]] = {
        "encoder.patch_encoder.cls_token": ("depthmap", lambda: depthmap_config(state, given)),
        "encoder.backbone.cls_token": ("pointmap", lambda: pointmap_config(state, stored, given)),
    }
    for key, (name, read) in readers.items():
        if key in state:
            try:
                return name, read()
            except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                reason = f"{error} is missing" if isinstance(error, KeyError) else error
                raise InputError(f"looks like a {name} checkpoint, but its shapes make no network ({reason})") from None
    if "backbone.cls_token" in state and any(key.startswith("head.") for key in state):
        raise InputError("looks like a MoGe-1 checkpoint, of which this version has no network; take a MoGe-2 one")
    first = ", ".join(list(state)[:3]) or "none"
    raise InputError(f"holds no network that is known here (first keys: {first}); known are {', '.join(readers)}, ...")


def depthmap_config(state: State, given: dict[str, Any]) -> DepthMapConfig:
    """The configuration of a tiled depth-map network (MetricAnything's student or Depth Pro)."""
    _check_given(given, ("num_heads", "hook_block_ids"))
    vit = vit_config(state, "encoder.patch_encoder.", given.get("num_heads"))
    depth_pro = "encoder.image_encoder.cls_token" in state
    latents = _count(state, r"encoder\.upsample_latent(\d+)\.")
    names = [f"upsample_latent{i}" for i in range(latents)]
    names = [*names, "upsample0"] if depth_pro else ["upsample0", *reversed(names)]
    config = DepthMapConfig(
        vit=vit,
        hook_block_ids=_taps(given.get("hook_block_ids"), vit.depth, latents, "hook_block_ids"),
        projections=tuple(_projection(state, name) for name in [*names, "upsample1", "upsample2"]),
        decoder_width=_shape(state, "decoder.fusions.0.out_conv.weight")[0],
        plain_skip="decoder.convs.0.weight" not in state,
        deconvs=tuple(i for i in range(latents + 3) if f"decoder.fusions.{i}.deconv.weight" in state),
        head_widths=(_shape(state, "head.0.weight")[0], _shape(state, "head.2.weight")[0]),
        head_convs=sum(
            k.startswith("head.") and k.endswith("weight") and v.shape[2:] == (3, 3) for k, v in state.items()
        )
        - 2,
    )
    if not depth_pro:
        return config
    half = (0.5, 0.5, 0.5)
    image_encoder = vit_config(state, "encoder.image_encoder.", given.get("num_heads"))
    return replace(config, image_encoder=image_encoder, mean=half, std=half, inverse_depth_range=(1e-4, 1e4))


def _projection(state: State, name: str) -> Projection:
    key = f"encoder.{name}."
    ups = _count(state, rf"{re.escape(key)}(\d+)\.weight") - 1
    return Projection(
        name, _shape(state, key + "0.weight")[0], _shape(state, f"{key}{ups}.weight")[1 if ups else 0], ups
    )


def pointmap_config(state: State, stored: dict[str, Any] | None, given: dict[str, Any]) -> PointMapConfig:
    """The configuration of a point-map network in MoGe-2's layout, from its `model_config` where there is one."""
    known = ("encoder", "neck", "points_head", "mask_head", "normal_head", "scale_head", "remap_output",
             "num_tokens_range")  # fmt: skip
    _check_given(given, (*known, "num_heads", "intermediate_layers"))
    value = merged(stored or {}, {k: v for k, v in given.items() if k in known})
    encoder = dict(value.get("encoder") or {})
    backbone = encoder.get("backbone")
    heads = given.get("num_heads")
    if heads is None:
        heads = backbone.get("num_heads") if isinstance(backbone, dict) else _named_heads(backbone)
    vit = vit_config(state, "encoder.backbone.", heads)
    if isinstance(backbone, dict):
        vit = replace(
            vit,
            table_offset=float(backbone.get("interpolate_offset", vit.table_offset)),
            table_antialias=bool(backbone.get("interpolate_antialias", vit.table_antialias)),
        )
    count = _count(state, r"encoder\.output_projections\.(\d+)\.")
    taps = given.get("intermediate_layers", encoder.get("intermediate_layers"))
    if isinstance(taps, int):  # the last so many blocks
        taps = range(vit.depth)[-taps:]
    stacks = {
        name: _stack(state, name, value.get(name)) for name in ("neck", "points_head", "mask_head", "normal_head")
    }
    if stacks["neck"] is None or stacks["points_head"] is None:
        raise InputError("looks like a pointmap checkpoint without a neck or a points head")
    scale = value.get("scale_head") or None
    dims = tuple(scale["dims"]) if scale else _linear_widths(state, "scale_head.")
    low, high = value.get("num_tokens_range", PointMapConfig.num_tokens_range)
    return PointMapConfig(
        encoder=PointEncoderConfig(
            vit,
            _taps(taps, vit.depth, count, "intermediate_layers"),
            _shape(state, "encoder.output_projections.0.weight")[0],
        ),
        neck=stacks["neck"],
        points_head=stacks["points_head"],
        mask_head=stacks["mask_head"],
        normal_head=stacks["normal_head"],
        scale_head=dims,
        remap_output=value.get("remap_output", PointMapConfig.remap_output),
        num_tokens_range=(int(low), int(high)),
    )


def _named_heads(backbone: Any) -> int | None:
    return _NAMED_HEADS.get(str(backbone).removesuffix("_reg"))


def _stack(state: State, name: str, stored: dict[str, Any] | None) -> ConvStackConfig | None:
    """A stack's configuration as stored, or read from the shapes."""
    prefix = f"{name}."
    if not any(key.startswith(prefix) for key in state):
        return None
    if stored is not None:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return ConvStackConfig(**values)
    levels = range(_count(state, rf"{name}\.resamplers\.(\d+)\.") + 1)

    def width(key: str, axis: int) -> int | None:
        return state[prefix + key].shape[axis] if prefix + key in state else None

    norms = {k for k in ("0", "3") if f"{prefix}res_blocks.1.0.layers.{k}.weight" in state}
    return ConvStackConfig(
        dim_in=tuple(width(f"input_blocks.{i}.weight", 1) for i in levels),
        dim_res_blocks=tuple(_level_width(state, prefix, i) for i in levels),
        dim_out=tuple(width(f"output_blocks.{i}.weight", 0) for i in levels),
        resamplers=tuple(_resampler(state, f"{prefix}resamplers.{i}.") for i in levels[:-1]),
        num_res_blocks=tuple(_count(state, rf"{name}\.res_blocks\.{i}\.(\d+)\.") for i in levels),
        res_block_in_norm="layer_norm" if "0" in norms else "none",
        res_block_hidden_norm="group_norm" if "3" in norms else "none",
    )


def _level_width(state: State, prefix: str, i: int) -> int:
    if f"{prefix}input_blocks.{i}.weight" in state:
        return _shape(state, f"{prefix}input_blocks.{i}.weight")[0]
    if i == 0:
        return _shape(state, f"{prefix}resamplers.0.0.weight")[0]
    last = max(k for k in range(3) if f"{prefix}resamplers.{i - 1}.{k}.weight" in state)
    return _shape(state, f"{prefix}resamplers.{i - 1}.{last}.weight")[0]


def _resampler(state: State, key: str) -> str:
    if key + "2.weight" in state:
        return "pixel_shuffle"
    return "conv_transpose" if key + "0.weight" in state else "bilinear"


def _linear_widths(state: State, prefix: str) -> tuple[int, ...] | None:
    weights = [value for key, value in state.items() if key.startswith(prefix) and key.endswith("weight")]
    return (weights[0].shape[1], *(w.shape[0] for w in weights)) if weights else None


def vit_config(state: State, prefix: str, heads: Any = None) -> ViTConfig:
    """The configuration of a transformer in the original DINOv2 or DINOv3 layout, under `prefix`.

    The number of heads follows from the rotary periods of DINOv3 (head width / 4 of them); for DINOv2 it is 64 channels
    a head unless given.
    """
    width, _, patch, _ = _shape(state, prefix + "patch_embed.proj.weight")
    rope = prefix + "rope_embed.periods" in state
    if rope:
        told = width // (4 * _shape(state, prefix + "rope_embed.periods")[0])
        if heads is not None and heads != told:
            raise InputError(
                f"num_heads {heads!r} contradicts the checkpoint's rotary periods, which make {told} heads"
            )
        heads = told
    elif heads is None:
        if width % _HEAD_WIDTH:
            raise InputError("shapes cannot tell the number of attention heads; pass config={'num_heads': ...}")
        heads = width // _HEAD_WIDTH
    registers = prefix + ("storage_tokens" if rope else "register_tokens")
    mlp, key = next(
        (mlp, key) for mlp, key in (("gelu", "fc1"), ("swiglu_fused", "w12"), ("swiglu", "w1"))
        if f"{prefix}blocks.0.mlp.{key}.weight" in state
    )  # fmt: skip
    hidden = _shape(state, f"{prefix}blocks.0.mlp.{key}.weight")[0]
    count = _shape(state, registers)[1] if registers in state else 0
    return ViTConfig(
        patch_size=patch,
        width=width,
        depth=_count(state, rf"{re.escape(prefix)}blocks\.(\d+)\."),
        heads=heads,
        mlp=mlp,  # type: ignore[arg-type]
        mlp_width=hidden // 2 if mlp == "swiglu_fused" else hidden,
        registers=count,
        position="rope" if rope else "table",
        table_side=37 if rope else math.isqrt(_shape(state, prefix + "pos_embed")[1] - 1),
        # The DINOv2 models with registers were published with these.
        table_offset=0.0 if count and not rope else 0.1,
        table_antialias=bool(count) and not rope,
        eps=1e-5 if rope else 1e-6,
        bias_mask=prefix + "blocks.0.attn.qkv.bias_mask" in state,
        mask_token=prefix + "mask_token" in state,
    )


def _taps(given: Any, depth: int, count: int, name: str) -> tuple[int, ...]:
    """The tapped blocks: as given, or those of the published models of this depth."""
    if given is None:
        if (depth, count) not in _TAPS:
            raise InputError(
                f"shapes cannot tell which {count} of the {depth} blocks are used; pass config={{{name!r}: [...]}}"
            )
        return _TAPS[depth, count]
    taps = tuple(given) if isinstance(given, list | tuple | range) else (given,)
    if len(taps) != count or not all(isinstance(i, int) and 0 <= i < depth for i in taps):
        raise InputError(f"{name} must be {count} block numbers in 0..{depth - 1}, got {list(taps)}")
    return taps


def _check_given(given: dict[str, Any], known: tuple[str, ...]) -> None:
    if unknown := [key for key in given if key not in known]:
        raise InputError(f"config key {unknown[0]!r} is not of this checkpoint's layout; use {', '.join(known)}")


def _count(state: State, pattern: str) -> int:
    """One more than the highest number that the pattern's group takes among the keys; 0 without any."""
    found = [int(match[1]) for key in state if (match := re.match(pattern, key))]
    return max(found) + 1 if found else 0


def _shape(state: State, key: str) -> tuple[int, ...]:
    return tuple(state[key].shape)


def describe_mismatch(expected: State, found: State) -> str | None:
    """The first keys that are missing, unexpected or of another shape, in one line; None when all fit."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    shapes = [
        f"{key} is {tuple(found[key].shape)}, not {tuple(expected[key].shape)}"
        for key in expected if key in found and found[key].shape != expected[key].shape
    ]  # fmt: skip
    parts = []
    for what, keys in (("missing", missing), ("unexpected", unexpected), ("wrong shape:", shapes)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            parts.append(f"{what} {', '.join(keys[:3])}{more}")
    return "; ".join(parts) or None
