"""The command line: quick to start, one clear line for every mistake, exit codes, nothing half-written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import source_fixtures
import torch
from PIL import Image

import metricanything
from metricanything import cli, samples
from metricanything.cli.console import one_line_warnings
from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.curate.shards import Shards
from metricanything.models.checkpoint import save_model
from metricanything.models.registry import COMPACT, MODELS

HELDOUT = samples.path("heldout")


def run(*arguments: object) -> int:
    """Exit code of the command line, in this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The only line on stderr."""
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of every model for small inputs; the teacher knows nothing of the image and follows its prompt."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    paths = {}
    for name, spec in COMPACT.items():
        network = spec.build()
        if name == "compact-teacher":
            torch.nn.init.ones_(network.anchor.raw_gain)
            torch.nn.init.zeros_(network.decoder.head[1].weight)
            network.decoder.head[1].bias.data = torch.tensor([0.0, 5.0, 0.0])  # every pixel is inside the mask
        paths[name] = folder / f"{name}.safetensors"
        save_model(paths[name], network, name, {"input_side": 96})
    return paths


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_help_and_import_load_nothing_heavy() -> None:
    heavy = ("torch", "scipy", "matplotlib", "rich", "tyro", "PIL")
    code = (
        "import sys, metricanything, metricanything.cli as c\n"
        "try: c.main(['--help'])\nexcept SystemExit as e: assert not e.code\n"
        f"loaded = [m for m in {heavy!r} if m in sys.modules]\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself_without_torch(verb: str) -> None:
    code = (
        "import sys, metricanything.cli as c\n"
        f"try: c.main([{verb!r}, '--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"metricanything {verb}" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"metricanything {metricanything.__version__}"


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predcit") == 2
    assert "no verb 'predcit'" in error_line(capsys)


def test_predict_writes_what_was_asked(photo: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    formats = ("png16", "npy", "exr", "pfm", "ply", "colour")
    model = checkpoints["compact-depthmap"]
    assert run("predict", photo, "-o", tmp_path / "out", "--model", model, "--fov-x", 60, "--format", *formats) == 0
    folder = tmp_path / "out" / "photo"
    names = {"depth.png", "depth.npy", "depth.exr", "depth.pfm", "points.ply", "depth_colour.png", "camera.json"}
    assert {p.name for p in folder.iterdir()} == names
    assert codecs.read_depth(folder / "depth.npy").shape == (60, 80)
    record = json.loads((folder / "camera.json").read_text())
    assert record["camera_source"] == "given"
    assert record["camera"]["params"][0] == pytest.approx(40 / np.tan(np.deg2rad(30)))


@pytest.mark.parametrize("suffix", [".npy", ".png", ".exr", ".pfm", ".csv", ".ply"])
def test_predict_reads_every_prompt_form(
    suffix: str, photo: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """A plane at 2.5 m given in any form comes out as a plane at 2.5 m, because the model follows its prompt."""
    prompt = tmp_path / f"prompt{suffix}"
    sparse = np.full((60, 80), np.nan, np.float32)
    sparse[::2, ::2] = 2.5
    camera = Camera.from_fov(60, 80, 60)
    uv = np.argwhere(np.isfinite(sparse))[:, ::-1] + 0.5
    if suffix == ".csv":
        np.savetxt(prompt, np.column_stack([uv, np.full(len(uv), 2.5)]), delimiter=",", header="u,v,depth")
    elif suffix == ".ply":
        rays = camera.unproject(uv)
        codecs.write_ply(prompt, (rays / rays[:, 2:] * 2.5).astype(np.float32))
    else:
        next(f for f in codecs.DEPTH_FORMATS.values() if f.suffix == suffix).write(prompt, sparse)
    code = run("predict", photo, "-o", tmp_path / "out", "--model", checkpoints["compact-teacher"], "--prompt", prompt,
               "--fov-x", 60, "--format", "npy", "pfm")  # fmt: skip
    assert code == 0
    written = codecs.read_depth(tmp_path / "out" / "photo" / "depth.npy")
    np.testing.assert_allclose(written, 2.5, rtol=1e-3)


def test_a_bad_image_is_skipped_and_the_exit_code_says_so(
    photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(photo.read_bytes())
    (folder / "torn.png").write_bytes(photo.read_bytes()[:900])
    (folder / "text.jpg").write_text("not an image")
    model = checkpoints["compact-depthmap"]
    assert run("predict", folder, "-o", tmp_path / "out", "--model", model, "--fov-x", 60) == 2
    output = capsys.readouterr()
    assert (tmp_path / "out" / "good" / "depth.png").exists()
    assert not (tmp_path / "out" / "torn").exists()
    assert "torn.png" in output.err
    assert "text.jpg" in output.err
    assert "1 of 3 images" in output.out


@pytest.mark.parametrize("form", ["below", "the same", "above"])
def test_outputs_in_and_around_the_input_folder_are_not_predicted_again(
    form: str, photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    (photos / "trip").mkdir(parents=True)
    photo.rename(photos / "trip" / "photo.png")
    output = {"below": photos / "out", "the same": photos, "above": tmp_path}[form]
    arguments = ("predict", photos, "-o", output, "--model", checkpoints["compact-depthmap"], "--fov-x", 60)
    for _ in range(2):
        assert run(*arguments) == 0
        assert "1 of 1 images" in capsys.readouterr().out.splitlines()[-1]
    assert (output / "trip" / "photo" / "depth_colour.png").exists()
    # As an interrupt leaves it: the record is what is written last.
    (output / "trip" / "photo" / "camera.json").unlink()
    assert run(*arguments) == 0
    assert "1 of 1 images" in capsys.readouterr().out.splitlines()[-1]


def test_a_folder_of_outputs_alone_is_refused_for_that_reason(
    photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoints["compact-depthmap"]
    assert run("predict", photo, "-o", tmp_path / "out", "--model", model, "--fov-x", 60) == 0
    capsys.readouterr()
    assert run("predict", tmp_path / "out", "-o", tmp_path / "again", "--model", model) == 2
    assert "all 2 images in this folder are depth maps that an earlier prediction wrote" in error_line(capsys)


@pytest.mark.parametrize("record", [None, "{}", "[", '{"fx": 1, "fy": 1, "cx": 1, "cy": 1}'])
def test_a_photograph_named_depth_is_no_output(
    record: str | None, photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the record of a prediction beside it makes it one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    photo.rename(photos / "depth.png")
    if record is not None:
        (photos / "camera.json").write_text(record)
    model = checkpoints["compact-depthmap"]
    assert run("predict", photos, "-o", tmp_path / "out", "--model", model, "--fov-x", 60) == 0
    assert "1 of 1 images" in capsys.readouterr().out


def test_an_image_named_twice_is_predicted_once(
    photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = checkpoints["compact-depthmap"]
    assert run("predict", photo, tmp_path, "-o", tmp_path / "out", "--model", model, "--fov-x", 60) == 0
    assert "1 of 1 images" in capsys.readouterr().out


def test_an_image_without_its_prompt_is_skipped(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "prompts").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "images" / f"{name}.png")
        if name != "b":
            np.save(tmp_path / "prompts" / f"{name}.npy", np.full((60, 80), 2.5, np.float32))
    arguments = ("predict", tmp_path / "images", "-o", tmp_path / "out", "--model", checkpoints["compact-teacher"],
                 "--fov-x", 60, "--prompt", tmp_path / "prompts")  # fmt: skip
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert "2 of 3 images" in captured.out
    assert len(captured.err.strip().splitlines()) == 1
    assert "holds no prompt for b.png" in captured.err
    assert [(tmp_path / "out" / name / "depth.png").exists() for name in "abc"] == [True, False, True]
    # The wrong folder altogether is said once, before anything is loaded.
    (tmp_path / "prompts").rename(tmp_path / "elsewhere")
    (tmp_path / "prompts").mkdir()
    assert run(*arguments) == 2
    assert "holds no prompt for a.png" in error_line(capsys)


def test_what_is_skipped_is_named_in_full(
    photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image whose prompt is at fault, and names that look like markup."""
    image = tmp_path / "[old] [red].png"
    photo.rename(image)
    (tmp_path / "prompt.csv").write_text("nothing\n")
    arguments = ("predict", image, "-o", tmp_path / "[out]", "--model", checkpoints["compact-teacher"])
    assert run(*arguments, "--prompt", tmp_path / "prompt.csv") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"skipped {image}: {tmp_path / 'prompt.csv'}: ")
    assert captured.out.strip().endswith("0 of 1 images written to " + str(tmp_path / "[out]"))


def test_an_output_below_a_file_is_refused_before_anything_is_computed(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("")
    assert run("predict", photo, "-o", tmp_path / "file.txt" / "out") == 2
    assert f"{tmp_path / 'file.txt'}: is a file, not a folder" in error_line(capsys)


BAD_PREDICTIONS = {
    "no images": ([], "no images given"),
    "missing file": (["nothing.jpg"], "no such file"),
    "empty folder": (["EMPTY"], "no images in this folder"),
    "unknown model": (["PHOTO", "--model", "gpt"], "neither a model name"),
    "missing checkpoint": (["PHOTO", "--model", "nothing.safetensors"], "no such checkpoint"),
    "garbage checkpoint": (["PHOTO", "--model", "GARBAGE"], "not a safetensors file"),
    "unknown format": (["PHOTO", "--format", "bmp"], "output format 'bmp' is unknown"),
    "missing prompt": (["PHOTO", "--prompt", "nothing.npy"], "no such prompt"),
    "two cameras": (["PHOTO", "--fov-x", "60", "--camera", "c.json"], "give one of them"),
    "bad batch": (["PHOTO", "--batch-size", "0"], "--batch-size"),
    "one prompt for many": (["PHOTO", "OTHER", "--prompt", "PHOTO"], "one prompt for 2 images"),
    "bad field of view": (["PHOTO", "OTHER", "--fov-x", "400"], "--fov-x must lie between 0 and 180 degrees, got 400"),
    "camera is no record": (["PHOTO", "OTHER", "--camera", "GARBAGE"], "garbage.safetensors: not valid JSON"),
    "camera is a folder": (["PHOTO", "OTHER", "--camera", "EMPTY"], "cannot be read"),
    "no format": (["PHOTO", "--format"], "--format names no output"),
    "prompt of no known form": (["PHOTO", "--prompt", "GARBAGE"], "prompts are .png .npy .npz .exr .pfm .csv .ply"),
    "bad device": (["PHOTO", "--device", "abacus", "--model", "MODEL"], "not available"),
}


@pytest.mark.parametrize("case", BAD_PREDICTIONS)
def test_predict_mistakes_get_one_line(
    case: str, photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD_PREDICTIONS[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "garbage.safetensors").write_bytes(b"\x00\x01garbage" * 9)
    (tmp_path / "other.png").write_bytes(photo.read_bytes())
    places = {
        "PHOTO": photo,
        "OTHER": tmp_path / "other.png",
        "EMPTY": tmp_path / "empty",
        "GARBAGE": tmp_path / "garbage.safetensors",
        "MODEL": checkpoints["compact-depthmap"],
    }
    assert run("predict", *(places.get(a, a) for a in arguments), "-o", tmp_path / "out") == 2
    assert expected in error_line(capsys)
    assert not (tmp_path / "out").exists()


def test_the_camera_of_a_prediction_serves_the_next(photo: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    arguments = ("predict", photo, "--model", checkpoints["compact-depthmap"], "--format", "npy")
    assert run(*arguments, "-o", tmp_path / "a", "--fov-x", 70) == 0
    assert run(*arguments, "-o", tmp_path / "b", "--camera", tmp_path / "a" / "photo" / "camera.json") == 0
    first, second = (json.loads((tmp_path / name / "photo" / "camera.json").read_text()) for name in "ab")
    assert second["camera"] == first["camera"]
    assert second["camera_source"] == "given"


def test_a_png_prompt_without_its_unit_names_the_options(
    photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((6, 8), 2500, np.uint16)).save(tmp_path / "tof.png")
    arguments = ("predict", photo, "-o", tmp_path / "o", "--model", checkpoints["compact-teacher"],
                 "--prompt", tmp_path / "tof.png", "--format", "npy")  # fmt: skip
    assert run(*arguments) == 2
    assert "--prompt-scale 1000, or --prompt-unit mm" in error_line(capsys)
    assert run(*arguments, "--prompt-unit", "mm") == 0
    depth = codecs.read_depth(tmp_path / "o" / "photo" / "depth.npy")
    np.testing.assert_allclose(depth, 2.5, rtol=1e-3)


def test_a_warning_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        one_line_warnings()
        for _ in range(2):
            warnings.warn("assumed", stacklevel=1)
            with warnings.catch_warnings():  # libraries do this, and Python then forgets what it has shown
                warnings.simplefilter("ignore")
    assert error_line(capsys) == "warning: assumed"


BAD_PROMPTS = {
    "millimetres": (np.full((60, 80), 2500.0, np.float32), "millimetres"),
    "empty": (np.full((60, 80), np.nan, np.float32), "no measurement"),
    "another aspect": (np.full((60, 60), 2.5, np.float32), "another aspect ratio"),
    "not a map": (np.ones((3, 4, 5), np.float32), "depth"),
}


@pytest.mark.parametrize("case", BAD_PROMPTS)
def test_bad_prompts_are_named(
    case: str, photo: Path, checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values, expected = BAD_PROMPTS[case]
    np.save(tmp_path / "prompt.npy", values)
    teacher = checkpoints["compact-teacher"]
    code = run("predict", photo, "-o", tmp_path / "o", "--prompt", tmp_path / "prompt.npy", "--model", teacher)
    assert code == 2
    message = capsys.readouterr().err
    assert expected in message
    assert len(message.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_full_disk_is_one_line_and_leaves_nothing(
    photo: Path, checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import errno
    import os

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code = run("predict", photo, "-o", tmp_path / "out", "--model", checkpoints["compact-depthmap"], "--fov-x", 60)
    assert code == 2
    assert "disk is full" in capsys.readouterr().err.strip().splitlines()[-1]
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_failures_of_ours_exit_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from metricanything.models import registry

    def broken() -> list[object]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(registry, "list_models", broken)
    assert run("models") == 1
    assert "internal error (RuntimeError: a bug)" in error_line(capsys)


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from metricanything.models import registry

    def interrupted() -> list[object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(registry, "list_models", interrupted)
    assert run("models") == 130
    assert "interrupted; the same command starts again" in error_line(capsys)


def test_models_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    output = capsys.readouterr().out
    assert all(name in output for name in MODELS)


def test_doctor_passes_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run("doctor")
    output = capsys.readouterr().out
    assert "every compact model runs" in output
    assert code == (2 if re.search(r"^problem", output, re.M) else 0)


def test_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(samples.SAMPLES, "nowhere", "folder")
    assert run("doctor") == 2
    assert "missing nowhere" in capsys.readouterr().out


def test_ingest_lists_formats_and_writes_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ingest") == 0
    assert "colmap" in capsys.readouterr().out
    assert run("ingest", "tum", samples.path("tum_desk"), "-o", tmp_path / "shards") == 0
    assert len(Shards(tmp_path / "shards")) == 2
    assert run("ingest", "tum", samples.path("tum_desk"), "-o", tmp_path / "shards") == 2
    assert "holds shards already" in capsys.readouterr().err


def test_ingest_lists_the_options_of_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    from metricanything.sources import READERS

    assert run("ingest") == 0
    printed = capsys.readouterr().out
    blocks = re.split(rf"^({'|'.join(READERS)})  ", printed, flags=re.M)[1:]
    texts = dict(zip(blocks[::2], blocks[1::2], strict=True))
    assert list(texts) == list(READERS)
    for name, reader in READERS.items():
        assert set(re.findall(r"--option (\w+)=", texts[name])) == set(reader.options())
    assert "--option min_track=…  a whole number; by default 3" in texts["colmap"]
    assert '--option camera=…  text; by default "02"' in texts["kitti_raw"]
    assert "--option depth_scale=…  a number; by default not set" in texts["folder"]


def test_ingest_preview_and_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    data = tmp_path / "data"
    source_fixtures.build_folder(data)
    picture = tmp_path / "first.png"
    assert run("ingest", "folder", data, "--preview", picture) == 0
    assert "first.png: 3 of 3 frames" in capsys.readouterr().out
    with Image.open(picture) as sheet:
        assert sheet.size == (1200, 3 * (18 + 300))  # three pictures of 400x300 and a line of text for each frame
        label, image = sheet.crop((0, 0, 1200, 18)), sheet.crop((0, 18, 400, 318)).convert("L")
        assert label.convert("L").getextrema()[0] < 50 and image.getextrema()[0] < 100
    assert run("ingest", "folder", data, "--limit", "2", "-o", tmp_path / "two", "--preview", picture) == 0
    assert len(Shards(tmp_path / "two")) == 2
    (data / "images/001.png").write_bytes(b"")
    capsys.readouterr()
    assert run("ingest", "folder", data, "--preview", picture) == 2
    assert "001.png" in capsys.readouterr().err
    for n in (0, 2):
        (data / f"images/00{n}.png").unlink()
    assert run("ingest", "folder", data, "--preview", tmp_path / "none.png") == 2
    assert not (tmp_path / "none.png").exists()


def test_ingest_says_what_a_folder_looks_like(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source_fixtures.build_tum(tmp_path / "data")
    for kind in ("kitti_object", "nonsense"):
        assert run("ingest", kind, tmp_path / "data", "-o", tmp_path / "out") == 2
        assert "the folder looks like tum" in capsys.readouterr().err
    assert run("ingest", "--list") == 0
    assert "kitti_object" in capsys.readouterr().out


def test_ingest_options_reach_the_reader(tmp_path: Path) -> None:
    size = ("--option", "width=32", "--option", "height=24")
    assert run("ingest", "procedural", "-o", tmp_path / "a", "--option", "count=2", "--option", "seed=3", *size) == 0
    shards = Shards(tmp_path / "a")
    assert [shards.frame(i).notes["seed"] for i in range(len(shards))] == [3, 3]
    assert shards.frame(0).width == 32

    source_fixtures.build_folder(tmp_path / "folder")
    (tmp_path / "folder" / "dataset.json").unlink()
    (tmp_path / "folder" / "camera.json").unlink()
    options = ("--option", "depth_scale=500", "--option", "fov_x=90")
    assert run("ingest", "folder", tmp_path / "folder", "-o", tmp_path / "b", *options) == 0
    frame = Shards(tmp_path / "b").frame(0)
    assert frame.depth[0, 0] == pytest.approx(2.0, rel=1e-3)
    assert frame.camera.fx == pytest.approx(frame.width / 2)


@pytest.mark.parametrize(
    ("text", "value"),
    [("model=0", "0"), ("model=null", None), ("model=a=b", "a=b"), ("min_track=2", 2), ("metric=true", True),
     ("metres_per_unit=2.5", 2.5), ("metres_per_unit=x", "x"), ("images=[1]", "[1]"), ("images=my images", "my images"),
     ("images=", ""), ("unknown=02", "02")],
)  # fmt: skip
def test_options_from_text(text: str, value: object) -> None:
    """JSON where the option takes it; a model named 0 and a camera named 02 stay text."""
    from metricanything.cli.ingest import _options, _parse
    from metricanything.sources import READERS

    name, parsed = _parse(text, _options(READERS["colmap"]))
    assert name == text.split("=")[0]
    assert (parsed, type(parsed)) == (value, type(value))


BAD_INGESTS = {
    "no key": (["tum", "DATA", "--option", "fr1"], "--option fr1: is not of the form KEY=VALUE"),
    "unknown option": (["tum", "DATA", "--option", "speed=1"], "no option speed; it has camera, max_gap"),
    "no number": (["tum", "DATA", "--option", "max_gap=wide"], "option max_gap must be a number, got 'wide'"),
    "no camera": (["tum", "DATA", "--option", "camera=fr9"], "camera 'fr9' is unknown; use one of fr1, fr2, fr3"),
    "not whole": (["procedural", "--option", "count=1.5"], "option count must be a whole number, got 1.5"),
    "no photos": (["procedural", "--option", "photos=absent"], "absent: no such folder; photos names a folder"),
    "not positive": (["folder", "DATA", "--option", "depth_scale=0"], "depth_scale must be a positive number"),
    "a file": (["tum", "FILE"], "is a file, not a folder; source tum reads a folder of data"),
    "no path": (["tum"], "needs the folder to read"),
    "path for a generator": (["procedural", "DATA"], "reads no files"),
    "swapped": (["DATA", "tum"], "is unknown; use one of folder, colmap, tum"),
}


@pytest.mark.parametrize("case", BAD_INGESTS)
def test_ingest_mistakes_get_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = BAD_INGESTS[case]
    (tmp_path / "file.txt").write_text("")
    places = {"DATA": samples.path("tum_desk"), "FILE": tmp_path / "file.txt"}
    assert run("ingest", *(places.get(a, a) for a in arguments), "-o", tmp_path / "s") == 2
    assert expected in error_line(capsys)
    assert not (tmp_path / "s").exists()


def test_ingest_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file.txt").write_text("")
    assert run("ingest", "tum", samples.path("tum_desk"), "-o", tmp_path / "file.txt") == 2
    assert "is a file, not a folder; give another --output" in error_line(capsys)


def test_ingest_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ingest", "tum", samples.path("tum_desk")) == 2
    assert "--output" in error_line(capsys)
    assert run("ingest", "nonsense", tmp_path, "-o", tmp_path / "s") == 2
    assert "unknown" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("ingest", "folder", tmp_path / "empty", "-o", tmp_path / "s") == 2
    assert "no frames found" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_ingest_reports_and_skips_bad_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    shutil.copytree(HELDOUT, tmp_path / "data")
    victim = next((tmp_path / "data").rglob("image.jpg"))
    victim.write_bytes(victim.read_bytes()[:2000])
    assert run("ingest", "folder", tmp_path / "data", "-o", tmp_path / "shards") == 2
    captured = capsys.readouterr()
    assert str(victim) in captured.err.replace("\n", "")
    assert len(Shards(tmp_path / "shards")) == len(list(HELDOUT.rglob("image.jpg"))) - 1


USAGE_MISTAKES = {
    "missing option": (["predict", "a.jpg"], "--output"),
    "unknown option": (["predict", "a.jpg", "-o", "x", "--nope"], "--nope"),
    "misspelt option": (["quickstart", "--sceens", "3"], "perhaps you meant --scenes"),
    "wrong type": (["predict", "a.jpg", "-o", "x", "--fov-x", "wide"], "--fov-x"),
    "wrong value": (["quickstart", "--scenes", "0"], "at least one scene"),
    "surplus argument": (["models", "all"], "all"),
}


@pytest.mark.parametrize("case", USAGE_MISTAKES)
def test_usage_mistakes_get_one_line_too(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = USAGE_MISTAKES[case]
    assert run(*arguments) == 2
    line = error_line(capsys)
    assert expected in line
    assert f"`metricanything {arguments[0]} --help`" in line
