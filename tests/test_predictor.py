"""`load` and `predict`: one result for every way of asking, in metres, at the size of the image, saved faithfully."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from plyfile import PlyData
from torch import Tensor, nn

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points
from metricanything.core.prediction import FORMATS, Prediction
from metricanything.core.prompt import SparsePrompt
from metricanything.inference.native import network_size
from metricanything.inference.predictor import Model, best_device, load
from metricanything.models.checkpoint import save_model
from metricanything.models.compact.pointmap import PointOutput
from metricanything.models.compact.teacher import DepthConfig
from metricanything.models.outputs import DepthOutput
from metricanything.models.registry import COMPACT, get_spec

every_model = pytest.mark.parametrize("name", list(COMPACT))
ASSUMED = "ignore:no camera given"


def build(name: str, config: DepthConfig) -> Model:
    """A random network whose prompt path is awake and whose mask is mixed."""
    torch.manual_seed(0)
    network = get_spec(name).build(asdict(config))
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
        if name == "compact-teacher":
            network.anchor.raw_gain.fill_(1)
    return Model(network, get_spec(name), {"model": name, "input_side": 96}, device="cpu")


@pytest.fixture(scope="module")
def models(tiny_config: DepthConfig) -> dict[str, Model]:
    return {name: build(name, tiny_config) for name in COMPACT}


@pytest.fixture(scope="module")
def frame(make_frame: Callable[..., Frame]) -> Frame:
    return make_frame(0, 60, 90)


def prompt_of(frame: Frame) -> SparsePrompt:
    depth = np.full_like(frame.depth, np.nan)
    depth[5::9, 4::9] = frame.depth[5::9, 4::9]
    return SparsePrompt.from_depth(depth)


def raises_one_line(message: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- predict


@every_model
def test_prediction_is_complete(models: dict[str, Model], frame: Frame, name: str) -> None:
    out = models[name].predict(frame.image, camera=frame.camera)
    assert out.depth.shape == out.mask.shape == (60, 90)
    assert out.points.shape == (60, 90, 3)
    assert (out.depth.dtype, out.points.dtype, out.mask.dtype) == (np.float32, np.float32, np.bool_)
    assert (out.depth > 0).all()
    assert np.isfinite(out.depth).all()
    assert (out.camera, out.camera_source) == (frame.camera, "given")
    assert (out.confidence is None) == (name != "compact-teacher")
    if out.confidence is not None:
        assert (out.confidence.shape, out.confidence.dtype) == ((60, 90), np.float32)
        assert (out.confidence > 0).all()
    np.testing.assert_array_equal(out.image, frame.image)
    np.testing.assert_array_equal(out.points[..., 2], out.depth)
    projected = out.camera.project(out.points)
    np.testing.assert_allclose(projected, out.camera.pixel_grid(), atol=1e-3)
    assert out.record["model"]["model"] == name
    assert out.record["network_size"] == [64, 96]


@every_model
def test_every_form_of_image_gives_the_same(models: dict[str, Model], frame: Frame, name: str, tmp_path: Path) -> None:
    codecs.write_image(tmp_path / "a.png", frame.image)
    tensor = torch.from_numpy(frame.image).permute(2, 0, 1)
    forms = [tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(frame.image), tensor, tensor / 255]
    expected = models[name].predict(frame.image, camera=frame.camera)
    for form in forms:
        found = models[name].predict(form, camera=frame.camera)
        np.testing.assert_array_equal(found.depth, expected.depth)
        np.testing.assert_array_equal(found.mask, expected.mask)


def test_arrays_that_are_views_or_read_only(models: dict[str, Model], frame: Frame) -> None:
    """What decoders, memory maps and slicing give: the same answer, without a word of torch."""
    model = models["compact-depthmap"]
    mirrored = np.ascontiguousarray(frame.image[:, ::-1])
    locked = mirrored.copy()
    locked.setflags(write=False)
    expected = model.predict(mirrored, camera=frame.camera).depth
    torch.set_warn_always(True)  # otherwise torch warns once in a process, perhaps in an earlier test
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for image in (frame.image[:, ::-1], locked):
                np.testing.assert_array_equal(model.predict(image, camera=frame.camera).depth, expected)
    finally:
        torch.set_warn_always(False)


@every_model
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_lists_of_mixed_sizes(
    models: dict[str, Model], make_frame: Callable[..., Frame], name: str, batch_size: int
) -> None:
    frames = [
        make_frame(i, *size) for i, size in enumerate([(60, 90), (90, 60), (64, 96), (60, 90), (41, 43), (90, 60)])
    ]
    prompts: list[SparsePrompt | None] = [None] * 6
    if name == "compact-teacher":
        prompts = [prompt_of(f) if i % 2 else None for i, f in enumerate(frames)]
    cameras = [frame.camera for frame in frames]
    together = models[name].predict([f.image for f in frames], prompt=prompts, camera=cameras, batch_size=batch_size)
    assert len(together) == 6
    for frame, prompt, found in zip(frames, prompts, together, strict=True):
        alone = models[name].predict(frame.image, prompt=prompt, camera=frame.camera)
        assert found.depth.shape == frame.depth.shape
        assert found.record == alone.record
        np.testing.assert_allclose(found.depth, alone.depth, rtol=1e-3)
        np.testing.assert_array_equal(found.image, frame.image)


def test_empty_list(models: dict[str, Model]) -> None:
    assert models["compact-teacher"].predict([]) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 7), (33, 31)])
@every_model
def test_extreme_sizes(models: dict[str, Model], name: str, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, np.uint8)
    out = models[name].predict(image, camera=Camera.from_fov(60, size[1], size[0]))
    assert out.depth.shape == size
    assert np.isfinite(out.depth).all()


def test_prompt_of_a_coarser_sensor(models: dict[str, Model], frame: Frame) -> None:
    """A 15x10 sensor that sees a wall at 3 m: close to constant, whatever a random network says of the image."""
    prompt = SparsePrompt.from_depth(np.full((10, 15), 3.0, np.float32))
    out = models["compact-teacher"].predict(frame.image, prompt=prompt, camera=frame.camera)
    assert np.median(np.abs(out.depth / 3 - 1)) < 0.1
    assert out.record["prompt_points"] == 150


def test_network_predicts_canonical_inverse_depth(frame: Frame) -> None:
    """D = fx / (W C), with fx and W of the image, whatever the size of the network's input."""

    class Constant(nn.Module):
        def forward(self, image: Tensor) -> DepthOutput:
            flat = torch.full((len(image), 1, *image.shape[2:]), math.log(0.2))
            return DepthOutput(flat, torch.ones_like(flat))

    model = Model(Constant(), get_spec("compact-depthmap"), device="cpu")
    out = model.predict(frame.image, camera=Camera.pinhole(45, 70, 45, 30, 90, 60), max_side=320)
    np.testing.assert_allclose(out.depth, 45 / 90 / 0.2, rtol=1e-5)
    assert out.mask.all()


def test_point_model_recovers_camera_and_metres() -> None:
    """Points of a known scene up to scale and shift come back as the scene's depth, camera and points."""
    camera = Camera.from_fov(70, 96, 64)
    rays = camera.rays().astype(np.float64)
    depth = (4 / ((rays / rays[..., 2:]) @ np.array([0.2, -0.4, 1.0]))).astype(np.float32)
    points = rays / rays[..., 2:] * depth[..., None]
    affine = torch.from_numpy(points / 2.5 - (0, 0, 0.7)).permute(2, 0, 1)[None].float()

    class Exact(nn.Module):
        def forward(self, image: Tensor) -> PointOutput:
            return PointOutput(affine, torch.ones(1, 1, 64, 96), torch.tensor([math.log(2.5)]))

    model = Model(Exact(), get_spec("compact-pointmap"), {"input_side": 96}, device="cpu")
    out = model.predict(np.zeros((64, 96, 3), np.uint8))
    assert out.camera_source == "model"
    assert out.camera.fx == pytest.approx(camera.fx, rel=0.01)
    np.testing.assert_allclose(out.depth, depth, rtol=0.02)
    given_camera = model.predict(np.zeros((64, 96, 3), np.uint8), camera=camera)
    np.testing.assert_allclose(given_camera.depth, depth, rtol=2e-3)
    np.testing.assert_allclose(given_camera.points, points, rtol=5e-3, atol=5e-3)


KNOWN_CAMERAS = {
    "centred": Camera.pinhole(300, 300, 160, 120, 320, 240),
    "cropped": Camera.pinhole(300, 300, 220, 120, 320, 240),
    "tall pixels": Camera.pinhole(300, 336, 160, 120, 320, 240),
    "barrel": Camera.opencv(300, 300, 160, 120, 320, 240, distortion=(-0.3, 0, 0, 0)),
    "fisheye": Camera.kannala_brandt(110, 110, 160, 120, 320, 240, distortion=(0, 0, 0, 0)),
    "panorama": Camera.equirectangular(320, 160),
}


@pytest.mark.parametrize("name", KNOWN_CAMERAS)
def test_point_model_agrees_with_the_rays_of_a_given_camera(name: str) -> None:
    """Exact points of any camera, short of scale and shift, come back as the scene's depth."""
    camera = KNOWN_CAMERAS[name]
    height, width = camera.height, camera.width
    rays = camera.rays().astype(np.float64)
    seen = rays[..., 2] > 0.05
    depth = np.random.default_rng(0).uniform(2, 9, (height, width))
    points = np.where(seen[..., None], rays / rays[..., 2:] * depth[..., None], 1e3)
    affine = torch.from_numpy(points / 2.5 - (0, 0, 0.6)).permute(2, 0, 1)[None].float()

    class Exact(nn.Module):
        def forward(self, image: Tensor) -> PointOutput:
            return PointOutput(affine, torch.ones(1, 1, height, width), torch.tensor([math.log(2.5)]))

    model = Model(Exact(), get_spec("compact-pointmap"), {"input_side": 320}, device="cpu")
    out = model.predict(np.zeros((height, width, 3), np.uint8), camera=camera)
    np.testing.assert_array_equal(out.mask, seen)
    assert (~seen).any() == (name in ("fisheye", "panorama"))
    assert np.mean(np.abs(out.depth[seen] / depth[seen] - 1)) < 1e-3
    np.testing.assert_allclose(out.points[seen], points[seen], rtol=2e-3, atol=1e-3)


def test_pixels_without_a_point_are_not_trusted(frame: Frame) -> None:
    class Flat(nn.Module):
        def forward(self, image: Tensor) -> DepthOutput:
            zeros = torch.zeros(len(image), 1, *image.shape[2:])
            return DepthOutput(zeros, zeros + 1)

    panorama = Camera.equirectangular(90, 60)
    out = Model(Flat(), get_spec("compact-depthmap"), device="cpu").predict(frame.image, camera=panorama)
    np.testing.assert_array_equal(out.mask, panorama.rays()[..., 2] > 0.05)
    assert 0.4 < out.mask.mean() < 0.6
    assert np.abs(out.points[out.mask]).max() < 20.001 * out.depth.max()


# ---------------------------------------------------------------- cameras


def test_camera_sources(models: dict[str, Model], frame: Frame, tmp_path: Path) -> None:
    """given > sidecar > EXIF > assumed with a warning; what was used is in the result."""
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 30  # FocalLengthIn35mmFilm
    Image.fromarray(frame.image).save(path, exif=exif)
    path.with_suffix(".json").write_text(json.dumps({"cam_in": [80, 80, 45, 30]}))
    model = models["compact-depthmap"]
    given_camera = model.predict(path, camera=frame.camera)
    assert (given_camera.camera_source, given_camera.camera) == ("given", frame.camera)
    from_sidecar = model.predict(path)
    assert (from_sidecar.camera_source, from_sidecar.camera.fx) == ("sidecar", 80)
    path.with_suffix(".json").unlink()
    from_exif = model.predict(path)
    assert from_exif.camera_source == "exif"
    assert from_exif.camera.fx == pytest.approx(30 * np.hypot(60, 90) / np.hypot(24, 36))
    ratio = from_sidecar.depth / from_exif.depth
    np.testing.assert_allclose(ratio, 80 / from_exif.camera.fx, rtol=1e-4)
    codecs.write_image(path, frame.image)
    with pytest.warns(UserWarning, match="assuming a field of view of 53 degrees"):
        assumed = model.predict(path)
    assert (assumed.camera_source, assumed.camera.fx, assumed.camera.fov_x) == (
        "assumed",
        90,
        pytest.approx(53.13, abs=0.01),
    )


def test_an_assumed_camera_is_said_with_and_without_a_prompt(models: dict[str, Model], frame: Frame) -> None:
    """With a prompt the depth holds, but the points do not; the record says so to those who see no warnings."""
    teacher, prompt = models["compact-teacher"], prompt_of(frame)
    with pytest.warns(UserWarning, match="depth is only as good as that guess"):
        alone = teacher.predict(frame.image)
    with pytest.warns(UserWarning, match="depth follows the prompt, but the points are only as good sideways") as seen:
        prompted, given_camera = teacher.predict(
            [frame.image] * 2, prompt=[prompt, prompt], camera=[None, frame.camera]
        )
    assert alone.camera_source == prompted.camera_source == "assumed"
    assert prompted.record["warnings"] == [str(seen[0].message)]
    assert len(alone.record["warnings"]) == 1
    assert "without a prompt" in alone.record["warnings"][0]
    assert given_camera.record["warnings"] == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teacher.predict(frame.image, prompt=prompt, camera=frame.camera)


def test_point_model_without_a_usable_focal_length_warns() -> None:
    class Backwards(nn.Module):
        """Points on which every pixel sees the same ray."""

        def forward(self, image: Tensor) -> PointOutput:
            points = torch.ones(1, 3, *image.shape[2:])
            points[:, :2] = 1e-9
            return PointOutput(points, torch.ones(1, 1, *image.shape[2:]), torch.zeros(1))

    model = Model(Backwards(), get_spec("compact-pointmap"), {"input_side": 96}, device="cpu")
    with pytest.warns(UserWarning, match="assuming a field of view"):
        out = model.predict(np.zeros((60, 90, 3), np.uint8))
    assert (out.camera_source, out.camera.fx) == ("assumed", 90)


@every_model
def test_cameras_with_distortion(models: dict[str, Model], frame: Frame, name: str) -> None:
    lens = frame.camera
    fisheye = Camera.kannala_brandt(lens.fx, lens.fy, lens.cx, lens.cy, 90, 60, distortion=(0.1, 0, 0, 0))
    out = models[name].predict(frame.image, camera=fisheye)
    np.testing.assert_allclose(fisheye.project(out.points), fisheye.pixel_grid(), atol=1e-3)


# ---------------------------------------------------------------- bad input


@pytest.mark.filterwarnings(ASSUMED)
def test_bad_requests(models: dict[str, Model], frame: Frame, tmp_path: Path) -> None:
    teacher, student = models["compact-teacher"], models["compact-depthmap"]
    prompt = prompt_of(frame)
    other = SparsePrompt.from_depth(np.ones((60, 60), np.float32))
    empty = SparsePrompt(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), 60, 90)
    outside = SparsePrompt(np.array([[100, 5]], np.float32), np.ones(1, np.float32), 60, 90)
    image = frame.image
    raises_one_line("takes no prompt; use compact-teacher", student.predict, image, prompt=prompt)
    raises_one_line("image 0: the prompt is empty", teacher.predict, image, prompt=empty)
    raises_one_line("image 0: .* another aspect ratio", teacher.predict, image, prompt=other)
    raises_one_line("image 0: 1 of 1 prompt points lie outside", teacher.predict, image, prompt=outside)
    raises_one_line("must be a SparsePrompt, got ndarray", teacher.predict, image, prompt=frame.depth)
    raises_one_line("the camera is for 45x30 pixels", teacher.predict, image, camera=frame.camera.resize(45, 30))
    raises_one_line("must be a Camera", teacher.predict, image, camera=[500, 500, 45, 30])
    raises_one_line("image 1: .* got int32", teacher.predict, [image, image.astype(np.int32)])
    raises_one_line("2 images need a list of 2 prompts .* got one", teacher.predict, [image] * 2, prompt=prompt)
    raises_one_line("2 images need a list of 2 cameras .* got 1", teacher.predict, [image] * 2, camera=[None])
    raises_one_line("no such file", teacher.predict, tmp_path / "a.png")
    for side in (0, 31, -5, 4097):
        raises_one_line("max_side must lie between 32 and 4096", teacher.predict, image, max_side=side)
    for side in ("big", 320.5, [320]):
        raises_one_line("max_side must be a whole number, got", teacher.predict, image, max_side=side)
    raises_one_line("batch_size must be at least 1", teacher.predict, image, batch_size=0)
    raises_one_line("batch_size must be a whole number, got 'all'", teacher.predict, image, batch_size="all")


# ---------------------------------------------------------------- load


@pytest.fixture(scope="module")
def checkpoint(models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("load") / "mine.safetensors"
    save_model(path, models["compact-teacher"].network, "compact-teacher", {"input_side": 96, "steps": 7})
    return path


def test_load_a_checkpoint(models: dict[str, Model], frame: Frame, checkpoint: Path) -> None:
    model = load(checkpoint)
    assert model.spec is get_spec("compact-teacher")
    assert model.record == {"model": "compact-teacher", "weights": "mine.safetensors", "input_side": 96, "steps": 7}
    assert model.device == best_device()
    assert model.dtype == torch.float32
    prompt = prompt_of(frame)
    expected = models["compact-teacher"].predict(frame.image, prompt=prompt, camera=frame.camera)
    found = load(str(checkpoint), device="cpu").predict(frame.image, prompt=prompt, camera=frame.camera)
    np.testing.assert_array_equal(found.depth, expected.depth)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_load_in_half_precision(frame: Frame, checkpoint: Path, dtype: Any) -> None:
    model = load(checkpoint, device="cpu", dtype=dtype)
    assert next(model.network.parameters()).dtype == torch.bfloat16
    prompt = prompt_of(frame)
    half = model.predict(frame.image, prompt=prompt, camera=frame.camera).depth
    full = load(checkpoint, device="cpu").predict(frame.image, prompt=prompt, camera=frame.camera).depth
    assert half.dtype == np.float32
    assert np.median(np.abs(half / full - 1)) < 0.01


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("gpu", None), ("cpu", "float99"), ("cpu", "int8"), ("cpu", "nn"), ("cpu", 32), (object(), None)],
)
def test_unavailable_device_or_dtype(checkpoint: Path, device: Any, dtype: Any) -> None:
    raises_one_line("is not available here", load, checkpoint, device=device, dtype=dtype)


def test_load_says_what_it_knows(tmp_path: Path) -> None:
    raises_one_line("neither a model name .*compact-teacher.* nor the path", load, "compact")
    for name in ("tiny.pt", tmp_path / "model.pth", "runs/model.bin"):
        raises_one_line("no such checkpoint", load, name)
    image = tmp_path / "photo.jpg"
    image.write_bytes(b"x")
    raises_one_line("photo.jpg: not a checkpoint", load, image)
    for nothing in (None, 7, b"model.safetensors", ["compact-teacher"]):
        raises_one_line("a model is a name or the path of a checkpoint, got", load, nothing)
    raises_one_line("no such checkpoint", load, tmp_path / "a.safetensors")
    for name, spec in COMPACT.items():
        if not spec.weights_path().is_file():
            raises_one_line(f"{name}: this version bundles no weights", load, name)


def test_config_replaces_stored_values(frame: Frame, checkpoint: Path) -> None:
    """The number of attention heads is in no tensor's shape; what is must fit."""
    stored, prompt = load(checkpoint, device="cpu"), prompt_of(frame)
    same = load(checkpoint, device="cpu", config={"encoder": {"heads": stored.network.config.encoder.heads}})
    other = load(checkpoint, device="cpu", config={"encoder": {"heads": 8}})
    assert other.network.config.encoder.heads == 8
    assert other.network.config.encoder.widths == stored.network.config.encoder.widths
    expected, unchanged, changed = (
        model.predict(frame.image, prompt=prompt, camera=frame.camera).depth for model in (stored, same, other)
    )
    np.testing.assert_array_equal(unchanged, expected)
    assert not np.array_equal(changed, expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"encoder": {"heads": 5}}, "mine.safetensors: encoder: heads must divide token_width 32, got 5"),
        ({"encoder": {"heads": "4"}}, "heads must divide"),
        ({"encoder": {"heads": 0}}, "heads must divide"),
        ({"encoder": {"colour": 1}}, "mine.safetensors: its configuration is not of a compact-teacher"),
        ({"num_heads": 4}, "mine.safetensors: its configuration is not of a compact-teacher"),
        ({"encoder": 5}, "mine.safetensors: config must be a dict .* got int"),
        ([4], "mine.safetensors: config must be a dict .* got list"),
        ({"encoder": {"token_width": 64}}, "do not fit compact-teacher: .* leave out or correct the given config"),
    ],
)
def test_bad_configs(checkpoint: Path, config: Any, message: str) -> None:
    raises_one_line(message, load, checkpoint, config=config)


@every_model
def test_bundled_weights_load(name: str) -> None:
    if not get_spec(name).weights_path().is_file():
        pytest.skip("this version bundles no weights for it")
    assert load(name, device="cpu").spec.name == name


# ---------------------------------------------------------------- the network's input size


@given(st.integers(1, 6000), st.integers(1, 6000), st.integers(32, 2048))
def test_network_size(height: int, width: int, side: int) -> None:
    h, w = network_size(height, width, side)
    assert h % 32 == w % 32 == 0
    assert min(h, w) >= 32
    assert (h - w) * (height - width) >= 0  # landscape stays landscape
    assert max(h, w) <= max(2 * side, 32)
    pixels = 0.75 * side**2
    assert h * w <= max(1.08 * pixels, 32 * 32)  # time and memory do not depend on the aspect
    if min(height, width) / max(height, width) >= 1 / 3 and side >= 320:
        assert h * w >= 0.75 * pixels
        assert abs(math.log(h / w * width / height)) < 0.15


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((480, 640), 640, (480, 640)),
        ((640, 480), 256, (256, 192)),
        ((375, 1242), 384, (192, 608)),  # a wide image keeps its detail
        ((720, 1280), 384, (256, 448)),
        ((5, 5), 96, (64, 64)),
        ((1, 900), 640, (32, 1280)),
    ],
)
def test_network_size_examples(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert network_size(*size, side) == expected


# ---------------------------------------------------------------- saving


@pytest.fixture(scope="module")
def prediction(models: dict[str, Model], frame: Frame) -> Prediction:
    out = models["compact-teacher"].predict(frame.image, prompt=prompt_of(frame), camera=frame.camera)
    mask = out.mask.copy()
    mask[:7] = False
    mask[20:40, 30:60] = True
    return Prediction(out.depth, out.points, mask, out.camera, out.camera_source, out.image, record=out.record)


@pytest.fixture(scope="module")
def saved(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "new" / "folder"
    written = prediction.save(folder, FORMATS)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in written)
    return folder


@pytest.mark.parametrize(
    ("file", "exact"), [("depth.npy", True), ("depth.exr", True), ("depth.pfm", True), ("depth.png", False)]
)
def test_saved_depth_reads_back(prediction: Prediction, saved: Path, file: str, exact: bool) -> None:
    depth = codecs.read_depth(saved / file)
    np.testing.assert_array_equal(np.isfinite(depth), prediction.mask)
    tolerance = 0 if exact else 0.5 / codecs.png16_scale(prediction.depth) + 1e-6
    np.testing.assert_allclose(depth[prediction.mask], prediction.depth[prediction.mask], rtol=0, atol=tolerance)


def test_saved_points(prediction: Prediction, saved: Path) -> None:
    vertices = PlyData.read(str(saved / "points.ply"))["vertex"]
    assert vertices.count == prediction.mask.sum()
    points, colours = codecs.read_ply(saved / "points.ply")
    np.testing.assert_array_equal(points, prediction.points[prediction.mask])
    np.testing.assert_array_equal(colours, prediction.image[prediction.mask])


def test_saved_mesh_picture_and_camera(prediction: Prediction, saved: Path) -> None:
    import trimesh

    mesh = trimesh.load(saved / "mesh.glb", force="mesh")
    assert 0 < len(mesh.vertices) <= prediction.mask.sum()
    assert (mesh.vertices[:, 2] < 0).all()  # glTF looks along -z
    assert codecs.read_image(saved / "depth_colour.png").shape == prediction.image.shape
    record = json.loads((saved / "camera.json").read_text())
    assert Camera.from_dict(record["camera"]) == prediction.camera
    assert record["camera_source"] == "given"
    assert record["prompt_points"] > 0
    assert record["network_size"] == [64, 96]
    assert record["warnings"] == []
    assert record["png16_dropped"] == 0


def test_save_writes_only_what_is_asked(prediction: Prediction, tmp_path: Path) -> None:
    assert [p.name for p in prediction.save(tmp_path / "a", ["npy", "npy"])] == ["depth.npy", "camera.json"]
    raises_one_line("output format 'tiff' is unknown; use png16", prediction.save, tmp_path / "b", ["npy", "tiff"])
    assert not (tmp_path / "b").exists()


def test_one_format_may_be_a_bare_name(prediction: Prediction, tmp_path: Path) -> None:
    assert [p.name for p in prediction.save(tmp_path, "ply")] == ["points.ply", "camera.json"]
    raises_one_line("output format 'bmp' is unknown", prediction.save, tmp_path, "bmp")


@pytest.mark.parametrize(
    ("far", "share", "scale", "dropped"),
    [
        (60000, 0.001, 1000, True),  # one leak of the mask into the sky
        (60, 0.5, 1000, False),
        (200, 0.001, 1000, True),
        (200, 0.5, 256, False),
        (60000, 0.5, 1, False),
        (np.inf, 0.5, 1000, False),  # unknown in this format, as it always was
    ],
)
def test_far_pixels_do_not_take_the_centimetres_from_a_png(
    tmp_path: Path, far: float, share: float, scale: float, dropped: bool
) -> None:
    depth = np.random.default_rng(0).uniform(0.2, 8, (60, 90)).astype(np.float32)
    count = max(1, int(share * depth.size))
    depth.reshape(-1)[:count] = far
    mask = np.ones_like(depth, dtype=bool)
    mask[-1] = False
    camera = Camera.from_fov(60, 90, 60)
    image = np.zeros((60, 90, 3), np.uint8)
    out = Prediction(depth, np.zeros((60, 90, 3), np.float32), mask, camera, "given", image)
    out.save(tmp_path, ["png16", "npy"])
    with Image.open(tmp_path / "depth.png") as png:
        assert float(png.info["depth_scale"]) == scale
    read = codecs.read_depth(tmp_path / "depth.png")
    near = mask & (depth < 10)
    np.testing.assert_allclose(read[near & (depth > 1 / scale)], depth[near & (depth > 1 / scale)], atol=0.5001 / scale)
    assert np.isnan(read.reshape(-1)[:count]).all() == (dropped or np.isinf(far))
    assert json.loads((tmp_path / "camera.json").read_text())["png16_dropped"] == (count if dropped else 0)
    np.testing.assert_array_equal(codecs.read_depth(tmp_path / "depth.npy"), np.where(mask, depth, np.nan))


def test_saving_nothing_but_unknown_pixels(prediction: Prediction, tmp_path: Path) -> None:
    nowhere = np.zeros_like(prediction.mask)
    empty = Prediction(prediction.depth, prediction.points, nowhere, prediction.camera, "given", prediction.image)
    empty.save(tmp_path, "png16")
    assert np.isnan(codecs.read_depth(tmp_path / "depth.png")).all()
    assert json.loads((tmp_path / "camera.json").read_text())["png16_dropped"] == 0


def true_prediction(frame: Frame) -> Prediction:
    """The frame's own depth as a prediction."""
    points = depth_to_points(frame.depth, frame.camera)
    return Prediction(frame.depth, points, frame.valid, frame.camera, "given", frame.image)


def test_saving_again_leaves_nothing_of_the_earlier_prediction(frame: Frame, tmp_path: Path) -> None:
    out = true_prediction(frame)
    (tmp_path / "notes.txt").write_text("mine")
    out.save(tmp_path, ["npy", "ply"])
    out.save(tmp_path, ["png16"])
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "depth.png", "camera.json"}


def test_a_folder_of_others_loses_nothing(frame: Frame, tmp_path: Path) -> None:
    out = true_prediction(frame)
    (tmp_path / "depth.npy").write_bytes(b"a measurement")
    out.save(tmp_path, ["png16"])  # no camera.json here: not ours
    assert (tmp_path / "depth.npy").read_bytes() == b"a measurement"


def test_a_camera_file_of_others_is_not_overwritten(frame: Frame, tmp_path: Path) -> None:
    (tmp_path / "camera.json").write_text('{"fx": 500, "fy": 500, "cx": 320, "cy": 240}')
    (tmp_path / "depth.npy").write_bytes(b"a measurement")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(InputError, match="give another folder"):
        true_prediction(frame).save(tmp_path, ["npy"])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
