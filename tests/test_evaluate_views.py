"""How frames come to the view of a protocol, and what lies beside them: segments and mattes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_fixtures import run, small_teacher, write_folder
from expectations import assert_refused
from PIL import Image, PngImagePlugin

from metricanything.core.camera import Camera
from metricanything.core.codecs import write_image
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points
from metricanything.evaluation.beside import read_matte, read_segments
from metricanything.evaluation.datasets import Item, open_data
from metricanything.evaluation.measuring import make_case, measure
from metricanything.evaluation.points import local_points
from metricanything.evaluation.protocol import Protocol
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.subjects import Answer
from metricanything.evaluation.views import View, centred

MakeFrame = Callable[..., Frame]
OFF_CENTRE = Camera.pinhole(110, 112, 78, 40, 128, 96)


def quadrants(height: int, width: int) -> np.ndarray:
    row, column = np.mgrid[:height, :width]
    return (2 * (row >= height // 2) + (column >= width // 2) + 1).astype(np.int32)


# ---------------------------------------------------------------- MoGe's view


def test_the_centred_view_is_that_of_moges_evaluation(make_frame: MakeFrame) -> None:
    """Numbers of EvalDataLoaderPipeline of moge/test/dataloader.py (commit 0744441) on this frame."""
    frame = make_frame(1, 96, 128, camera=OFF_CENTRE)
    view = centred(View(frame, segments=quadrants(96, 128)), 60, 80)
    warped = view.frame
    assert warped.camera.params == pytest.approx((78.58134, 78.58134, 40, 30), rel=1e-6)
    assert np.isfinite(warped.depth).sum() == 4472
    assert np.isnan(warped.depth[0, 0])  # the sky has no depth
    for place, depth, colour in (
        ((20, 10), 5.789217, (82, 63, 70)),
        ((30, 40), 1.9577801, (140, 109, 119)),
        ((59, 79), 3.9488442, (98, 76, 83)),
        ((45, 60), 4.3568034, (95, 73, 81)),
    ):
        assert warped.depth[place] == pytest.approx(depth, rel=1e-6)
        assert np.abs(warped.image[place] - np.array(colour, float)).max() <= 1
    assert np.nanmean(warped.depth) == pytest.approx(4.68315, rel=1e-4)
    assert warped.image.mean() == pytest.approx(91.8668, abs=0.01)
    assert view.segments is not None
    assert view.segments[np.ix_([0, -1], [0, -1])].tolist() == [[1, 2], [3, 4]]


def test_points_stay_where_they_are_in_the_world(make_frame: MakeFrame) -> None:
    """Of a plane, every pixel of the view lies on it again, turned: depth is not that of the pixel it came from."""
    camera = replace(OFF_CENTRE)
    normal = np.array([0.1, 0.4, 1.0])
    rays = camera.rays().astype(float)
    depth = (3 / ((rays / rays[..., 2:]) @ normal)).astype(np.float32)
    frame = replace(make_frame(0, 96, 128, camera=camera), depth=depth)
    view = centred(View(frame), 96, 128).frame
    points = depth_to_points(view.depth, view.camera)[np.isfinite(view.depth)].astype(float)
    ahead = camera.unproject([[64, 48]])[0]  # becomes the z axis
    fit = np.linalg.lstsq(points, np.full(len(points), 3.0), rcond=None)[0]
    # The nearest pixel is up to half a pixel off, which is what the points are off the plane.
    assert np.abs(points @ fit / 3 - 1).max() < 0.02
    assert fit[2] == pytest.approx(normal @ ahead, rel=2e-3) and np.linalg.norm(fit) == pytest.approx(
        np.linalg.norm(normal), rel=2e-3
    )


def test_a_centred_camera_of_the_same_shape_changes_nothing(make_frame: MakeFrame) -> None:
    frame = make_frame(2, 48, 64, camera=Camera.centred(60, 64, 48))
    view = centred(View(frame), 48, 64).frame
    np.testing.assert_array_equal(view.image, frame.image)
    np.testing.assert_allclose(view.depth[frame.valid], frame.depth[frame.valid], rtol=1e-6)
    assert view.camera.params == pytest.approx(frame.camera.params)


def test_sparse_depth_is_not_lost_when_it_shrinks(make_frame: MakeFrame) -> None:
    depth = np.full((96, 128), np.nan, np.float32)
    depth[5::16, 5::16] = 4.0
    frame = replace(make_frame(0, 96, 128, camera=Camera.centred(100, 128, 96)), depth=depth)
    assert np.isfinite(centred(View(frame), 24, 32).frame.depth).sum() == np.isfinite(depth).sum()


def test_only_pinholes_are_centred(make_frame: MakeFrame) -> None:
    fisheye = Camera.kannala_brandt(50, 50, 32, 24, 64, 48, distortion=[0.1, 0, 0, 0])
    frame = make_frame(0, 48, 64, camera=fisheye)
    assert_refused(lambda: centred(View(frame), 48, 64), "kannala_brandt camera", "undistort it")
    fields: Any = {"task": "depth", "summary": "s", "source": "s", "dataset": "d", "metrics": ("mae",)}
    with pytest.raises(ValueError, match="needs a size"):
        Protocol("p", view="centred", **fields)


# ---------------------------------------------------------------- MoGe's metrics


def test_single_objects_are_measured_where_there_are_segments(make_frame: MakeFrame) -> None:
    protocol = replace(PROTOCOLS["moge-ibims-points"], size=(96, 128))
    case = make_case(protocol, Item(make_frame(1, 96, 128), segments=lambda: quadrants(96, 128) // 4 * 7))
    depth = np.where(np.isfinite(case.frame.depth), case.frame.depth * np.float32(1.2), np.float32(9))
    depth *= 1 + np.float32(0.05) * np.sin(np.arange(128, dtype=np.float32) / 9)
    points = depth_to_points(depth, case.frame.camera)
    row = measure(protocol, case, Answer(depth, points=points))
    truth = depth_to_points(np.where(case.counts, case.frame.depth, np.nan), case.frame.camera)
    assert case.segments is not None
    expected = local_points(points, truth, case.segments, case.counts)
    values = row["regions"]["all"]["values"]
    assert {name: values[name] for name in expected} == pytest.approx(expected) and values["local_points_rel"] > 0
    assert "not_measured" not in row


def test_without_segments_it_says_so(make_frame: MakeFrame) -> None:
    frame, protocol = make_frame(1, 48, 64), PROTOCOLS["moge-ibims-points"]
    protocol = replace(protocol, size=(48, 64), metrics=("points_metric_rel", "local_points_rel"))
    case = make_case(protocol, Item(frame))
    exact = depth_to_points(case.frame.depth, case.frame.camera)
    row = measure(protocol, case, Answer(case.frame.depth, points=exact))
    values = row["regions"]["all"]["values"]
    assert values == {"points_metric_rel": pytest.approx(0, abs=1e-6), "local_points_rel": None}
    assert row["not_measured"] == {"local_points_rel": "no segmentation map beside the image"}


@pytest.mark.parametrize("kind", ["scale", "affine", "disparity"])
def test_relative_depth_is_blind_to_what_it_should_be(kind: str, make_frame: MakeFrame) -> None:
    protocol = replace(PROTOCOLS["moge-sintel"], size=(48, 64))
    case = make_case(protocol, Item(make_frame(3, 48, 64, scale="up_to_scale")))
    truth = np.where(case.counts, case.frame.depth, np.float32(np.nan))
    pred = {"scale": 3 * truth, "affine": 3 * truth + 5, "disparity": 1 / (3 / truth + 0.2)}[kind].astype(np.float32)
    values = measure(protocol, case, Answer(pred))["regions"]["all"]["values"]
    blind = {"scale": ("depth_scale", "depth_affine", "disparity_affine"), "affine": ("depth_affine",),
             "disparity": ("disparity_affine",)}[kind]  # fmt: skip
    for name in ("depth_scale", "depth_affine", "disparity_affine"):
        assert (values[f"{name}_invariant_rel"] < 1e-3) == (name in blind), name
        assert values[f"{name}_invariant_delta1"] == 1 or name not in blind
    assert_refused(lambda: make_case(PROTOCOLS["moge-nyu"], Item(make_frame(3, scale="up_to_scale"))), "not metric")
    assert_refused(lambda: make_case(protocol, Item(make_frame(3, scale="affine"))), "not metric")


# ---------------------------------------------------------------- files beside images


def test_segments_are_read_with_moges_labels(make_frame: MakeFrame, tmp_path: Path) -> None:
    frame, file = make_frame(0, 4, 6), tmp_path / "segmentation.png"
    values = np.array([[0, 1, 2, 3, 4, 5]] * 4, np.uint8)
    assert read_segments(file, frame) is None
    Image.fromarray(values).save(file)
    assert read_segments(file, frame) is not None and (read_segments(file, frame) == values).all()
    info = PngImagePlugin.PngInfo()
    info.add_text("labels", json.dumps({"chair": 0, "sky": 1, "table": 3, "background": 4}))
    Image.fromarray(values).save(file, pnginfo=info)
    labelled = read_segments(file, frame)
    assert labelled is not None and labelled[0].tolist() == [1, 0, 0, 4, 0, 0]
    Image.fromarray(values[:2]).save(file)
    assert_refused(lambda: read_segments(file, frame), "segmentation.png", "size of the image")


def test_mattes_are_shares(make_frame: MakeFrame, tmp_path: Path) -> None:
    frame, file = make_frame(0, 4, 6), tmp_path / "alpha.png"
    values = np.array([[0, 51, 255, 0, 0, 0]] * 4, np.uint8)
    for stored in (values, np.stack([values] * 3, -1), values.astype(np.uint16) * 257):
        Image.fromarray(stored).save(file)
        matte = read_matte(file, frame)
        assert matte is not None and matte.dtype == np.float32
        np.testing.assert_allclose(matte[0, :3], [0, 0.2, 1], atol=1e-6)
    file.write_bytes(b"no picture")
    assert_refused(lambda: read_matte(file, frame), "alpha.png", "cannot be read")


def test_segments_and_mattes_beside_frames(make_frame: MakeFrame, tmp_path: Path) -> None:
    data = write_folder(tmp_path, [make_frame(0, 48, 64)])
    (item,) = [open_data(data).load(0)]
    assert item.segments() is None and item.matte() is None
    for folder in ("segmentations", "alpha"):
        write_image(data / folder / "0.png", np.repeat(quadrants(48, 64)[..., None], 3, -1).astype(np.uint8))
    segments, matte = open_data(data).load(0).segments(), open_data(data).load(0).matte()
    assert segments is not None and (segments == quadrants(48, 64)).all()
    assert matte is not None and matte.max() == pytest.approx(4 / 255)


@pytest.mark.parametrize(("images", "mattes"), [("images", "alpha"), ("original", "mask"), ("im", "gt")])
def test_recall_of_mattes_needs_no_depth(
    images: str, mattes: str, make_frame: MakeFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for i in range(2):
        frame = make_frame(i, 48, 64)
        write_image(data / images / f"{i}.png", frame.image)
        matte = np.where(np.isfinite(frame.depth) & (frame.depth < 2.2), 255, 0).astype(np.uint8)
        (data / mattes).mkdir(exist_ok=True)
        Image.fromarray(matte).save(data / mattes / f"{i}.png")
    teacher = small_teacher(tmp_path / "teacher.safetensors")
    arguments = ("evaluate", "--model", teacher, "--data", data, "-o", out, "--protocol")
    assert run(*arguments, "depthpro-am2k-recall") == 0, capsys.readouterr().err
    (result,) = json.loads((out / "results.json").read_text())["results"]
    assert result["record"]["data"]["format"] == "mattes" and 0 <= result["scores"]["all"]["boundary_recall"] <= 1
    # A protocol of depth has nothing to measure there.
    assert run(*arguments, "ma-image", "--fresh") == 2


def test_a_sharp_prediction_finds_the_outline_of_a_matte(make_frame: MakeFrame) -> None:
    frame, protocol = make_frame(2, 48, 64), PROTOCOLS["depthpro-am2k-recall"]
    matte = np.zeros((48, 64), np.float32)
    matte[10:30, 20:40] = 1
    blind = replace(frame, depth=np.full((48, 64), np.nan, np.float32))
    case = make_case(protocol, Item(blind, matte=lambda: matte))
    sharp = np.where(matte > 0, 2, 5).astype(np.float32)
    values = measure(protocol, case, Answer(sharp))["regions"]["all"]["values"]
    assert values == {"boundary_recall": pytest.approx(1)}
    flat = measure(protocol, case, Answer(np.full_like(sharp, 2)))["regions"]["all"]["values"]
    assert flat == {"boundary_recall": 0}
    row = measure(protocol, make_case(protocol, Item(blind)), Answer(sharp))
    assert row["not_measured"] == {"boundary_recall": "no matte beside the image"}
