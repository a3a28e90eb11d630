"""Adapters written for MoGe's evaluation, as objects and as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expectations import assert_refused
from peer_fixtures import CAMERA, IMAGE, SLANT, H, W

from metricanything.evaluation.peers import load_moge_baseline
from metricanything.evaluation.peers.moge_baseline import MoGeBaselinePeer


def baseline(**said: Any) -> MoGeBaselinePeer:
    class Baseline:
        device = torch.device("cpu")

        def infer(self, image: torch.Tensor, intrinsics: torch.Tensor | None = None) -> dict[str, Any]:
            assert image.shape == (3, H, W) and image.dtype == torch.float32 and image.max() <= 1
            self.intrinsics = intrinsics
            return said

    return MoGeBaselinePeer(Baseline(), "theirs")


class TestMoGeBaseline:
    def test_metric_depth_and_intrinsics(self) -> None:
        k = torch.tensor([[1.0, 0, 0.5], [0, 1.5, 0.4], [0, 0, 1]])
        peer = baseline(depth_metric=SLANT, depth_affine_invariant=9 * SLANT, intrinsics=k)
        prediction = peer.predict(IMAGE)
        np.testing.assert_array_equal(prediction.depth, SLANT)
        np.testing.assert_allclose(prediction.camera.params, (W, 1.5 * H, W / 2, 0.4 * H), rtol=1e-6)
        assert prediction.record["scale"] == "metric" and peer.baseline.intrinsics is None
        assert peer.predict(IMAGE, camera=CAMERA).camera == CAMERA
        expected = [[50 / W, 0, 19 / W], [0, 52 / H, 16 / H], [0, 0, 1]]
        np.testing.assert_allclose(peer.baseline.intrinsics, expected, rtol=1e-6)

    def test_points_alone_with_a_batch_axis(self) -> None:
        points = torch.stack([SLANT, 2 * SLANT, SLANT + 1], -1)
        prediction = baseline(points_scale_invariant=points[None]).predict(IMAGE)
        np.testing.assert_array_equal(prediction.points, points)
        np.testing.assert_array_equal(prediction.depth, SLANT + 1)
        assert prediction.record["scale"] == "up_to_scale"

    def test_affine_depth_is_shifted_alone(self) -> None:
        prediction = baseline(depth_affine_invariant=SLANT - 2).predict(IMAGE)
        shift = prediction.depth - (SLANT.numpy() - 2)
        assert np.ptp(shift) < 1e-5 and prediction.depth.min() > 0
        assert (prediction.record["scale"], prediction.record["aligned_in"]) == ("affine", "depth")

    def test_affine_disparity_stays_affine(self) -> None:
        prediction = baseline(disparity_affine_invariant=SLANT - 1.5).predict(IMAGE)
        disparity = 1 / prediction.depth.astype(np.float64)
        np.testing.assert_allclose(disparity - disparity[0, 0], SLANT - 1, atol=1e-3)
        assert prediction.record["aligned_in"] == "disparity"

    def test_the_mode_for_evaluation_is_preferred(self) -> None:
        peer = baseline(depth_metric=SLANT)
        peer.baseline.infer_for_evaluation = lambda image, k: {"depth_metric": 2 * SLANT}
        np.testing.assert_array_equal(peer.predict(IMAGE).depth, 2 * SLANT)

    def test_unknown_pixels_are_outside_the_mask(self) -> None:
        depth = SLANT.clone()
        depth[0, 0], depth[0, 1], depth[0, 2] = torch.inf, torch.nan, -1
        prediction = baseline(depth_metric=depth).predict(IMAGE)
        assert not prediction.mask[0, :3].any() and prediction.mask[1:].all()
        assert np.isposinf(prediction.depth[0, 0]) and np.isnan(prediction.depth[0, 1:3]).all()

    @pytest.mark.parametrize(
        ("said", "word"),
        [({}, "none of MoGe's depths"), ({"depth": SLANT}, "but depth"), ({"depth_metric": SLANT.T}, "shape (40, 30)")],
    )
    def test_what_cannot_be_used_is_refused(self, said: dict[str, Any], word: str) -> None:
        assert_refused(lambda: baseline(**said).predict(IMAGE), "theirs", word)

    def test_objects_without_infer(self) -> None:
        assert_refused(lambda: MoGeBaselinePeer(object(), "theirs"), "no method infer")


class TestMoGeBaselineFile:
    TEXT = (
        "import click, torch\n"
        "class Baseline:\n"
        "    device = torch.device('cpu')\n"
        "    def __init__(self, metres): self.metres = metres\n"
        "    @click.command()\n"
        "    @click.option('--metres', type=float, default=1.0)\n"
        "    @staticmethod\n"
        "    def load(metres): return Baseline(metres)\n"
        "    def infer(self, image, intrinsics=None):\n"
        "        return {'depth_metric': torch.full(image.shape[-2:], self.metres)}\n"
    )

    def test_its_own_arguments(self, tmp_path: Path) -> None:
        pytest.importorskip("click")  # what such files are written with; no dependency of ours
        (tmp_path / "mine.py").write_text(self.TEXT)
        peer = load_moge_baseline(tmp_path / "mine.py", ["--metres", "2.5"])
        assert (peer.predict(IMAGE).depth == 2.5).all() and peer.name == "mine"
        assert (load_moge_baseline(tmp_path / "mine.py").predict(IMAGE).depth == 1).all()
        assert_refused(lambda: load_moge_baseline(tmp_path / "mine.py", ["--size", "2"]), "mine.py", "--size")

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("import nosuchpackage_", "No module named 'nosuchpackage_'"),
            ("def (", "is not Python"),
            ("x = 1", "defines no `class Baseline`"),
        ],
    )
    def test_bad_files(self, tmp_path: Path, text: str, word: str) -> None:
        (tmp_path / "bad.py").write_text(text)
        assert_refused(lambda: load_moge_baseline(tmp_path / "bad.py"), "bad.py", word)

    def test_no_file(self, tmp_path: Path) -> None:
        assert_refused(lambda: load_moge_baseline(tmp_path / "none.py"), "is no Python file")
