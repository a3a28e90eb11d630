"""Every registered model: it builds, runs, trains, and its checkpoints come back bit by bit or are refused."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.core.recovery import view_plane_uv
from metricanything.models.checkpoint import METADATA_KEY, load_model, save_model
from metricanything.models.compact.encoder import EncoderConfig, uv_grid
from metricanything.models.compact.teacher import DepthConfig
from metricanything.models.registry import (
    COMPACT,
    ModelSpec,
    config_dict,
    get_spec,
    list_models,
)

every_model = pytest.mark.parametrize("spec", COMPACT.values(), ids=lambda spec: spec.name)


def build(spec: ModelSpec, config: DepthConfig | None = None, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spec.build(None if config is None else asdict(config))


def inputs(spec: ModelSpec, batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, ...]:
    """An image and, for prompted models, a prompt of 2 % of the pixels."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, height, width, generator=generator)
    if spec.task != "prompted-depth":
        return (image,)
    hit = torch.rand(batch, 1, height, width, generator=generator) < 0.02
    return image, torch.where(hit, 0.1 + torch.rand(hit.shape, generator=generator), 0.0)


def outputs(output: Any) -> list[Tensor]:
    values = [getattr(output, field.name) for field in fields(output)]
    return [value for value in values if value is not None]  # not every network states a confidence


def step(network: nn.Module, arguments: tuple[Tensor, ...]) -> None:
    """One optimiser step on a loss that every output takes part in."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    loss(network, arguments).backward()
    optimizer.step()
    optimizer.zero_grad()


def loss(network: nn.Module, arguments: tuple[Tensor, ...]) -> Tensor:
    # Targets away from 0, so that no gradient vanishes by symmetry.
    return torch.stack([(x - 0.3).square().mean() for x in outputs(network(*arguments))]).sum()


# ---------------------------------------------------------------- the registry


@every_model
def test_size_is_as_registered(spec: ModelSpec) -> None:
    count = sum(parameter.numel() for parameter in spec.build().parameters())
    assert count == spec.parameters
    assert 3_000_000 <= count <= 8_000_000


@every_model
def test_entry_is_complete(spec: ModelSpec) -> None:
    assert spec in list_models()
    assert get_spec(spec.name) is spec
    assert spec.description
    assert spec.licence == "Apache-2.0"
    assert 32 <= spec.min_side < spec.max_side
    assert spec.min_side % 32 == spec.max_side % 32 == 0


def test_unknown_model() -> None:
    with pytest.raises(InputError, match="'compact' is unknown; use one of compact-teacher"):
        get_spec("compact")


@every_model
def test_config_round_trip(spec: ModelSpec, tiny_config: DepthConfig) -> None:
    assert spec.read_config(config_dict(spec.build())) == DepthConfig()
    network = build(spec, tiny_config)
    assert network.config == tiny_config
    assert spec.read_config(json.loads(json.dumps(config_dict(network)))) == tiny_config


@pytest.mark.parametrize(
    "config",
    [
        {"encoder": {"width": 3}},
        {"encoders": {}},
        {"encoder": 5},
        {"decoder": {"fusion_width": 8, "x": 1}},
        {"encoder": None},
    ],
)
def test_unknown_config(config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="configuration is not of a compact-teacher") as caught:
        get_spec("compact-teacher").read_config(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("heads", [0, -2, 3, 1.5, "4", None])
def test_impossible_number_of_heads(heads: Any) -> None:
    """No weight's shape would show it."""
    with pytest.raises(InputError, match="heads must divide token_width 256"):
        EncoderConfig(heads=heads)


# ---------------------------------------------------------------- forward


@every_model
@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 160), (96, 32), (32, 32)])
def test_forward_shapes(spec: ModelSpec, tiny_config: DepthConfig, height: int, width: int) -> None:
    network = build(spec, tiny_config).eval()
    for output in outputs(network(*inputs(spec, 2, height, width))):
        assert output.shape[0] == 2
        assert output.shape[2:] in ((height, width), ())
        assert torch.isfinite(output).all()


@every_model
def test_full_size_forward(spec: ModelSpec) -> None:
    """The default configuration, at a size of its stated range."""
    with torch.inference_mode():
        results = outputs(build(spec).eval()(*inputs(spec, 1, 160, spec.min_side)))
    assert all(torch.isfinite(x).all() for x in results)


@every_model
@pytest.mark.parametrize(("height", "width"), [(64, 65), (48, 64), (31, 31)])
def test_sides_must_be_multiples_of_32(spec: ModelSpec, tiny_config: DepthConfig, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"multiples of 32, got {height}x{width}"):
        build(spec, tiny_config)(*inputs(spec, 1, height, width))


@every_model
def test_samples_of_a_batch_are_independent(spec: ModelSpec, tiny_config: DepthConfig) -> None:
    """In training too; after a step, because zero-initialised layers would hide a leak through them."""
    network = build(spec, tiny_config).train()
    arguments = inputs(spec, 3, 64, 96)
    step(network, arguments)
    with torch.inference_mode():
        together = outputs(network(*arguments))
        for i in range(3):
            alone = outputs(network(*(x[i : i + 1] for x in arguments)))
            for one, many in zip(alone, together, strict=True):
                torch.testing.assert_close(one[0], many[i], rtol=1e-4, atol=1e-5)


@every_model
def test_same_seed_same_network(spec: ModelSpec, tiny_config: DepthConfig) -> None:
    first, again, other = (build(spec, tiny_config, seed) for seed in (0, 0, 1))
    arguments = inputs(spec, 1, 64, 64)
    for a, b, c in zip(*(outputs(network(*arguments)) for network in (first, again, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


@every_model
def test_runs_in_bfloat16(spec: ModelSpec, tiny_config: DepthConfig) -> None:
    network = build(spec, tiny_config).eval()
    arguments = inputs(spec, 1, 64, 64)
    with torch.inference_mode():
        full = outputs(network(*arguments))
        half = outputs(network.bfloat16()(*(x.bfloat16() for x in arguments)))
    for a, b in zip(full, half, strict=True):
        torch.testing.assert_close(a, b.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (32, 2048)])
def test_pixel_coordinates_are_exact_in_bfloat16(height: int, width: int) -> None:
    """bfloat16 has 8 bits: beyond the 256th pixel it has no number for every column."""
    grid = uv_grid(height, width, torch.zeros(1, dtype=torch.bfloat16))
    assert grid.dtype == torch.float32
    expected = torch.from_numpy(view_plane_uv(height, width)).permute(2, 0, 1)
    torch.testing.assert_close(grid[0], expected, rtol=1e-6, atol=1e-6)


def test_points_keep_their_pixels_in_bfloat16(tiny_config: DepthConfig) -> None:
    """Untrained plane coordinates are those of the pixels; a step of bfloat16 is up to four pixels here."""
    network = build(get_spec("compact-pointmap"), tiny_config).eval().bfloat16()
    for parameter in network.decoder.head[-1].parameters():
        torch.nn.init.zeros_(parameter)
    with torch.inference_mode():
        points = network(torch.zeros(1, 3, 32, 640, dtype=torch.bfloat16)).points_B3HW
    assert points.dtype == torch.float32
    plane = (points[0, :2] / points[0, 2:]).permute(1, 2, 0)
    torch.testing.assert_close(plane, torch.from_numpy(view_plane_uv(32, 640)), rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- backward


@every_model
def test_every_parameter_gets_a_gradient(spec: ModelSpec, tiny_config: DepthConfig) -> None:
    """On the second step: at first the zero-initialised fusions, and the anchor's gain of 0, block what lies before."""
    network = build(spec, tiny_config)
    arguments = inputs(spec, 2, 64, 96)
    step(network, arguments)
    if spec.task == "prompted-depth":
        with torch.no_grad():
            network.anchor.raw_gain.fill_(0.02)  # inside (0, 1), where the clamp passes gradients
    loss(network, arguments).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gain_starts_at_zero_and_can_rise(tiny_config: DepthConfig) -> None:
    """At the edge of its clamp the gain must still get a gradient, or the anchor would never be switched on."""
    spec = get_spec("compact-teacher")
    network = build(spec, tiny_config)
    assert network.anchor.gain == 0
    loss(network, inputs(spec, 2, 64, 64)).backward()
    assert network.anchor.raw_gain.grad.abs() > 0


# ---------------------------------------------------------------- checkpoints


@every_model
def test_checkpoint_round_trip(spec: ModelSpec, tiny_config: DepthConfig, tmp_path: Path) -> None:
    network = build(spec, tiny_config)
    path = tmp_path / "model.safetensors"
    record = {"steps": 3, "note": "trained on Ångström\nscenes"}
    save_model(path, network, spec.name, record)
    loaded, found, description = load_model(path)
    assert found is spec
    assert not loaded.training
    assert loaded.config == tiny_config
    assert description["record"] == record
    assert list(loaded.state_dict()) == list(network.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )
    arguments = inputs(spec, 1, 64, 64)
    for a, b in zip(outputs(loaded(*arguments)), outputs(network.eval()(*arguments)), strict=True):
        assert torch.equal(a, b)
    save_model(tmp_path / "again.safetensors", loaded, spec.name, record)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def checkpoint(tiny_config: DepthConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_model(path, build(get_spec("compact-depthmap"), tiny_config), "compact-depthmap")
    return path


def rewrite(source: Path, target: Path, metadata: Any = None, drop: int = 0, extra: bool = False) -> None:
    """The checkpoint with some tensors dropped or added, or with another metadata block."""
    tensors = load_file(source)
    for name in list(tensors)[:drop]:
        del tensors[name]
    if extra:
        tensors["decoder.extra"] = torch.zeros(2)
    if metadata is None:
        metadata = _metadata(source)
    save_file(tensors, target, metadata=metadata)


def _metadata(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]


def described(source: Path, **changes: Any) -> dict[str, str]:
    return {METADATA_KEY: json.dumps({**json.loads(_metadata(source)[METADATA_KEY]), **changes})}


def damage(kind: str, source: Path, target: Path) -> None:
    data = source.read_bytes()
    header = struct.unpack("<Q", data[:8])[0]
    if kind == "missing file":
        return
    if kind == "folder":
        target.mkdir()
    elif kind == "garbage":
        target.write_bytes(bytes(range(256)) * 20)
    elif kind == "empty":
        target.write_bytes(b"")
    elif kind == "truncated weights":
        target.write_bytes(data[:-1000])
    elif kind == "truncated header":
        target.write_bytes(data[: 8 + header // 2])
    elif kind == "huge header":
        target.write_bytes(struct.pack("<Q", 2**60) + data[8:])
    elif kind == "nested header":
        target.write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000)
    elif kind == "list header":
        target.write_bytes(struct.pack("<Q", 2) + b"[]")
    elif kind == "pickle":
        torch.save({"a": torch.zeros(3)}, target)
    elif kind == "no metadata":
        save_file(load_file(source), target)
    elif kind == "other metadata":
        rewrite(source, target, {"format": "pt"})
    elif kind == "metadata no JSON":
        rewrite(source, target, {METADATA_KEY: "{"})
    elif kind == "metadata no record":
        rewrite(source, target, {METADATA_KEY: json.dumps({"model": "compact-depthmap", "config": {}})})
    elif kind == "unknown model":
        rewrite(source, target, described(source, model="huge-depthmap"))
    elif kind == "unknown field":
        rewrite(source, target, described(source, config={"encoder": {"colour": 1}}))
    elif kind == "impossible config":
        rewrite(source, target, described(source, config={"encoder": {"widths": [8, 8]}}))
    elif kind == "negative config":
        rewrite(source, target, described(source, config={"encoder": {"token_width": -8}}))
    elif kind == "other config":
        rewrite(source, target, described(source, config={}))
    elif kind == "missing key":
        rewrite(source, target, drop=1)
    elif kind == "extra key":
        rewrite(source, target, extra=True)
    else:
        raise AssertionError(kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing file", "no such checkpoint"),
        ("folder", "no such checkpoint"),
        ("garbage", "not a safetensors file"),
        ("empty", "not a safetensors file"),
        ("truncated header", "not a safetensors file"),
        ("huge header", "not a safetensors file"),
        ("nested header", "not a safetensors file"),
        ("pickle", "not a safetensors file"),
        ("list header", "not a safetensors file"),
        ("no metadata", "holds no network that is known here .first keys: decoder.head.1.bias"),
        ("other metadata", "holds no network that is known here"),
        ("metadata no JSON", "its metadata is damaged"),
        ("metadata no record", "does not say which model it is for"),
        ("unknown model", "model 'huge-depthmap' is unknown"),
        ("unknown field", "not of a compact-depthmap .*colour"),
        ("impossible config", "configuration makes no compact-depthmap"),
        ("negative config", "configuration makes no compact-depthmap"),
        ("other config", "do not fit compact-depthmap"),
        ("truncated weights", "damaged .* fetch it again"),
        ("missing key", "do not fit compact-depthmap: missing decoder.head.1.bias; fetch"),
        ("extra key", "unexpected decoder.extra"),
    ],
)
def test_bad_checkpoints_are_refused(checkpoint: Path, tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "model.safetensors"
    damage(kind, checkpoint, path)
    with pytest.raises(InputError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))
    if kind == "unknown model":  # nothing is damaged
        assert "fetch it again" not in str(caught.value)


def test_saving_is_atomic(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"what was there before")
    network = load_model(checkpoint)[0]

    def fail(self: Path, data: bytes) -> None:
        with open(self, "wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        save_model(path, network, "compact-depthmap")
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert path.read_bytes() == b"what was there before"


# ---------------------------------------------------------------- what the outputs mean at the start


def test_untrained_depth_is_about_three_metres() -> None:
    """log C starts near -1.3, so that the first steps do not have to find the scale of the world."""
    network = build(get_spec("compact-depthmap")).eval()
    with torch.inference_mode():
        log_c = network(*inputs(get_spec("compact-depthmap"), 2, 96, 128)).log_c_B1HW
    assert math.exp(-float(log_c.mean())) == pytest.approx(math.exp(1.3), rel=0.5)


def test_untrained_points_lie_in_front_of_the_camera(tiny_config: DepthConfig) -> None:
    points = build(get_spec("compact-pointmap"), tiny_config)(torch.rand(1, 3, 64, 96)).points_B3HW
    assert (points[:, 2] > 0).all()
    assert points[0, 0, :, -1].mean() > points[0, 0, :, 0].mean()  # x to the right
    assert points[0, 1, -1].mean() > points[0, 1, 0].mean()  # y down
