"""The full-size teachers: their sizes, what the prompt does and does not do, and where their encoders come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expectations import assert_refused
from published import TINY_DEPTHMAP, depthmap_state, pointmap_state, state_of
from runs import short_recipe
from safetensors.torch import save_file
from torch import Tensor, nn

import metricanything as ma
from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.inference.predictor import Model
from metricanything.models.backbones import load_backbone, resample_kernel
from metricanything.models.checkpoint import load_model, save_model
from metricanything.models.registry import MODELS, get_spec
from metricanything.models.teacher import (
    Teacher,
    TeacherConfig,
    TiledTeacher,
    TiledTeacherConfig,
    dinov2,
    dinov3,
    with_dinov3,
)
from metricanything.models.vit import ViT
from metricanything.patterns import draw_prompt

TINY = TeacherConfig(dinov2(32, 6, 2), taps=(1, 2, 4, 5), reassembled=(8, 8, 16, 16), width=16, fusion_width=8)
TINY_TILED = TiledTeacherConfig(replace(TINY_DEPTHMAP, head_widths=(4, 5)), fusion_width=8)
KINDS: dict[str, Callable[[], nn.Module]] = {
    "dinov2": lambda: Teacher(TINY),
    "dinov3": lambda: Teacher(with_dinov3(TINY)),
    "tiled": lambda: TiledTeacher(TINY_TILED),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind: str, *, gain: float = 0.0, stir: bool = False) -> nn.Module:
    """An untrained teacher; `stir` gives its zero-initialised layers random weights."""
    torch.manual_seed(0)
    network = KINDS[kind]().eval()
    with torch.no_grad():
        network.anchor.raw_gain.fill_(gain / network.anchor.SPEED)
        if stir:
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.05)
    return network


def side(kind: str) -> tuple[int, int]:
    return (1536, 1536) if kind == "tiled" else (64, 96)


def inputs(kind: str, batch: int = 1, share: float = 0.02) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    height, width = side(kind)
    hit = torch.rand(batch, 1, height, width, generator=generator) < share
    c = 0.2 + torch.rand(batch, 1, height, width, generator=generator)
    return torch.rand(batch, 3, height, width, generator=generator), torch.where(hit, c, 0.0)


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", ["small-teacher", "base-teacher", "large-teacher", "huge-teacher"])
def test_registered_sizes_build_with_their_parameters(name: str) -> None:
    spec = get_spec(name)
    with torch.device("meta"):
        network = spec.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == spec.parameters
    assert spec.task == "prompted-depth"
    assert spec.build.__self__ is MODELS[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("size", "vit"), [("small", dinov2(384, 12, 6)), ("base", dinov2(768, 12, 12)), ("large", dinov2(1024, 24, 16))]
)
def test_encoders_are_those_of_their_families(size: str, vit: Any) -> None:
    config = Teacher.SIZES[size]
    assert config.vit == vit
    third = with_dinov3(config).vit
    assert (third.width, third.depth, third.heads) == (vit.width, vit.depth, vit.heads)
    assert (third.position, third.registers, third.bias_mask) == ("rope", 4, True)
    assert third == dinov3(vit.width, vit.depth, vit.heads)
    with torch.device("meta"):
        Teacher(with_dinov3(config))


@pytest.mark.parametrize("name", ["small-teacher", "huge-teacher"])
def test_configurations_of_a_size_can_be_changed(name: str) -> None:
    config = get_spec(name).read_config({"fusion_width": 16})
    assert config.fusion_width == 16
    assert replace(config, fusion_width=64) == get_spec(name).read_config({})
    with pytest.raises(InputError, match="colour"):
        get_spec(name).read_config({"colour": 1})


def test_impossible_configurations() -> None:
    for changes, message in (
        ({"taps": (1, 2, 3)}, "taps must be 4 blocks in 0..5"),
        ({"taps": (1, 2, 3, 6)}, "taps must be 4 blocks in 0..5"),
        ({"vit": replace(TINY.vit, patch_size=14)}, "patches are of 16 pixels, got 14"),
    ):
        with pytest.raises(InputError, match=message):
            replace(TINY, **changes)


# ---------------------------------------------------------------- the prompt


@every_kind
@torch.inference_mode()
def test_an_untrained_fusion_ignores_the_prompt_exactly(kind: str) -> None:
    network = build(kind)
    image, prompt = inputs(kind)
    with_prompt, alone, empty = network(image, prompt), network(image), network(image, torch.zeros_like(prompt))
    for field in ("log_c_B1HW", "mask_logit_B1HW", "log_confidence_B1HW"):
        assert torch.equal(getattr(with_prompt, field), getattr(alone, field))
        assert torch.equal(getattr(empty, field), getattr(alone, field))
        assert getattr(alone, field).shape == prompt.shape


@every_kind
@torch.inference_mode()
def test_a_stirred_fusion_uses_it(kind: str) -> None:
    network = build(kind, stir=True)
    image, prompt = inputs(kind)
    assert (network(image, prompt).log_c_B1HW - network(image).log_c_B1HW).abs().max() > 1e-3


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["dinov2", "dinov3"])
def test_prompted_and_unprompted_samples_mix(kind: str) -> None:
    network = build(kind, gain=0.7, stir=True)
    image, prompt = inputs(kind, batch=3)
    prompt[1] = 0
    together = network(image, prompt).log_c_B1HW
    for i in range(3):
        alone = network(image[i : i + 1], None if i == 1 else prompt[i : i + 1]).log_c_B1HW
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@every_kind
@torch.inference_mode()
def test_the_unit_of_the_prompt_is_the_unit_of_the_depth(kind: str) -> None:
    """With gain 1, whatever the weights: C scaled by s, by another unit or another focal length, scales all of C."""
    network = build(kind, gain=1, stir=True)
    image, prompt = inputs(kind)
    before = network(image, prompt).log_c_B1HW
    for factor in (0.02, 3.0):
        after = network(image, prompt * factor).log_c_B1HW
        torch.testing.assert_close(after, before + np.log(factor), rtol=1e-3, atol=2e-3)


def test_the_encoder_never_sees_the_prompt() -> None:
    network = build("dinov2", gain=1, stir=True)
    image, prompt = inputs("dinov2")
    seen: list[Tensor] = []
    network.encoder.register_forward_hook(lambda module, given, out: seen.append(out[0]))
    network(image, prompt)
    network(image, prompt * 2)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("size", [(32, 32), (64, 160), (160, 64), (768, 768), (384, 768)])
@torch.inference_mode()
def test_any_aspect_at_full_spatial_size(size: tuple[int, int]) -> None:
    network = build("dinov2", gain=1, stir=True)
    out = network(torch.rand(1, 3, *size), torch.full((1, 1, *size), 0.5))
    assert out.log_c_B1HW.shape == (1, 1, *size)
    assert torch.isfinite(out.log_c_B1HW).all()


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32, got 40x64"):
        build("dinov2")(torch.rand(1, 3, 40, 64))


@every_kind
def test_gradients_reach_every_parameter(kind: str) -> None:
    network = build(kind, gain=0.5, stir=True)
    image, prompt = inputs(kind)
    out = network(image, prompt)
    (out.log_c_B1HW.square().mean() + out.mask_logit_B1HW.mean() + out.log_confidence_B1HW.mean()).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()}
    assert {name for name in without if not name.endswith(("mask_token", "qkv.bias"))} == set()


# ---------------------------------------------------------------- loading and predicting


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("teachers")
    paths = {"dinov2": folder / "small.safetensors", "tiled": folder / "huge.safetensors"}
    for kind, path in paths.items():
        save_model(path, build(kind, gain=1, stir=True), "small-teacher" if kind == "dinov2" else "huge-teacher")
    return paths


@pytest.mark.parametrize("kind", ["dinov2", "tiled"])
def test_checkpoints_come_back(kind: str, checkpoints: dict[str, Path]) -> None:
    network, spec, description = load_model(checkpoints[kind])
    expected = build(kind, gain=1, stir=True)
    assert network.config == expected.config
    assert description["model"] == spec.name
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), expected.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("kind", ["dinov2", "tiled"])
def test_prediction_with_and_without_a_prompt(
    kind: str, checkpoints: dict[str, Path], make_frame: Callable[..., Frame]
) -> None:
    model, frame = ma.load(checkpoints[kind], device="cpu"), make_frame(3, 60, 90)
    prompt = draw_prompt(frame.depth, "uniform-200", seed=0)
    options: dict[str, Any] = {} if kind == "tiled" else {"max_side": 96}
    alone = model.predict(frame.image, camera=frame.camera, **options)
    out = model.predict(frame.image, prompt=prompt, camera=frame.camera, **options)
    assert out.depth.shape == alone.depth.shape == (60, 90)
    assert out.confidence is not None
    assert out.confidence.shape == (60, 90)
    assert (out.confidence > 0).all()
    pixels = prompt.uv.astype(int)
    near = np.abs(np.log(out.depth[pixels[:, 1], pixels[:, 0]] / prompt.depth))
    assert np.median(near) < 0.05
    other = model.predict(frame.image, prompt=prompt, camera=Camera.centred(300, 90, 60), **options)
    np.testing.assert_allclose(other.depth, out.depth, rtol=2e-3)
    if kind == "tiled":
        assert out.record["network_size"] == [1536, 1536]
        assert_refused(lambda: model.predict(frame.image, max_side=768), "takes images at 1536 pixels alone")


def test_teachers_without_weights_say_so() -> None:
    assert_refused(lambda: ma.load("base-teacher"), "base-teacher: this version bundles no weights")


def test_a_teacher_trains(make_frame: Callable[..., Frame], tmp_path: Path) -> None:
    """The same loop, loss and prompts as the compact one; the confidence learns too."""
    from metricanything.curate.shards import Shards
    from metricanything.curate.writing import write_shards
    from metricanything.data.mixture import Mixture
    from metricanything.training.engine import train
    from metricanything.training.pretrain import task_of

    write_shards([make_frame(seed, 64, 96) for seed in range(4)], tmp_path / "shards")
    data = Mixture(Shards(tmp_path / "shards"), sizes=((64, 96),), batch_size=4, seed=0)
    recipe = short_recipe(40)
    torch.manual_seed(0)
    network = Teacher(TINY)
    curve = [value for _, value in train(network, task_of(recipe), recipe, [data], tmp_path)]
    assert np.mean(curve[-5:]) < 0.6 * np.mean(curve[:5])
    assert network.anchor.gain > 0.5
    assert Model(network, get_spec("small-teacher"), {"input_side": 96}, device="cpu").spec.name == "small-teacher"


# ---------------------------------------------------------------- where encoders come from


def original(vit: ViT) -> dict[str, Tensor]:
    return state_of(vit)


def as_transformers(state: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """The names of transformers 4.57 or 5, as its classes of both families have them."""
    third, out = "rope_embed.periods" in state, {}
    names = {
        "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
        "storage_tokens": "embeddings.register_tokens", "norm.weight": "norm.weight" if third else "layernorm.weight",
        "norm.bias": "norm.bias" if third else "layernorm.bias",
    }  # fmt: skip
    patch = "embeddings.patch_embeddings." + ("" if third else "projection.")
    layer = ("model.layer." if version == 5 else "layer.") if third else "encoder.layer."
    for key, value in state.items():
        if key in names:
            out[names[key]] = value
        elif key == "mask_token":
            out["embeddings.mask_token"] = value[None] if third else value
        elif key.startswith("patch_embed.proj."):
            out[patch + key.rpartition(".")[2]] = value
        elif key.startswith("blocks."):
            _, i, rest = key.split(".", 2)
            new = rest.replace("ls1.gamma", "layer_scale1.lambda1").replace("ls2.gamma", "layer_scale2.lambda1")
            if third:
                new = new.replace("mlp.fc1", "mlp.up_proj").replace("mlp.fc2", "mlp.down_proj")
            new = new.replace("attn.proj", "attention.o_proj" if third or version == 5 else "attention.output.dense")
            if rest.startswith("attn.qkv"):
                if "mask" in rest:
                    continue
                parts = ("q_proj", "k_proj", "v_proj") if third or version == 5 else ("query", "key", "value")
                inside = "attention." if third or version == 5 else "attention.attention."
                for part, x in zip(parts, value.chunk(3), strict=True):
                    if not (third and part == "k_proj" and rest.endswith("bias")):  # masked: transformers has none
                        out[f"{layer}{i}.{inside}{part}.{rest.rpartition('.')[2]}"] = x
            else:
                out[f"{layer}{i}.{new}"] = value
    return out


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("config", [TINY.vit, with_dinov3(TINY).vit], ids=["dinov2", "dinov3"])
def test_backbones_in_transformers_layout(config: Any, version: int, tmp_path: Path) -> None:
    source, vit, pixels = ViT(config).eval(), ViT(config).eval(), torch.rand(1, 3, 64, 96)
    source.load_state_dict(original(source))
    state = as_transformers(source.state_dict(), version)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    load_backbone(vit, tmp_path / "model.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(vit(pixels)[0], source(pixels)[0])


def test_backbones_in_the_original_layout_with_other_patches(tmp_path: Path) -> None:
    """DINOv2 has patches of 14 pixels; a smooth image resized to patches of 16 gives about the same tokens."""
    source = ViT(replace(TINY.vit, patch_size=14))
    torch.save(original(source), tmp_path / "dinov2.pth")
    vit = ViT(TINY.vit)
    load_backbone(vit, tmp_path / "dinov2.pth")
    kernel = torch.nn.functional.interpolate(torch.rand(8, 3, 3, 3), size=(14, 14), mode="bilinear")  # smooth
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=(14, 14), mode="bicubic")
    larger = torch.nn.functional.interpolate(image, size=(16, 16), mode="bicubic")
    small, large = (image * kernel).sum(dim=(1, 2, 3)), (larger * resample_kernel(kernel, 16)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(large, small, rtol=0.03, atol=0.03)
    assert torch.equal(resample_kernel(kernel, 14), kernel)


def test_encoders_of_published_students(tmp_path: Path) -> None:
    torch.save(depthmap_state(), tmp_path / "depthmap.pt")
    tiled = TiledTeacher(TINY_TILED)
    load_backbone(tiled.backbone, tmp_path / "depthmap.pt")
    for key, value in tiled.encoder.patch_encoder.state_dict().items():
        assert torch.equal(value, depthmap_state()[f"encoder.patch_encoder.{key}"])
    torch.save({"model": pointmap_state(), "model_config": {}}, tmp_path / "pointmap.pt")
    vit = ViT(TINY.vit)
    load_backbone(vit, tmp_path / "pointmap.pt")
    assert torch.equal(vit.blocks[3].mlp.fc1.weight, pointmap_state()["encoder.backbone.blocks.3.mlp.fc1.weight"])


def test_backbones_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(original(ViT(replace(TINY.vit, depth=5))), tmp_path / "short.pth")
    assert_refused(
        lambda: load_backbone(ViT(TINY.vit), tmp_path / "short.pth"), "short.pth", "missing blocks.5.norm1.weight"
    )
    torch.save(original(ViT(TINY.vit)), tmp_path / "second.pth")
    assert_refused(lambda: load_backbone(ViT(with_dinov3(TINY).vit), tmp_path / "second.pth"), "missing storage_tokens")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    assert_refused(lambda: load_backbone(ViT(TINY.vit), tmp_path / "other.pth"), "first keys: conv.weight")
    assert_refused(lambda: load_backbone(ViT(TINY.vit), tmp_path / "none.pth"), "no such checkpoint")
    assert_refused(lambda: load_backbone(ViT(TINY.vit), "someone/none"), "someone/none", "nor can it be fetched")
