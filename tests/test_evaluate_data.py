"""What is evaluated on: other projects' layouts, own prompts, and files that must not be run."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expectations import assert_refused
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from metricanything.core.camera import Camera
from metricanything.core.codecs import write_depth_log_png, write_depth_npy, write_depth_png16, write_image
from metricanything.core.frame import Frame
from metricanything.evaluation.datasets import open_data
from metricanything.evaluation.measuring import make_case
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.safe_npy import read_npy_dict

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
DEPTH = np.linspace(1, 3, 24, dtype=np.float32).reshape(4, 6)


def sample(**changes: Any) -> dict[str, Any]:
    gt, dep = DEPTH.copy(), np.zeros_like(DEPTH)
    gt[0, 0], dep[1, 2] = 0, DEPTH[1, 2]
    return {"rgb": IMAGE, "dep": dep, "gt": gt, "K": np.array([[5.0, 0, 2.5], [0, 6.0, 1.5], [0, 0, 1]]), **changes}


def saved(path: Path, value: Any) -> Path:
    np.save(path, value, allow_pickle=True)
    return path


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("where", ["value", "array"])
def test_code_in_a_npy_file_is_not_run(where: str, tmp_path: Path) -> None:
    bomb: Any = Bomb(tmp_path / "ran")
    path = saved(tmp_path / "a.npy", sample(K=np.array([bomb], dtype=object) if where == "array" else bomb))
    assert_refused(lambda: read_npy_dict(path), str(path), "not a numpy array and may be code", "np.save")
    assert not (tmp_path / "ran").exists()
    # The file is dangerous indeed: numpy's own reader runs it.
    np.load(path, allow_pickle=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_dictionaries_of_arrays_are_read_whatever_pickle_wrote_them(protocol: int, tmp_path: Path) -> None:
    array = np.empty((), dtype=object)
    array[()] = sample(K=np.float64(3), name="x", more=[1, (2.5, None)])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(array))
    header = buffer.getvalue()
    (tmp_path / "a.npy").write_bytes(header + pickle.dumps(array, protocol=protocol))
    value = read_npy_dict(tmp_path / "a.npy")
    np.testing.assert_array_equal(value["gt"], sample()["gt"])
    assert (value["K"], value["name"], value["more"]) == (3.0, "x", [1, (2.5, None)])


def test_other_npy_files_are_refused(tmp_path: Path) -> None:
    assert_refused(lambda: read_npy_dict(saved(tmp_path / "a.npy", DEPTH)), "no dictionary")
    assert_refused(lambda: read_npy_dict(saved(tmp_path / "b.npy", np.array([{}], dtype=object))), "no dictionary")
    (tmp_path / "c.npy").write_bytes(b"not numpy at all")
    assert_refused(lambda: read_npy_dict(tmp_path / "c.npy"), "c.npy", "damaged")
    whole = saved(tmp_path / "d.npy", sample()).read_bytes()
    (tmp_path / "d.npy").write_bytes(whole[:-60])
    assert_refused(lambda: read_npy_dict(tmp_path / "d.npy"), "d.npy", "damaged")
    assert_refused(lambda: read_npy_dict(tmp_path / "e.npy"), "cannot be read")


def test_omni_dc_samples(tmp_path: Path) -> None:
    saved(tmp_path / "000.npy", sample())
    saved(tmp_path / "001.npy", sample(K=np.array([5.0, 6.0, 2.5, 1.5]), gt=DEPTH[..., None]))
    saved(tmp_path / "002.npy", {"rgb": IMAGE})
    data = open_data(tmp_path)
    assert (data.format, data.names) == ("omni_dc", ("000", "001", "002"))
    item, prompt = data.load(0), data.load(0).prompt()
    np.testing.assert_array_equal(item.frame.image, IMAGE)
    assert np.isnan(item.frame.depth[0, 0])
    np.testing.assert_array_equal(item.frame.depth.ravel()[1:], DEPTH.ravel()[1:])
    assert prompt is not None
    assert np.argwhere(np.isfinite(prompt)).tolist() == [[1, 2]]
    for number in (0, 1):
        camera = data.load(number).frame.camera
        assert (camera.fx, camera.fy, camera.cx, camera.cy) == (5, 6, 3, 2)  # K counts pixel centres from 0
    assert_refused(lambda: data.load(2), "002.npy", "gt")


def test_marigold_dc_folders(tmp_path: Path) -> None:
    for folder in ("rgb", "sparse", "gt"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "rgb" / "a.png", IMAGE)
    np.save(tmp_path / "gt" / "a.npy", sample()["gt"])
    np.save(tmp_path / "sparse" / "a.npy", sample()["dep"])
    np.save(tmp_path / "gt" / "b.npy", DEPTH)
    write_image(tmp_path / "rgb" / "c.png", IMAGE)
    np.save(tmp_path / "gt" / "c.npy", DEPTH[:2])
    data = open_data(tmp_path)
    assert (data.format, data.names) == ("marigold_dc", ("a", "b", "c"))
    item, prompt = data.load(0), data.load(0).prompt()
    np.testing.assert_array_equal(item.frame.image, IMAGE)
    assert item.frame.valid.sum() == 23
    assert item.frame.notes["camera_source"] == "assumed"
    assert prompt is not None
    assert np.isfinite(prompt).sum() == 1
    assert_refused(lambda: data.load(1), "b: no image of this name")
    assert_refused(lambda: data.load(2), "c.npy", "give one size")
    saved(tmp_path / "gt" / "a.npy", sample())
    assert_refused(lambda: data.load(0), "not a plain .npy array")


@pytest.mark.parametrize("form", ["png", "npy", "coarse"])
def test_prompts_beside_frames(form: str, tmp_path: Path, make_frame: Callable[..., Frame]) -> None:
    frame = make_frame(0, 48, 64)
    write_image(tmp_path / "images" / "a.png", frame.image)
    write_depth_npy(tmp_path / "depth" / "a.npy", frame.depth)
    (tmp_path / "camera.json").write_text('{"fx": 60, "fy": 60, "cx": 32, "cy": 24}')
    data = open_data(tmp_path)
    assert data.load(0).prompt() is None
    sparse = np.full((12, 16) if form == "coarse" else (48, 64), np.nan, np.float32)
    sparse[5, 7] = 2.5
    (tmp_path / "prompts").mkdir()
    if form == "png":
        write_depth_png16(tmp_path / "prompts" / "a.png", sparse)
    else:
        write_depth_npy(tmp_path / "prompts" / "a.npy", sparse)
    prompt = data.load(0).prompt()
    assert prompt is not None
    row, column = (22, 30) if form == "coarse" else (5, 7)  # the image pixel that holds the centre of the coarse one
    assert np.argwhere(np.isfinite(prompt)).tolist() == [[row, column]]
    assert prompt[row, column] == 2.5


def test_names_are_recorded_by_hash(tmp_path: Path) -> None:
    saved(tmp_path / "000.npy", sample())
    first = open_data(tmp_path).record("test")
    saved(tmp_path / "001.npy", sample())
    second = open_data(tmp_path).record("test")
    assert (first["frames"], second["frames"], first["split"]) == (1, 2, "test")
    assert first["names_sha256"] != second["names_sha256"]


def test_moges_evaluation_sets_are_read_as_they_are(tmp_path: Path, make_frame: Callable[..., Frame]) -> None:
    """SCENE/{image.jpg, depth.png, segmentation.png, meta.json} of Ruicheng/monocular-geometry-evaluation."""
    frame = make_frame(1, 96, 128, camera=Camera.pinhole(100, 101, 60, 50, 128, 96))
    folder = tmp_path / "iBims-1" / "scene_01"
    write_image(folder / "image.jpg", frame.image)
    write_depth_log_png(folder / "depth.png", frame.depth)
    (folder / "meta.json").write_text(
        json.dumps({"intrinsics": [[100 / 128, 0, 60 / 128], [0, 101 / 96, 50 / 96], [0, 0, 1]]})
    )
    info = PngInfo()
    info.add_text("labels", json.dumps({"background": 0, "box": 1}))
    objects = (frame.depth == np.nanmin(frame.depth)).astype(np.uint8)
    Image.fromarray(objects).save(folder / "segmentation.png", pnginfo=info)
    data = open_data(tmp_path / "iBims-1")
    item = data.load(0)
    assert (data.format, data.names) == ("folder", ("scene_01",))
    assert item.frame.camera.params == pytest.approx((100, 101, 60, 50))
    np.testing.assert_allclose(item.frame.depth, frame.depth, rtol=1e-3)
    segments = item.segments()
    assert segments is not None and ((segments > 0) == objects).all()
    case = make_case(replace(PROTOCOLS["moge-ibims-points"], size=(48, 64)), item)
    assert (case.frame.height, case.frame.width) == (48, 64) and case.query.camera is None
    assert case.frame.camera.params[2:] == (32, 24) and case.segments is not None and case.segments.any()
