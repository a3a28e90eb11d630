"""Point maps, boundaries, alignments and other authors' models through protocols by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evaluation_fixtures import scene
from expectations import assert_refused

from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points
from metricanything.evaluation import peers
from metricanything.evaluation.datasets import Item
from metricanything.evaluation.measuring import make_case, measure
from metricanything.evaluation.points import evaluate_points
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.scores import ALIGNMENTS, SCORES, Sample, pool
from metricanything.evaluation.subjects import Answer, Query, open_subject

MakeFrame = Callable[..., Frame]


def test_point_protocols_give_moges_metrics(make_frame: MakeFrame) -> None:
    protocol = replace(PROTOCOLS["moge-nyu-points"], size=(48, 64))
    frame = make_frame(1, 48, 64)
    few = np.add.outer(3 * np.arange(48), 5 * np.arange(64)) % 7 == 0  # aligning many points takes seconds
    frame = replace(frame, depth=np.where(few, frame.depth, np.float32(np.nan)))
    case = make_case(protocol, Item(frame))
    frame, rng = case.frame, np.random.default_rng(0)
    depth = (frame.depth * rng.uniform(0.9, 1.1, frame.depth.shape)).astype(np.float32)
    points = depth_to_points(depth, frame.camera)
    row = measure(protocol, case, Answer(depth, points=points))["regions"]["all"]["values"]
    truth = np.where(case.counts, frame.depth, np.nan)
    expected = evaluate_points(points, depth_to_points(truth, frame.camera), case.counts)
    assert row == pytest.approx({name: expected[name] for name in protocol.metrics})
    assert row["points_metric_delta1"] > 0.9
    exact = measure(protocol, case, Answer(frame.depth, points=depth_to_points(frame.depth, frame.camera)))
    assert exact["regions"]["all"]["values"]["points_metric_rel"] == pytest.approx(0, abs=1e-6)
    assert_refused(lambda: measure(protocol, case, Answer(depth)), "points need a model that gives them")


@pytest.mark.parametrize("name", ["depthpro-ibims-boundary", "moge-ibims-boundary"])
def test_boundary_protocols_reward_sharp_edges(name: str, make_frame: MakeFrame) -> None:
    from scipy.ndimage import gaussian_filter

    protocol = replace(PROTOCOLS[name], size=(96, 128) if name.startswith("moge") else None)
    case = make_case(protocol, Item(make_frame(2, 96, 128)))
    known = np.where(np.isfinite(case.frame.depth), case.frame.depth, 50).astype(np.float32)
    sharp, blurred = (
        measure(protocol, case, Answer(depth))["regions"]["all"]["values"]
        for depth in (known, gaussian_filter(known, 3))
    )
    for metric in protocol.metrics:
        assert sharp[metric] == pytest.approx(1, abs=1e-6)
        assert blurred[metric] < 0.5


@pytest.mark.parametrize("name", list(ALIGNMENTS))
def test_alignments_leave_a_perfect_prediction_alone(name: str, make_frame: MakeFrame) -> None:
    frame = make_frame(3, 64, 64)
    truth = np.where(frame.valid, frame.depth, np.float32(np.nan))
    aligned = ALIGNMENTS[name](truth, truth)
    assert aligned.dtype == np.float32
    np.testing.assert_allclose(aligned[frame.valid], truth[frame.valid], rtol=1e-4)
    if name != "none":
        scaled = ALIGNMENTS[name](truth * np.float32(2.5), truth)
        np.testing.assert_allclose(scaled[frame.valid], truth[frame.valid], rtol=1e-3)


def test_every_metric_says_what_it_is(make_frame: MakeFrame) -> None:
    frame = make_frame(4, 32, 40)
    sample = Sample(
        frame.depth, np.where(frame.valid, frame.depth, np.float32(np.nan)), frame.image, frame.camera, frame.camera,
        depth_to_points(frame.depth, frame.camera), np.ones(frame.depth.shape, np.int32),
        (frame.depth == frame.depth.min()).astype(np.float32),
    )  # fmt: skip
    for name, score in SCORES.items():
        assert score.description
        value = score.finish(score.terms(sample))
        best = pytest.approx(1, abs=3e-3) if score.better == "higher" else pytest.approx(0, abs=1e-5)
        assert value == best, name  # the area of d_auc starts at 0.01 of 5


def test_peers_are_measured_like_models(make_frame: MakeFrame, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    class Flat(peers.Adapter):
        def run(self, image: Any, prompt: Any, camera: Any) -> peers.Output:
            return peers.Output(np.full(image.shape[:2], 3.0, np.float32))

    monkeypatch.setitem(peers.PEERS, "flat", peers.PeerSpec(Flat, "nowhere", "MIT"))
    subject, frame = open_subject("peer:flat", device="cpu"), make_frame(0)
    (answer,) = subject.answer([Query(frame.image, None, frame.camera)])
    assert (answer.depth == 3).all()
    assert subject.record["licence"] == "MIT"
    subject.check(False, "depthpro-eth3d")
    assert_refused(lambda: subject.check(True, "ma-lidar-8"), "takes no prompt")
    assert_refused(lambda: open_subject("peer:nobody"), "nobody")
    assert_refused(lambda: open_subject(f"moge-baseline:{tmp_path / 'none.py'}"), "is no Python file")


#: eval_depth of student_depthmap/eval.py (github.com/metric-anything/metric-anything) in float64, two images pooled.
BOOSTER = {
    "delta1": 0.8549467921257019,
    "delta2": 0.8994875550270081,
    "delta3": 1.0,
    "abs_rel": 0.16307178350841114,
    "sq_rel": 0.13232241068648704,
    "rmse": 0.7018621332167628,
    "mae": 0.5842662115641171,
    "rmse_log": 0.2212935984631706,
    "log10": 0.07668133366517378,
    "silog_half": 0.19601240159256467,
}


def test_pooling_is_that_of_the_published_booster_script() -> None:
    pred, gt, mask = (x.astype(np.float64) if x.dtype != bool else x for x in scene())
    images = [(pred, gt, mask), (0.7 * pred[:20], gt[:20], ~mask[:20])]
    samples = [Sample(p, np.where(m, g, np.nan), np.zeros((*g.shape, 3), np.uint8)) for p, g, m in images]
    pixels = [int((np.isfinite(s.gt) & (s.gt > 0)).sum()) for s in samples]
    assert set(PROTOCOLS["booster-official"].metrics) >= set(BOOSTER)
    for name, value in BOOSTER.items():  # the published shares are float32
        found = pool(name, [SCORES[name].terms(sample) for sample in samples], pixels)
        assert found == pytest.approx(value, rel=1e-6 if name.startswith("delta") else 1e-9), name
