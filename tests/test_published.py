"""The published students: their exact layouts, the published code's numbers, and what a user can do with them."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expectations import assert_refused
from memory import peak_bytes
from published import (
    TINY_DEPTH_PRO,
    TINY_DEPTHMAP,
    TINY_POINTMAP,
    depthmap_state,
    model_config,
    photo,
    pointmap_state,
)
from safetensors.torch import save_file
from torch import Tensor

import metricanything as ma
from metricanything.core.camera import Camera
from metricanything.core.geometry import depth_to_points
from metricanything.inference.predictor import Model
from metricanything.models.depthmap import DepthMap, DepthMapConfig
from metricanything.models.layouts import identify
from metricanything.models.pointmap import PointMap, PointMapConfig
from metricanything.models.strips import run_in_strips

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
GOLDEN = json.loads((Path(__file__).parent / "published_golden.json").read_text())
NO_NORMALS = replace(TINY_POINTMAP, normal_head=None)
DEPTHMAP_GIVEN = {"num_heads": 2, "hook_block_ids": [1, 2, 4, 5]}
PRO_GIVEN = {"num_heads": 2, "hook_block_ids": [1, 3]}
ASSUMED = "ignore:no camera given"


def sample(values: np.ndarray, n: int = 6) -> np.ndarray:
    """The pixels of a map at which the published code's output was kept."""
    rows, columns = ((np.arange(n) * size // n + size // (2 * n)) for size in values.shape[:2])
    return values[np.ix_(rows, columns)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One checkpoint of each layout, as their authors store them."""
    folder = tmp_path_factory.mktemp("published")
    contents: dict[str, Any] = {
        "depthmap": depthmap_state(),
        "depth_pro": depthmap_state(TINY_DEPTH_PRO),
        "pointmap": {"model_config": model_config(NO_NORMALS), "model": pointmap_state(NO_NORMALS)},
        "pointmap_normal": {"model_config": model_config(TINY_POINTMAP), "model": pointmap_state()},
    }
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pt")
    return {name: folder / f"{name}.pt" for name in contents}


@pytest.fixture(scope="module")
def models(files: dict[str, Path]) -> dict[str, Model]:
    given = {"depthmap": DEPTHMAP_GIVEN, "depth_pro": PRO_GIVEN}
    return {name: ma.load(path, config=given.get(name), device="cpu") for name, path in files.items()}


# ---------------------------------------------------------------- the layouts


@pytest.mark.parametrize(
    ("listing", "network", "config", "parameters"),
    [
        ("depthmap", DepthMap, DepthMapConfig(), 876_664_001),
        ("pointmap", PointMap, PointMapConfig(), 326_209_221),
        (
            "pointmap_normal",
            PointMap,
            replace(PointMapConfig(), normal_head=PointMapConfig().points_head),
            330_901_544,
        ),
    ],
)
def test_full_size_keys_and_shapes(listing: str, network: Any, config: Any, parameters: int) -> None:
    with torch.device("meta"):
        full = network(config)
    assert sum(parameter.numel() for parameter in full.parameters()) == parameters
    if not REFERENCE.is_dir():
        pytest.skip("the lists of published keys are not beside this checkout")
    expected = json.loads((REFERENCE / f"keys_{listing}.json").read_text())["keys"]
    kinds = dict.fromkeys((name for name, _ in full.named_parameters()), "parameter")
    ours = {
        key: {"shape": list(value.shape), "dtype": str(value.dtype)[6:], "kind": kinds.get(key, "buffer")}
        for key, value in full.state_dict().items()
    }
    assert ours == expected


@pytest.mark.parametrize("name", ["depthmap", "pointmap", "pointmap_normal"])
def test_full_size_configurations_are_read_from_shapes(name: str) -> None:
    """What a checkpoint of the published size says of itself is what the registry builds."""
    config = DepthMapConfig() if name == "depthmap" else PointMapConfig()
    if name == "pointmap_normal":
        config = replace(config, normal_head=config.points_head)
    with torch.device("meta"):
        state = (DepthMap if name == "depthmap" else PointMap)(config).state_dict()
    assert identify(state, None, {}) == (name.split("_")[0], config)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("config", [TINY_POINTMAP, NO_NORMALS])
def test_tiny_point_map_configurations(config: PointMapConfig, stored: bool) -> None:
    given: dict[str, Any] = {} if stored else {"num_heads": 2, "intermediate_layers": [1, 2, 4, 5]}
    if not stored:
        given["num_tokens_range"] = [100, 400]
    found = identify(pointmap_state(config), model_config(config) if stored else None, given)
    assert found == ("pointmap", config)


def test_tiny_depth_map_configurations() -> None:
    assert identify(depthmap_state(), None, DEPTHMAP_GIVEN) == ("depthmap", TINY_DEPTHMAP)
    assert identify(depthmap_state(), None, {"hook_block_ids": [1, 2, 4, 5]}) == ("depthmap", TINY_DEPTHMAP)
    assert identify(depthmap_state(TINY_DEPTH_PRO), None, PRO_GIVEN) == ("depthmap", TINY_DEPTH_PRO)


def test_named_backbones_tell_their_heads() -> None:
    stored = model_config(NO_NORMALS)
    stored["encoder"]["backbone"] = "dinov2_vits14"
    with torch.device("meta"):
        vit = replace(TINY_POINTMAP.encoder.backbone, width=384, heads=6, mlp_width=1536, depth=12)
        config = replace(NO_NORMALS, encoder=replace(NO_NORMALS.encoder, backbone=vit), scale_head=(384, 16, 16, 1))
        state = PointMap(config).state_dict()
    assert identify(state, stored, {})[1].encoder.backbone == vit


# ---------------------------------------------------------------- the published code's numbers


@pytest.mark.filterwarnings(ASSUMED)
def test_depth_map_gives_the_published_numbers(models: dict[str, Model]) -> None:
    """Published code, commit 42f6fd7, on the same weights and image; float32 there and here differ by a few 1e-6."""
    model, image, golden = models["depthmap"], photo(60, 90), GOLDEN["depthmap"]
    given = model.predict(image, camera=Camera.centred(70, 90, 60))
    np.testing.assert_allclose(sample(given.depth), golden["depth_f70"], rtol=2e-5)
    far = model.predict(image, camera=Camera.centred(1000, 90, 60))
    np.testing.assert_allclose(sample(far.depth), golden["depth_default_1000"], rtol=2e-5)
    assumed = model.predict(image)
    assert assumed.camera_source == "assumed"
    assert assumed.camera.fx == 90
    np.testing.assert_allclose(assumed.depth, given.depth * 90 / 70, rtol=1e-4)


@pytest.mark.parametrize("name", ["pointmap", "pointmap_normal"])
def test_point_map_gives_the_published_numbers(models: dict[str, Model], name: str) -> None:
    model, image, golden = models[name], photo(60, 90), GOLDEN[name]
    given = model.predict(image, camera=Camera.from_fov(60, 90, 60), resolution_level=3)
    np.testing.assert_allclose(sample(given.depth), golden["fov60_level3"]["depth"], rtol=3e-5)
    np.testing.assert_array_equal(sample(given.mask), np.array(golden["fov60_level3"]["mask"]) > 0.5)
    free = model.predict(image)
    assert free.camera_source == "model"
    assert free.camera.fx / 90 == pytest.approx(golden["free_level9"]["fx"], rel=1e-4)
    np.testing.assert_allclose(sample(free.depth), golden["free_level9"]["depth"], rtol=3e-5)
    np.testing.assert_allclose(free.points, depth_to_points(free.depth, free.camera), rtol=1e-6)


def test_point_map_heads_give_the_published_numbers(models: dict[str, Model]) -> None:
    model, golden = models["pointmap_normal"], GOLDEN["pointmap_normal"]["forward_150"]
    out = model.predict(photo(60, 90), num_tokens=150, camera=Camera.from_fov(60, 90, 60))
    assert out.normals is not None
    np.testing.assert_allclose(np.linalg.norm(out.normals, axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(sample(out.normals), golden["normal"], atol=2e-4)
    assert models["pointmap"].predict(photo(60, 90), num_tokens=150).normals is None


def test_depth_pro_gives_its_own_codes_numbers(models: dict[str, Model]) -> None:
    model, image, golden = models["depth_pro"], photo(60, 90), GOLDEN["depth_pro"]
    own = model.predict(image)
    assert own.camera_source == "model"
    assert own.camera.fx == pytest.approx(golden["focal"], rel=1e-5)
    np.testing.assert_allclose(sample(own.depth), golden["depth"], rtol=3e-5)
    given = model.predict(image, camera=Camera.centred(70, 90, 60))
    assert given.camera_source == "given"
    np.testing.assert_allclose(sample(given.depth), golden["depth_f70"], rtol=2e-5)


# ---------------------------------------------------------------- files


def test_every_way_of_storing_gives_the_same_model(
    files: dict[str, Path], models: dict[str, Model], tmp_path: Path
) -> None:
    image, camera = photo(40, 30), Camera.centred(40, 30, 40)
    state = torch.load(files["depthmap"], weights_only=True)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "nested.pt")
    torch.save({"model": state}, tmp_path / "model.pth")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "bare.safetensors")
    expected = models["depthmap"].predict(image, camera=camera).depth
    for name in ("nested.pt", "model.pth", "old.pt", "bare.safetensors"):
        model = ma.load(tmp_path / name, config=DEPTHMAP_GIVEN, device="cpu")
        np.testing.assert_array_equal(model.predict(image, camera=camera).depth, expected)


def test_bare_point_maps_load_too(files: dict[str, Path], models: dict[str, Model], tmp_path: Path) -> None:
    state = torch.load(files["pointmap"], weights_only=True)["model"]
    save_file(state, tmp_path / "bare.safetensors")
    save_file(state, tmp_path / "stored.safetensors", metadata={"model_config": json.dumps(model_config(NO_NORMALS))})
    given = {"num_heads": 2, "intermediate_layers": [1, 2, 4, 5], "num_tokens_range": [100, 400]}
    image, camera = photo(40, 60), Camera.centred(50, 60, 40)
    expected = models["pointmap"].predict(image, camera=camera).depth
    for name, config in (("bare", given), ("stored", None)):
        model = ma.load(tmp_path / f"{name}.safetensors", config=config, device="cpu")
        np.testing.assert_allclose(model.predict(image, camera=camera).depth, expected, rtol=1e-5)


def test_parts_of_the_stored_configuration_can_be_replaced(files: dict[str, Path]) -> None:
    model = ma.load(files["pointmap"], config={"num_tokens_range": [50, 60], "encoder": {"dim_out": 24}}, device="cpu")
    assert model.network.config.num_tokens_range == (50, 60)
    other = ma.load(files["pointmap"], config={"intermediate_layers": [0, 1, 2, 3]}, device="cpu")
    assert other.network.config.encoder.intermediate_layers == (0, 1, 2, 3)


def write(path: Path, state: dict[str, Tensor], **changes: Tensor | None) -> Path:
    state = {**state, **{key.replace("__", "."): value for key, value in changes.items()}}
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    return path


def test_checkpoints_that_do_not_fit_name_the_first_keys(tmp_path: Path) -> None:
    state, path = depthmap_state(), tmp_path / "student.pt"
    nan = torch.full((96,), float("nan"))
    cases: list[tuple[dict[str, Tensor | None], str]] = [
        ({"decoder__fusions__2__out_conv__weight": None}, "missing decoder.fusions.2.out_conv.weight"),
        ({"decoder__more": torch.zeros(2)}, "unexpected decoder.more"),
        ({"head__2__bias": torch.zeros(7)}, "wrong shape: head.2.bias is (7,), not (5,)"),
        ({"encoder__patch_encoder__blocks__3__attn__qkv__bias_mask": nan}, "not finite, the first encoder.patch_"),
    ]  # fmt: skip
    for changes, message in cases:
        write(path, state, **changes)
        assert_refused(lambda: ma.load(path, config=DEPTHMAP_GIVEN), str(path), message)
    write(path, {"backbone.cls_token": torch.zeros(1), "head.x": torch.zeros(1)})
    assert_refused(lambda: ma.load(path), "MoGe-1")
    write(path, {"conv.weight": torch.zeros(1), "conv.bias": torch.zeros(1)})
    assert_refused(lambda: ma.load(path), "holds no network that is known here (first keys: conv.weight, conv.bias)")
    write(path, {key: value for key, value in state.items() if "fusions" not in key})
    assert_refused(lambda: ma.load(path, config=DEPTHMAP_GIVEN), "decoder.fusions.0.out_conv.weight' is missing")


class Thing:
    """What an unsafe checkpoint might hold."""


def test_damaged_files(files: dict[str, Path], tmp_path: Path) -> None:
    path, data = tmp_path / "model.pt", files["depthmap"].read_bytes()
    for content in (b"", b"no checkpoint", data[:1000], data[: len(data) // 2]):
        path.write_bytes(content)
        assert_refused(lambda: ma.load(path), str(path), "damaged, or no PyTorch checkpoint", "fetch it again")
    torch.save({"model": Thing()}, path)
    assert_refused(lambda: ma.load(path), str(path), "Python objects besides tensors")
    torch.save([1, 2], path)
    assert_refused(lambda: ma.load(path), str(path), "no state dict")


def test_what_shapes_cannot_tell_is_asked_for(files: dict[str, Path], tmp_path: Path) -> None:
    for config, message in [
        (None, "which 4 of the 6 blocks are used; pass config={'hook_block_ids': [...]}"),
        ({"hook_block_ids": [1, 2, 4]}, "hook_block_ids must be 4 block numbers in 0..5, got [1, 2, 4]"),
        ({"hook_block_ids": [1, 2, 4, 6]}, "hook_block_ids must be 4 block numbers in 0..5"),
        ({"hook_block_ids": 3}, "hook_block_ids must be 4 block numbers"),
        ({**DEPTHMAP_GIVEN, "num_heads": 4}, "contradicts the checkpoint's rotary periods, which make 2 heads"),
        ({"heads": 2}, "config key 'heads' is not of this checkpoint's layout; use num_heads, hook_block_ids"),
    ]:
        assert_refused(lambda c=config: ma.load(files["depthmap"], config=c), str(files["depthmap"]), message)
    torch.save(pointmap_state(NO_NORMALS), tmp_path / "bare.pt")
    assert_refused(lambda: ma.load(tmp_path / "bare.pt"), "number of attention heads; pass config={'num_heads': ...}")
    assert_refused(lambda: ma.load(tmp_path / "bare.pt", config={"num_heads": 2}), "'intermediate_layers': [...]")


# ---------------------------------------------------------------- the Hub


def test_weights_put_by_hand_are_found(
    files: dict[str, Path], models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRICANYTHING_WEIGHTS", str(tmp_path))
    repo = "yjh001/metricanything_student_pointmap"
    place = tmp_path / repo / "student_pointmap.pt"
    for name in (repo, "pointmap"):
        assert_refused(
            lambda n=name: ma.load(n), repo, "student_pointmap.pt", str(place), f"https://huggingface.co/{repo}/resolve/main/"
        )  # fmt: skip
    place.parent.mkdir(parents=True)
    place.write_bytes(files["pointmap"].read_bytes())
    image, camera = photo(40, 60), Camera.centred(50, 60, 40)
    expected = models["pointmap"].predict(image, camera=camera).depth
    for name in (repo, "pointmap"):
        model = ma.load(name, device="cpu")
        assert model.record["weights"] == "student_pointmap.pt"
        np.testing.assert_array_equal(model.predict(image, camera=camera).depth, expected)


def test_the_hub_cache_is_used(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str, bool]] = []

    def download(repo: str, name: str, *, local_files_only: bool) -> str:
        asked.append((repo, name, local_files_only))
        if (repo, name) == ("someone/moge-2-small", "model.pt") and not local_files_only:
            return str(files["pointmap"])
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setenv("METRICANYTHING_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("metricanything.models.hub._reachable", lambda: True)
    assert ma.load("someone/moge-2-small", device="cpu").spec.name == "pointmap"
    assert asked[0] == ("someone/moge-2-small", "model.safetensors", True)
    assert asked[-1] == ("someone/moge-2-small", "model.pt", False)
    assert_refused(lambda: ma.load("someone/nothing"), "someone/nothing: model.safetensors or model.pt is neither")


# ---------------------------------------------------------------- predictions


@pytest.mark.parametrize("name", ["depthmap", "pointmap"])
def test_images_of_different_sizes_go_through_together(models: dict[str, Model], name: str) -> None:
    sizes = [(60, 90), (60, 91), (100, 40), (30, 45)] if name == "pointmap" else [(60, 90), (100, 40)]
    images = [photo(*size) for size in sizes]
    cameras = [Camera.centred(50 + i, w, h) for i, (h, w) in enumerate(sizes)]
    together = models[name].predict(images, camera=cameras, batch_size=4)
    for image, camera, out in zip(images, cameras, together, strict=True):
        alone = models[name].predict(image, camera=camera)
        assert out.depth.shape == image.shape[:2]
        assert out.depth.dtype == np.float32
        np.testing.assert_allclose(out.depth, alone.depth, rtol=1e-4)


def test_depth_is_clamped_as_published_and_masked_beyond(models: dict[str, Model]) -> None:
    image = photo(60, 90)
    far = models["depthmap"].predict(image, camera=Camera.centred(1e7, 90, 60))
    assert far.depth.max() == pytest.approx(1000)
    assert not far.mask[far.depth >= 1000].any()
    near = models["depthmap"].predict(image, camera=Camera.centred(1e-4, 90, 60))
    assert near.depth.min() == pytest.approx(1e-3)


@pytest.mark.parametrize(
    "camera",
    [
        Camera.pinhole(70, 85, 40, 33, 90, 60),
        Camera.opencv(70, 70, 45, 30, 90, 60, distortion=(-0.2, 0.05, 0.001, 0)),
        Camera.kannala_brandt(40, 40, 45, 30, 90, 60, distortion=(0.02, 0, 0, 0)),
    ],
    ids=lambda camera: camera.model,
)
def test_points_respect_the_given_camera(models: dict[str, Model], camera: Camera) -> None:
    """Full intrinsics and any lens, not only a field of view."""
    for name in ("depthmap", "pointmap"):
        out = models[name].predict(photo(60, 90), camera=camera)
        assert out.camera is camera
        assert out.camera_source == "given"
        seen = camera.project(out.points[out.mask])
        np.testing.assert_allclose(seen, camera.pixel_grid()[out.mask], atol=1e-2)
        np.testing.assert_allclose(out.points[..., 2][out.mask], out.depth[out.mask], rtol=1e-6)


def test_resolution_of_point_maps(models: dict[str, Model]) -> None:
    model, image = models["pointmap"], photo(60, 90)
    sizes = {level: model.predict(image, resolution_level=level).record["network_size"] for level in (0, 9)}
    assert sizes == {0: [8 * 14, 12 * 14], 9: [16 * 14, 24 * 14]}
    assert model.predict(image, num_tokens=150).record["network_size"] == [10 * 14, 15 * 14]
    for options, message in [
        ({"resolution_level": 10}, "resolution_level must lie between 0 and 9"),
        ({"resolution_level": 2.5}, "resolution_level must be a whole number"),
        ({"num_tokens": 0}, "num_tokens must lie between 1 and 16384"),
        ({"num_tokens": 10**6}, "num_tokens must lie between 1 and 16384"),
        ({"num_tokens": 10, "resolution_level": 1}, "give one of them"),
        ({"max_side": 640}, "pointmap has no max_side; it takes num_tokens, resolution_level"),
    ]:
        assert_refused(lambda o=options: model.predict(image, **o), message)
    assert_refused(lambda: models["depthmap"].predict(image, num_tokens=100), "depthmap has no num_tokens")
    prompt = ma.SparsePrompt.from_pixels([[1, 1]], [1.0], (60, 90))
    assert_refused(lambda: models["depthmap"].predict(image, prompt=prompt), "takes no prompt")


@pytest.mark.filterwarnings(ASSUMED)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 500), (700, 5)])
@pytest.mark.parametrize("name", ["depthmap", "pointmap"])
def test_extreme_sizes(models: dict[str, Model], name: str, size: tuple[int, int]) -> None:
    out = models[name].predict(photo(*size))
    assert out.depth.shape == size
    assert np.isfinite(out.depth).all()


@pytest.mark.parametrize("fast", [False, True])
def test_half_precision_changes_little(
    files: dict[str, Path], models: dict[str, Model], monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    """Whether the processor computes in half precision, or only keeps its weights so and computes in float32."""
    monkeypatch.setattr("metricanything.inference.engine.fast_on_cpu", lambda dtype: fast)
    image, camera = photo(60, 90), Camera.centred(80, 90, 60)
    for name, given in (("depthmap", DEPTHMAP_GIVEN), ("pointmap", None)):
        exact = models[name].predict(image, camera=camera).depth
        for dtype, limit in (("float16", 0.01), ("bfloat16", 0.08)):
            half = ma.load(files[name], config=given, device="cpu", dtype=dtype)
            kinds = {key: parameter.dtype for key, parameter in half.network.named_parameters()}
            narrow = {key for key, kind in kinds.items() if kind == getattr(torch, dtype)}
            assert all(kinds[key] == torch.float32 for key in kinds if key not in narrow)
            assert sum(half.network.get_parameter(key).numel() for key in narrow) > 0.7 * sum(
                parameter.numel() for parameter in half.network.parameters()
            )
            out = half.predict(image, camera=camera).depth
            assert out.dtype == np.float32
            assert 0 < np.median(np.abs(out / exact - 1)) < limit
            assert {key: parameter.dtype for key, parameter in half.network.named_parameters()} == kinds


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("units", [1, 5, 24])
@pytest.mark.parametrize("rows", [None, 1, 4, 7, 100])
def test_strips_equal_the_whole(units: int, rows: int | None) -> None:
    """Two convolutions of three rows and a doubling, on maps of different resolutions."""
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1, padding_mode="replicate")

    def local(x: Tensor, y: Tensor) -> Tensor:
        return second(torch.nn.functional.interpolate(first(x).relu() + y, scale_factor=2, mode="bilinear"))

    x, y = torch.randn(2, 3, 2 * units, 9), torch.randn(2, 4, 2 * units, 9)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            expected = local(x, y)
            out = run_in_strips(local, [x, y], units=units, rows=rows, halo=2)
            torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_streamed_tiles_give_the_same_depth(models: dict[str, Model], files: dict[str, Path]) -> None:
    image, camera = photo(60, 90), Camera.centred(80, 90, 60)
    whole = ma.load(files["depthmap"], config=DEPTHMAP_GIVEN, device="cpu", tiles_per_pass=35)
    expected = whole.predict(image, camera=camera).depth
    for tiles in (4, 34):
        model = ma.load(files["depthmap"], config=DEPTHMAP_GIVEN, device="cpu", tiles_per_pass=tiles)
        np.testing.assert_allclose(model.predict(image, camera=camera).depth, expected, rtol=1e-5)
    for tiles, message in ((0, "at least 1"), (2.5, "whole number")):
        assert_refused(lambda t=tiles: ma.load(files["depthmap"], config=DEPTHMAP_GIVEN, tiles_per_pass=t), message)
    assert_refused(lambda: ma.load(files["pointmap"], tiles_per_pass=5), "pointmap has no tiles_per_pass")


def test_streaming_takes_a_third_of_the_memory_at_full_size() -> None:
    """The released 876 M network at 1536 x 1536, traced without computing: bytes of all tensors alive at once."""
    with torch.device("meta"):
        network, image = DepthMap(DepthMapConfig()).eval(), torch.empty(1, 3, 1536, 1536)
    with torch.inference_mode():
        whole = peak_bytes(lambda: network(image))
        streamed = peak_bytes(lambda: network(image, 5))
    assert whole > 2e9
    assert streamed < whole / 3


def test_streaming_point_maps_takes_less_memory_and_gives_the_same(models: dict[str, Model]) -> None:
    network = models["pointmap_normal"].network
    pixels, aspect = torch.rand(2, 3, 28 * 14, 10 * 14), torch.tensor([0.36, 0.35])
    with torch.inference_mode():
        whole, streamed = (network(pixels, aspect, streamed=streamed) for streamed in (False, True))
        for field in ("points_B3HW", "mask_logit_B1HW", "normal_B3HW", "log_scale_B"):
            expected = getattr(whole, field)
            assert (getattr(streamed, field) - expected).abs().max() <= 1e-5 * expected.abs().max()
    with torch.device("meta"):
        full = PointMap(PointMapConfig()).eval()
        pixels, aspect = torch.empty(1, 3, 52 * 14, 69 * 14), torch.empty(1)
    with torch.inference_mode():
        peaks = [peak_bytes(lambda s=s: full(pixels, aspect, streamed=s)) for s in (False, True)]
    assert peaks[1] < 0.7 * peaks[0]


def test_weights_can_stay_in_their_file(
    files: dict[str, Path], models: dict[str, Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from metricanything.models.checkpoint import save_model

    image, camera = photo(40, 60), Camera.centred(50, 60, 40)
    for name in ("depthmap", "pointmap_normal"):
        path = tmp_path / f"{name}.safetensors"
        save_model(path, models[name].network, models[name].spec.name)
        model = ma.load(path, low_memory=True)
        expected = models[name].predict(image, camera=camera).depth
        for _ in range(2):  # dropped weights come back
            np.testing.assert_allclose(model.predict(image, camera=camera).depth, expected, rtol=1e-5)
        for options in ({"dtype": "float16"}, {"device": "cuda"}):
            refused = "low_memory is for float32 on the CPU"
            assert_refused(lambda p=path, o=options: ma.load(p, low_memory=True, **o), refused)
        path.write_bytes(path.read_bytes()[:-100])
        assert_refused(lambda p=path: ma.load(p, low_memory=True), str(path), "damaged")
    assert_refused(lambda: ma.load(files["pointmap"], low_memory=True), "metricanything models convert")


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("name", ["depthmap", "pointmap"])
def test_gradients_reach_every_parameter(models: dict[str, Model], name: str) -> None:
    torch.manual_seed(0)
    if name == "depthmap":
        network = DepthMap(TINY_DEPTHMAP)
        network.load_state_dict(depthmap_state())
        network(torch.randn(1, 3, 1536, 1536))[0].mean().backward()
        unused = {"encoder.patch_encoder.mask_token"}
    else:
        network = PointMap(TINY_POINTMAP)
        network.load_state_dict(pointmap_state())
        out = network(torch.rand(1, 3, 56, 84), torch.tensor([1.5]))
        (out.points_B3HW.square().mean() + out.mask_logit_B1HW.mean() + out.normal_B3HW.square().mean()
         + out.log_scale_B.mean()).backward()  # fmt: skip
        unused = {"encoder.backbone.mask_token"}
    without = {
        key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    }
    assert {key for key in without if not key.endswith("attn.qkv.bias")} == unused


# ---------------------------------------------------------------- the command line


def run(*arguments: Any) -> int:
    from metricanything.cli import main

    with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_convert_writes_safetensors_with_a_configuration(
    files: dict[str, Path], models: dict[str, Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student.safetensors"
    assert run("models", "convert", files["depthmap"], "-o", out, "--config", json.dumps(DEPTHMAP_GIVEN)) == 0
    assert "depthmap" in capsys.readouterr().out
    model, image, camera = ma.load(out, device="cpu"), photo(40, 60), Camera.centred(50, 60, 40)
    assert model.network.config == TINY_DEPTHMAP
    assert model.record["converted_from"] == "depthmap.pt"
    expected = models["depthmap"].predict(image, camera=camera).depth
    np.testing.assert_array_equal(model.predict(image, camera=camera).depth, expected)
    for name in ("pointmap_normal", "depth_pro"):
        given = ["--config", json.dumps(PRO_GIVEN)] if name == "depth_pro" else []
        assert run("models", "convert", files[name], "-o", out, *given, "--dtype", "float16") == 0
        half = ma.load(out, device="cpu")
        assert half.network.config == models[name].network.config
        change = half.predict(image, camera=camera).depth / models[name].predict(image, camera=camera).depth - 1
        assert np.median(np.abs(change)) < 0.01


def test_convert_says_what_is_missing(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student.safetensors"
    for arguments, message in [
        (["convert"], "convert needs a checkpoint and --output"),
        (["convert", files["depthmap"]], "convert needs a checkpoint and --output"),
        (["convert", files["depthmap"], "-o", tmp_path / "a.pt"], "give a name that ends so"),
        (["convert", files["depthmap"], "-o", out], "hook_block_ids"),
        (["convert", files["depthmap"], "-o", out, "--config", "{"], "--config is not JSON"),
        (["convert", files["depthmap"], "-o", out, "--config", "[1]"], "--config must be a JSON object"),
        (["convert", tmp_path / "none.pt", "-o", out], "no such checkpoint"),
        (["list", files["depthmap"]], "listing the models takes no file"),
    ]:
        assert run("models", *arguments) == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith("error: ")
        assert message in line
        assert "\n" not in line
    assert not out.exists()


def test_predict_with_a_published_checkpoint(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from metricanything.core import codecs

    codecs.write_image(tmp_path / "photo.png", photo(60, 90))
    out = tmp_path / "out"
    common = ["predict", tmp_path / "photo.png", "-o", out, "--device", "cpu", "--fov-x", "60"]
    code = run(*common, "--model", files["pointmap_normal"], "--resolution-level", "2", "--format", "npy", "normals")
    assert code == 0
    depth = np.load(out / "photo" / "depth.npy")
    assert depth.shape == (60, 90)
    assert codecs.read_image(out / "photo" / "normals.png").shape == (60, 90, 3)
    record = json.loads((out / "photo" / "camera.json").read_text())
    assert record["camera_source"] == "given"
    assert record["model"]["weights"] == "pointmap_normal.pt"
    assert run(*common, "--model", files["pointmap"], "--max-side", "320") == 2
    assert "pointmap has no max_side" in capsys.readouterr().err
