"""What users hand in: images in every form, cameras by one rule, prompt files, and one clear line for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt
from metricanything.inference.inputs import check_prompt, find_camera, read_camera, read_image_input, read_prompt

HEIGHT, WIDTH = 30, 40
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
CAMERA = Camera.pinhole(50.0, 51.0, 19.0, 16.0, WIDTH, HEIGHT)


def raises_one_line(message: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises(InputError, match=message) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- images

FORMS: dict[str, Callable[[], Any]] = {
    "PIL": lambda: Image.fromarray(IMAGE),
    "PIL with alpha": lambda: Image.fromarray(np.dstack([IMAGE, IMAGE[..., 0]])),
    "uint8 array": lambda: IMAGE,
    "mirrored view": lambda: IMAGE[:, ::-1].copy()[:, ::-1],
    "column-major array": lambda: np.asfortranarray(IMAGE),
    "float array": lambda: IMAGE / 255,
    "float32 array": lambda: (IMAGE / 255).astype(np.float32),
    "channels-first array": lambda: IMAGE.transpose(2, 0, 1),
    "uint8 tensor": lambda: torch.from_numpy(IMAGE).permute(2, 0, 1),
    "float tensor": lambda: torch.from_numpy(IMAGE).permute(2, 0, 1) / 255,
    "tensor with a gradient": lambda: (torch.from_numpy(IMAGE).permute(2, 0, 1) / 255).requires_grad_(),
    "channels-last tensor": lambda: torch.from_numpy(IMAGE),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_an_image_is_the_same(form: str) -> None:
    array, path = read_image_input(FORMS[form]())
    assert path is None
    assert array.dtype == np.uint8
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, IMAGE)


@pytest.mark.parametrize("as_text", [True, False])
def test_path(tmp_path: Path, as_text: bool) -> None:
    codecs.write_image(tmp_path / "a.png", IMAGE)
    array, path = read_image_input(str(tmp_path / "a.png") if as_text else tmp_path / "a.png")
    assert path == tmp_path / "a.png"
    np.testing.assert_array_equal(array, IMAGE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_tensors_of_any_width(dtype: torch.dtype) -> None:
    array, _ = read_image_input((torch.from_numpy(IMAGE).permute(2, 0, 1) / 255).to(dtype))
    assert np.abs(array.astype(int) - IMAGE).max() <= (1 if dtype == torch.bfloat16 else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_rotated_photos_are_upright_in_either_form(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(IMAGE).save(tmp_path / "a.png", exif=exif)
    by_path, _ = read_image_input(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        by_pil, _ = read_image_input(image)
    np.testing.assert_array_equal(by_pil, by_path)
    assert by_path.shape[:2] == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE[..., 0], r"photo: an image must be \(H, W, 3\) .* got shape \(30, 40\)"),
        (IMAGE[None], "got shape"),
        (np.zeros((0, 4, 3), np.uint8), "got shape"),
        (np.zeros((4, 4, 4), np.uint8), "got shape"),
        (IMAGE.astype(np.int32), "must be uint8 or float in 0..1, got int32"),
        (IMAGE > 5, "got bool"),
        (IMAGE.astype(np.float32), r"must lie in 0\.\.1; divide by 255"),
        (IMAGE / 255 - 0.1, r"must lie in 0\.\.1"),
        (np.full((4, 4, 3), np.nan), r"must lie in 0\.\.1"),
        (torch.zeros(1, 3, 4, 4), "got shape"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "got int64"),
        (None, "got shape"),
        (7, "got shape"),
        ({"image": 1}, "got shape"),
        (np.array([["a"]]), "got shape"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), "mode I;16 has no 8-bit colours"),
        (Image.fromarray(np.zeros((4, 4), np.float32)), "mode F has no 8-bit colours"),
    ],
)
def test_bad_images(image: Any, message: str) -> None:
    raises_one_line(message, read_image_input, image, "photo")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_photo(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    codecs.write_image(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in raises_one_line("not a readable image", read_image_input, path)
    with Image.open(path) as lazy:  # Pillow finds out only when it decodes
        raises_one_line("photo: not a readable image", read_image_input, lazy, "photo")


@pytest.mark.parametrize("name", ["missing.png", ".", "text.png", "empty.jpg"])
def test_bad_paths(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    assert str(tmp_path) in raises_one_line(".", read_image_input, tmp_path / name)


# ---------------------------------------------------------------- cameras


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo whose EXIF states a focal length of 28 mm (of 35 mm film)."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 28
    Image.fromarray(IMAGE).save(tmp_path / "photo.jpg", exif=exif)
    return tmp_path / "photo.jpg"


def sidecar(photo: Path, content: Any) -> None:
    photo.with_suffix(".json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_camera_priority(photo: Path, tmp_path: Path) -> None:
    """given > sidecar > EXIF > nothing, which leaves it to the model."""
    sidecar(photo, {"cam_in": [45.0, 46.0, 20.5, 14.5]})
    assert find_camera(CAMERA, photo, HEIGHT, WIDTH) == (CAMERA, "given")
    expected = Camera.pinhole(45, 46, 20.5, 14.5, WIDTH, HEIGHT)
    assert find_camera(None, photo, HEIGHT, WIDTH) == (expected, "sidecar")
    photo.with_suffix(".json").unlink()
    camera, source = find_camera(None, photo, HEIGHT, WIDTH)
    assert source == "exif"
    assert camera.fx == camera.fy == pytest.approx(28 * 50 / np.hypot(36, 24))  # the diagonal has 50 pixels
    assert (camera.cx, camera.cy) == (20, 15)
    plain = tmp_path / "plain.png"
    codecs.write_image(plain, IMAGE)
    assert find_camera(None, plain, HEIGHT, WIDTH) == (None, None)
    assert find_camera(None, None, HEIGHT, WIDTH) == (None, None)


@pytest.mark.parametrize("content", [{"title": "holiday"}, [1, 2], {"cam_in": [None] * 4}])
def test_sidecars_that_state_no_camera_are_passed_over(photo: Path, content: Any) -> None:
    """Other tools write STEM.json too."""
    sidecar(photo, content)
    assert find_camera(None, photo, HEIGHT, WIDTH)[1] == "exif"


def test_sidecar_of_another_resolution_is_scaled(photo: Path) -> None:
    sidecar(photo, {"cam_in": [90.0, 92.0, 41.0, 29.0], "width": 80, "height": 60})
    camera, _ = find_camera(None, photo, HEIGHT, WIDTH)
    assert camera == Camera.pinhole(45, 46, 20.5, 14.5, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        {"cam_in": [1, 2, 3]},
        {"cam_in": None},
        {"cam_in": ["a", 1, 1, 1]},
        {"cam_in": [-5, 5, 1, 1]},
        {"cam_in": [9, 9, 1, 1], "width": 50, "height": 10},
    ],
)
def test_bad_sidecars(photo: Path, content: Any) -> None:
    sidecar(photo, content)
    assert "photo.json" in raises_one_line(".", find_camera, None, photo, HEIGHT, WIDTH)


def test_camera_of_another_size_must_state_it(tmp_path: Path) -> None:
    """A camera for 640x480 beside a photo of 1920x1440: far too wide a view, were it taken as it is."""
    photo, record = tmp_path / "photo.png", {"cam_in": [517, 517, 318, 255]}
    codecs.write_image(photo, IMAGE)
    sidecar(photo, record)
    remedy = "photo.json: principal point .* is far from the centre of the 1920x1440 image; add width and height"
    raises_one_line(remedy, find_camera, None, photo, 1440, 1920)
    raises_one_line(remedy, read_camera, photo.with_suffix(".json"), 1440, 1920)
    sidecar(photo, {"fx": 517, "fy": 517, "cx": 318, "cy": 255})
    raises_one_line(remedy, read_camera, photo.with_suffix(".json"), 1440, 1920)
    sidecar(photo, {**record, "width": 640})
    raises_one_line(remedy, find_camera, None, photo, 1440, 1920)
    sidecar(photo, {**record, "width": 640, "height": 480})
    camera, _ = find_camera(None, photo, 1440, 1920)
    np.testing.assert_allclose(camera.params, (1551, 1551, 954, 765))
    sidecar(photo, record)
    assert find_camera(None, photo, 480, 640)[0] == Camera.pinhole(517, 517, 318, 255, 640, 480)
    sidecar(photo, {**record, "width": 320, "height": 480})  # a crop, stated as such
    assert find_camera(None, photo, 480, 320)[0].cx == 318


def test_given_camera_must_fit(photo: Path) -> None:
    other = CAMERA.resize(80, 60)
    message = raises_one_line(r"camera\.resize\(40, 30\)", find_camera, other, photo, HEIGHT, WIDTH)
    assert "80x60" in message
    assert str(photo) in message
    raises_one_line("must be a Camera, got tuple", find_camera, (1, 1, 1, 1), None, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "record",
    [
        CAMERA.to_dict(),
        CAMERA.resize(80, 60).to_dict(),
        {"fx": 50, "fy": 51, "cx": 19, "cy": 16},
        {"cam_in": [50, 51, 19, 16]},
        {"cam_in": [50, 51, 18.5, 15.5], "pixel_centre": 0},
    ],
)
def test_camera_files(tmp_path: Path, record: dict[str, Any]) -> None:
    (tmp_path / "camera.json").write_text(json.dumps(record))
    camera = read_camera(tmp_path / "camera.json", HEIGHT, WIDTH)
    assert (camera.model, camera.width, camera.height) == ("pinhole", WIDTH, HEIGHT)
    np.testing.assert_allclose(camera.params, CAMERA.params)


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"model": "x"}', '{"fx": 5}', '{"cam_in": [1, 2]}'])
def test_bad_camera_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "camera.json").write_text(content)
    assert "camera.json" in raises_one_line(".", read_camera, tmp_path / "camera.json", HEIGHT, WIDTH)


def test_missing_camera_file(tmp_path: Path) -> None:
    raises_one_line("no such file", read_camera, tmp_path / "camera.json", HEIGHT, WIDTH)


# ---------------------------------------------------------------- prompt files

DEPTH = np.full((HEIGHT, WIDTH), np.nan, dtype=np.float32)
DEPTH[3, 5], DEPTH[20, 30], DEPTH[29, 39] = 1.5, 2.25, 7.125


def assert_is_depth(prompt: SparsePrompt) -> None:
    np.testing.assert_allclose(prompt.rasterise(HEIGHT, WIDTH), DEPTH, rtol=1e-5)


@pytest.mark.parametrize("name", list(codecs.DEPTH_FORMATS))
def test_depth_maps_as_prompts(tmp_path: Path, name: str) -> None:
    entry = codecs.DEPTH_FORMATS[name]
    path = tmp_path / f"prompt{entry.suffix}"
    entry.write(path, DEPTH)
    prompt = read_prompt(path, (HEIGHT, WIDTH))
    np.testing.assert_allclose(prompt.rasterise(HEIGHT, WIDTH), DEPTH, rtol=1e-3)


def test_png_without_a_unit_needs_the_scale(tmp_path: Path) -> None:
    path = tmp_path / "prompt.png"
    Image.fromarray(np.nan_to_num(DEPTH * 1000).astype(np.uint16)).save(path)
    assert str(path) in raises_one_line("give the scale", read_prompt, path, (HEIGHT, WIDTH))
    assert_is_depth(read_prompt(path, (HEIGHT, WIDTH), scale=1000))
    assert_is_depth(read_prompt(path, (HEIGHT, WIDTH), unit="mm"))


@pytest.mark.parametrize("name", ["a.png", "log.png", "a.npy", "a.exr", "a.csv", "a.ply"])
@pytest.mark.parametrize("unit", ["m", "cm", "mm"])
def test_unit_of_a_prompt(tmp_path: Path, name: str, unit: str) -> None:
    """The remedy that the refusal of raw units names, for every kind of file."""
    path, factor = tmp_path / name, {"m": 1, "cm": 100, "mm": 1000}[unit]
    values = DEPTH * np.float32(factor)
    if name.endswith(".csv"):
        rows, columns = np.nonzero(np.isfinite(DEPTH))
        np.savetxt(path, np.stack([columns + 0.5, rows + 0.5, values[rows, columns]], axis=-1), delimiter=",")
    elif name.endswith(".ply"):
        rows, columns = np.nonzero(np.isfinite(DEPTH))
        rays = CAMERA.unproject(np.stack([columns, rows], axis=-1) + 0.5)
        codecs.write_ply(path, rays / rays[:, 2:] * values[rows, columns, None])
    elif name == "log.png":
        codecs.write_depth_log_png(path, DEPTH)
        message = "in metres; leave the scale or unit out"
        assert str(path) in raises_one_line(message, read_prompt, path, (HEIGHT, WIDTH), unit=unit)
        return
    elif name == "a.png":
        Image.fromarray(np.nan_to_num(values.round()).astype(np.uint16)).save(path)
    else:
        next(f for f in codecs.DEPTH_FORMATS.values() if f.suffix == path.suffix).write(path, values)
    prompt = read_prompt(path, (HEIGHT, WIDTH), CAMERA, unit=unit)
    rounding = 0.5 / factor if name == "a.png" else 0
    np.testing.assert_allclose(prompt.rasterise(HEIGHT, WIDTH), DEPTH, rtol=1e-5, atol=rounding)
    assert str(path) in raises_one_line("give one of them", read_prompt, path, (HEIGHT, WIDTH), CAMERA, unit=unit,
                                        scale=1000)  # fmt: skip


@pytest.mark.parametrize("metres", [30, 300])
def test_what_is_in_metres_by_statement_is_not_doubted(tmp_path: Path, metres: float) -> None:
    """A runway, or whole metres: refused as raw values of a sensor unless the file or the user says otherwise."""
    far = np.full((HEIGHT, WIDTH), metres, np.float32)
    codecs.write_depth_png16(tmp_path / "a.png", far)
    codecs.write_depth_log_png(tmp_path / "b.png", far)
    codecs.write_depth_npy(tmp_path / "c.npy", far * 256)
    codecs.write_depth_npy(tmp_path / "d.npy", far)
    assert read_prompt(tmp_path / "a.png", (HEIGHT, WIDTH)).depth == pytest.approx(metres)
    assert read_prompt(tmp_path / "b.png", (HEIGHT, WIDTH)).depth == pytest.approx(metres)
    assert read_prompt(tmp_path / "c.npy", (HEIGHT, WIDTH), scale=256).depth == pytest.approx(metres)
    assert read_prompt(tmp_path / "d.npy", (HEIGHT, WIDTH), unit="m").depth == pytest.approx(metres)
    raises_one_line("do not look like metres.*--prompt-unit", read_prompt, tmp_path / "d.npy", (HEIGHT, WIDTH))


def test_scale_and_unit_of_a_prompt_are_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,1,1\n")
    codecs.write_depth_npy(tmp_path / "a.npy", DEPTH)
    raises_one_line("a.csv: .*state the unit", read_prompt, tmp_path / "a.csv", (HEIGHT, WIDTH), scale=1000)
    for name in ("a.csv", "a.npy"):
        raises_one_line(f"{name}: .*'inch' is unknown", read_prompt, tmp_path / name, (HEIGHT, WIDTH), unit="inch")


@pytest.mark.parametrize(
    "text",
    [
        "# u, v, depth\n5.5, 3.5, 1.5\n30.5,20.5,2.25\n39.5,29.5,7.125\n",
        "u,v,depth\n5.5,3.5,1.5\n30.5,20.5,2.25\n39.5,29.5,7.125\n",
        "\ufeffU, V, Depth\r\n5.5,3.5,1.5\r\n30.5,20.5,2.25\r\n39.5,29.5,7.125\r\n",
        ",depth,u,v\n0,1.5,5.5,3.5\n1,2.25,30.5,20.5\n2,7.125,39.5,29.5\n",
        "\n# points\n5.5,3.5,1.5 # near\n\n30.5,20.5,2.25\n39.5,29.5,7.125",
    ],
    ids=["numpy", "pandas", "spreadsheet", "pandas with its index", "comments"],
)
def test_csv_prompt(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prompt.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert_is_depth(read_prompt(path, (HEIGHT, WIDTH)))


def test_ply_prompt(tmp_path: Path) -> None:
    rows, columns = np.nonzero(np.isfinite(DEPTH))
    rays = CAMERA.unproject(np.stack([columns, rows], axis=-1) + 0.5)
    points = rays / rays[:, 2:] * DEPTH[rows, columns, None]
    path = tmp_path / "prompt.ply"
    codecs.write_ply(path, points)
    assert_is_depth(read_prompt(path, (HEIGHT, WIDTH), CAMERA))
    assert str(path) in raises_one_line("needs the camera", read_prompt, path, (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "1,2\n", "has 2 columns; write lines of u,v,depth"),
        ("a.csv", "x,y,z\n1,1,1\n", "cannot be read as numbers"),
        ("a.csv", "u,v,depth\n1,1,one\n", "cannot be read as numbers"),
        ("a.csv", "u,v,z,depth\n1,1,1\n", "cannot be read as numbers"),
        ("a.csv", "1,1,1\n1,1,1,1\n", "cannot be read as numbers"),
        ("a.csv", "1,1,1\n1,1\n", "cannot be read as numbers"),
        ("a.csv", "\xff\xfe", "cannot be read as text"),
        ("a.csv", "", "holds no points; write lines of u,v,depth"),
        ("a.csv", "u,v,depth\n", "holds no points"),
        ("a.csv", "# nothing\n\n", "holds no points"),
        ("a.csv", "50,10,2\n", "1 of 1 points lie outside the 40x30 image"),
        ("a.csv", "5,10,nan\n", "no point has a measurement"),
        ("a.csv", "5,10,2000\n6,10,3000\n", "do not look like metres"),
        ("a.npy", "x", "numpy file"),
        ("a.ply", "ply\n", "PLY file"),
        ("a.txt", "1,1,1\n", r"\.png, \.npy"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="latin-1")
    assert str(path) in raises_one_line(message, read_prompt, path, (HEIGHT, WIDTH), CAMERA)


@pytest.mark.parametrize("name", ["a.csv", "a.npy", "a.ply", "a.png", "a.exr", "a.pfm"])
def test_missing_prompt_file(tmp_path: Path, name: str) -> None:
    assert str(tmp_path / name) in raises_one_line(".", read_prompt, tmp_path / name, (HEIGHT, WIDTH), CAMERA)


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("size", [(30, 40), (15, 20), (3, 4), (120, 160), (7, 10), (61, 81)])
def test_prompts_of_any_resolution_of_the_view(size: tuple[int, int]) -> None:
    check_prompt(SparsePrompt.from_depth(np.ones(size, np.float32)), HEIGHT, WIDTH, "photo")


def prompt_at(uv: list[list[float]], height: int = HEIGHT, width: int = WIDTH) -> SparsePrompt:
    return SparsePrompt(np.array(uv, np.float32).reshape(-1, 2), np.ones(len(uv), np.float32), height, width)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (prompt_at([]), "photo: the prompt is empty; pass prompt=None"),
        (prompt_at([[1, 1]], 40, 30), "photo: the prompt's grid is 30x40 but the image has 40x30"),
        (prompt_at([[1, 1]], 20, 20), "another aspect ratio"),
        (prompt_at([[1, 1], [41, 5]]), "1 of 2 prompt points lie outside"),
        (prompt_at([[np.nan, 1]]), "1 of 1 prompt points lie outside"),
        (np.ones((HEIGHT, WIDTH)), r"must be a SparsePrompt, got ndarray; make one with SparsePrompt\.from_depth"),
        ("prompt.png", "must be a SparsePrompt, got str"),
    ],
    ids=["empty", "turned", "square", "outside", "nan", "array", "path"],
)
def test_bad_prompts(prompt: Any, message: str) -> None:
    raises_one_line(message, check_prompt, prompt, HEIGHT, WIDTH, "photo")


@pytest.mark.parametrize("form", ["cam_in", "fx", "model"])
def test_sidecars_of_every_form(form: str, tmp_path: Path) -> None:
    camera = Camera.opencv(90, 91, 41, 29, 80, 60, distortion=[0.1, 0, 0, 0]) if form == "model" else None
    records = {
        "cam_in": {"cam_in": [90, 91, 41, 29]},
        "fx": {"fx": 90, "fy": 91, "cx": 41, "cy": 29, "note": "calibrated in May"},
        "model": camera.to_dict() if camera else {},
    }
    (tmp_path / "a.json").write_text(json.dumps(records[form]))
    found, source = find_camera(None, tmp_path / "a.jpg", 60, 80)
    assert source == "sidecar"
    assert found == (camera or Camera.pinhole(90, 91, 41, 29, 80, 60))
