"""Evaluation: protocols are whole, and numbers are those of a pencil."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from expectations import assert_refused

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.evaluation.datasets import Item
from metricanything.evaluation.measuring import make_case, measure
from metricanything.evaluation.protocol import EIGEN, GARG, KITTI_BENCHMARK, NYU, Crop, Protocol
from metricanything.evaluation.protocols import GROUPS, PROTOCOLS, find
from metricanything.evaluation.scores import ALIGNMENTS, SCORES, Sample, Score, pool, register
from metricanything.evaluation.subjects import Answer
from metricanything.evaluation.summary import average
from metricanything.patterns import get_pattern

FIELDS: Any = {"task": "depth", "summary": "s", "source": "s", "dataset": "d"}
MakeFrame = Callable[..., Frame]


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_protocol_is_whole(protocol: Protocol) -> None:
    record = json.loads(json.dumps(protocol.record(), allow_nan=False))
    fields = "source dataset summary crop depth_range prediction_resize alignment averaging mask missing_prediction"
    for field in (fields + " excluded_pixels intrinsics prompt seed prompt_seed").split():
        assert record[field] not in (None, "", [], {}), field
    assert ("unprompted" in record["excluded_pixels"]) == protocol.prompted
    assert protocol.unknown or protocol.source.startswith("metricanything")
    assert protocol.metrics and set(protocol.metrics) <= set(SCORES)
    assert not set(protocol.not_measured) & set(SCORES), "measured by now: list it under metrics"
    assert protocol.alignment in ALIGNMENTS
    assert 0 < protocol.depth_range[0] < protocol.depth_range[1]
    for pattern in set(protocol.prompt) - {"given", "none"}:
        get_pattern(pattern)
    if protocol.averaging == "pooled":
        assert all(SCORES[name].poolable for name in protocol.metrics)


def test_every_group_and_source_is_there() -> None:
    assert {p.name for p in find(list(GROUPS))} == set(PROTOCOLS)
    wanted = {"priorda-x8": "downscale-8", "priorda-x16": "downscale-16", "priorda-extreme": "uniform-100",
              "omnidc-virtual-0.03": "matched-100", "omnidc-virtual-noise-10": "matched-2150+outliers-10",
              "marigold-scannet": "uniform-500",
              "promptda-arkitscenes": "given", "radar-nuscenes-70": "given"}  # fmt: skip
    assert {name: PROTOCOLS[name].prompt[0] for name in wanted} == wanted
    ranges = {name: PROTOCOLS[f"depthpro-{name}"].depth_range for name in ("eth3d", "sintel", "nuscenes", "sunrgbd")}
    assert ranges == {"eth3d": (0.1, 200), "sintel": (0.01, 80), "nuscenes": (0.001, 80), "sunrgbd": (0.001, 10)}
    assert [PROTOCOLS[f"kitti-eigen-garg-{n}"].crop for n in (697, 652)] == [GARG, GARG]
    sets = {p.name.split("-")[1] for p in PROTOCOLS.values() if p.name.startswith("moge-") and p.view == "centred"}
    assert sets == {"nyu", "kitti", "eth3d", "ibims", "gso", "sintel", "ddad", "diode", "spring", "hammer"}
    assert {n for n in sets if not PROTOCOLS[f"moge-{n}"].metric_truth} == {"gso", "sintel", "spring"}
    assert PROTOCOLS["moge-kitti-oracle"].intrinsics and not PROTOCOLS["moge-kitti"].intrinsics
    assert find(["classic", "nyu-eigen-654"]) == find(["classic"])
    assert_refused(lambda: find(["kitty"]), "protocol 'kitty' is unknown", "--list")


@pytest.mark.parametrize(
    ("crop", "size", "box"),
    [
        (GARG, (375, 1242), (153, 371, 44, 1197)),  # the numbers in every script since
        (EIGEN, (375, 1242), (124, 342, 44, 1197)),
        (NYU, (480, 640), (45, 471, 41, 601)),
        (KITTI_BENCHMARK, (375, 1242), (23, 375, 13, 1229)),
        (KITTI_BENCHMARK, (300, 1000), (0, 300, 0, 1000)),
        (Crop("none"), (3, 5), (0, 3, 0, 5)),
    ],
)
def test_crops_by_hand(crop: Crop, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert crop.box(*size) == box
    assert crop.mask(*size).sum() == (box[1] - box[0]) * (box[3] - box[2])
    assert not crop.mask(*size)[: box[0]].any()


def test_a_crop_outside_the_image_is_refused() -> None:
    assert_refused(lambda: NYU.box(40, 40), "crop nyu leaves nothing of an image of 40x40 pixels")


def test_what_counts_by_hand() -> None:
    nan, inf = np.nan, np.inf
    depth = np.array([[0.5, 1.0, 2.0, 80.0], [81.0, nan, inf, 3.0]], np.float32)
    capped = Protocol("p", metrics=("mae",), depth_range=(1.0, 80.0), **FIELDS)
    assert capped.counts(depth).tolist() == [[False, True, True, True], [False, False, False, True]]
    cropped = Protocol("p", metrics=("mae",), crop=Crop("left", "pixels", (0, 2), (0, 2)), **FIELDS)
    assert cropped.counts(depth).tolist() == [[True, True, False, False], [True, False, False, False]]
    far = Protocol("p", metrics=("mae",), far_outliers=100.0, **FIELDS)
    assert far.counts(np.array([[1.0, 1.0, 90.0, 2000.0]], np.float32)).tolist() == [[True, True, True, False]]


def test_seeds_depend_on_protocol_and_frame_alone() -> None:
    a, b = PROTOCOLS["ma-uniform-500"], PROTOCOLS["ma-uniform-100"]
    assert a.frame_seed("x") == a.frame_seed("x")
    assert len({a.frame_seed("x"), a.frame_seed("y"), b.frame_seed("x")}) == 3
    assert 0 <= a.frame_seed("x") < 2**63
    assert a.frame_seed("scene/000123") == 444412469717313396  # a change here changes every published number


# ---------------------------------------------------------------- numbers


def flat(name: str, depth: list[list[float]], **fields: Any) -> Frame:
    values = np.array(depth, np.float32)
    camera = Camera.centred(10, values.shape[1], values.shape[0])
    image = np.zeros((*values.shape, 3), np.uint8)
    return Frame(name, image, values, camera, "captured", "rgbd", fields.pop("source", "s"), "CC0", **fields)


def row_of(protocol: Protocol, frame: Frame, pred: list[list[float]]) -> dict[str, Any]:
    return measure(protocol, make_case(protocol, Item(frame)), Answer(np.array(pred, np.float32)))


def test_averaging_by_hand() -> None:
    """Two images, of 4 and 1 pixels that count: means of images and of pixels differ."""
    metrics = ("mae", "rmse", "delta1", "silog_half", "coverage")
    frames = [flat("a", [[1, 1], [1, 1]]), flat("b", [[2, np.nan], [np.nan, np.nan]])]
    predictions = [[[1, 1], [1, 3]], [[6, 1], [1, 1]]]
    for averaging, mae, rmse, inliers in (
        ("per_image", (0.5 + 4) / 2, (1 + 4) / 2, (0.75 + 0) / 2),
        ("pooled", (2 + 4) / 5, np.sqrt((4 + 16) / 5), 3 / 5),
    ):
        protocol = Protocol("p", metrics=metrics, averaging=averaging, **FIELDS)
        rows = [row_of(protocol, f, p) for f, p in zip(frames, predictions, strict=True)]
        result = average(protocol, rows, "all")
        assert result["mae"] == pytest.approx(mae)
        assert result["rmse"] == pytest.approx(rmse)
        assert result["delta1"] == pytest.approx(inliers)
        assert (result["frames"], result["pixels"], result["coverage"]) == (2, 5, 1)
    # Two of five pixels are off by a factor of 3: mean e^2 = 2 l^2 / 5, mean e = 2 l / 5.
    log3 = np.log(3)
    assert result["silog_half"] == pytest.approx(np.sqrt(2 * log3**2 / 5 - 0.5 * (2 * log3 / 5) ** 2))


def test_a_missing_prediction_is_an_error_and_clamping_does_not_hide_it() -> None:
    protocol = Protocol("p", metrics=("abs_rel", "coverage"), clamp=True, depth_range=(1, 10), **FIELDS)
    values = row_of(protocol, flat("a", [[10, 10, 2, 2]]), [[20, np.nan, 0.5, 0]])["regions"]["all"]["values"]
    assert values["abs_rel"] == pytest.approx((0 + 1 + 0.5 + 1) / 4)  # 20 -> 10, missing, 0.5 -> 1, no depth
    assert values["coverage"] == pytest.approx(0.5)


def test_the_models_mask_counts_only_where_a_protocol_says_so() -> None:
    frame, answer = flat("a", [[1, 1]]), Answer(np.ones((1, 2), np.float32), mask=np.array([[True, False]]))
    for masked, coverage in ((False, 1.0), (True, 0.5)):
        protocol = Protocol("p", metrics=("coverage",), model_mask=masked, **FIELDS)
        row = measure(protocol, make_case(protocol, Item(frame)), answer)
        assert row["regions"]["all"]["values"]["coverage"] == coverage


def test_prompted_pixels_are_left_out_of_the_second_number() -> None:
    sparse = np.array([[4.0, np.nan, np.nan, np.nan]], np.float32)
    protocol = Protocol("p", metrics=("mae",), prompt=("given",), **FIELDS)
    case = make_case(protocol, Item(flat("a", [[4, 1, 1, np.nan]]), lambda: sparse))
    row = measure(protocol, case, Answer(np.array([[4, 2, 1, 1]], np.float32)))
    assert {k: (v["pixels"], v["values"]["mae"]) for k, v in row["regions"].items()} == {
        "all": (3, pytest.approx(1 / 3)),
        "unprompted": (2, pytest.approx(1 / 2)),
    }


def test_a_frame_whose_pixels_are_all_prompted_has_no_second_number() -> None:
    protocol = Protocol("p", metrics=("mae",), prompt=("all",), **FIELDS)
    rows = [row_of(protocol, flat("a", [[4, 1]]), [[4, 2]])]
    assert rows[0]["regions"]["unprompted"]["values"]["mae"] is None
    assert average(protocol, rows, "unprompted") == {"frames": 0, "pixels": 0, "mae": None}


def test_several_prompts_are_joined_and_the_first_wins() -> None:
    sparse = np.array([[9.0, np.nan]], np.float32)
    protocol = Protocol("p", metrics=("mae",), prompt=("given", "all"), **FIELDS)
    case = make_case(protocol, Item(flat("a", [[4, 1]]), lambda: sparse))
    assert case.sparse is not None
    assert case.sparse.tolist() == [[9.0, 1.0]]


def test_the_input_is_resized_then_cropped(make_frame: MakeFrame) -> None:
    frame = make_frame(0, 48, 64)
    protocol = Protocol(
        "p", metrics=("mae",), size=(24, 32), input_crop=Crop("c", "pixels", (4, 20), (2, 30)), **FIELDS
    )
    case = make_case(protocol, Item(frame))
    assert case.query.image.shape == (16, 28, 3)
    np.testing.assert_array_equal(case.frame.depth, frame.depth[1::2, 1::2][4:20, 2:30])
    camera = case.query.camera
    assert camera is not None
    assert (camera.fx, camera.cx) == pytest.approx((frame.camera.fx / 2, frame.camera.cx / 2 - 2))


def test_the_camera_is_given_only_where_the_protocol_and_the_data_say_so() -> None:
    told, untold = (Protocol("p", metrics=("mae",), intrinsics=given, **FIELDS) for given in (True, False))
    assumed = flat("a", [[1, 1]], notes={"camera_source": "assumed"})
    assert make_case(told, Item(flat("a", [[1, 1]]))).query.camera is not None
    assert make_case(untold, Item(flat("a", [[1, 1]]))).query.camera is None
    assert make_case(told, Item(assumed)).query.camera is None


@pytest.mark.parametrize(
    ("frame", "fields", "words"),
    [
        (flat("a", [[1, 1]], scale="up_to_scale"), {}, "depth is up_to_scale, not metric"),
        (flat("a", [[1, 1]]), {"depth_range": (5, 6)}, "no pixel of its ground truth counts"),
        (flat("a", [[1, 1]]), {"prompt": ("given",)}, "brings no prompt of its own"),
    ],
)
def test_frames_that_a_protocol_cannot_measure(frame: Frame, fields: dict[str, Any], words: str) -> None:
    assert_refused(lambda: make_case(Protocol("p", metrics=("mae",), **fields, **FIELDS), Item(frame)), words)


def test_alignment_by_hand() -> None:
    protocol = Protocol("p", metrics=("mae",), alignment="median_scale", depth_range=(1, 10), **FIELDS)
    row = row_of(protocol, flat("a", [[2, 4, 6, 100]]), [[1, 2, 4, 1]])
    assert row["regions"]["all"]["values"]["mae"] == pytest.approx((0 + 0 + 2) / 3)


def test_metrics_are_added_by_name() -> None:
    register("farthest", Score("the farthest truth", lambda s: (float(np.nanmax(s.gt)),), poolable=False))
    try:
        protocol = Protocol("p", metrics=("farthest",), **FIELDS)
        assert row_of(protocol, flat("a", [[2, 7]]), [[1, 1]])["regions"]["all"]["values"]["farthest"] == 7
        assert_refused(lambda: pool("farthest", [(1.0,)], [1]), "cannot be pooled")
        assert_refused(lambda: register("farthest", SCORES["mae"]), "registered already")
    finally:
        del SCORES["farthest"]


def test_camera_metrics_by_hand() -> None:
    truth, half = Camera.centred(100, 100, 80), Camera.centred(60, 100, 80)
    blank = np.ones((80, 100), np.float32)
    sample = Sample(blank, blank, np.zeros((80, 100, 3), np.uint8), truth, half)
    values = {name: SCORES[name].terms(sample)[0] for name in ("focal_rel", "focal_25", "focal_50", "fov_deg")}
    fov = 2 * np.rad2deg(np.arctan(50 / 60) - np.arctan(0.5))
    assert values == pytest.approx({"focal_rel": 0.4, "focal_25": 0, "focal_50": 1, "fov_deg": fov})
    unknown = Sample(blank, blank, sample.image, truth, None)
    assert_refused(lambda: SCORES["fov_deg"].terms(unknown), "recovers no camera")
