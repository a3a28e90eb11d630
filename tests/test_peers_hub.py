"""Models of transformers behind our interface, with a stand-in of the library: units, sizes, cameras, remedies."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from expectations import assert_refused
from peer_fixtures import CAMERA, IMAGE, PROMPT, H, Loaded, W, module
from torch.nn.functional import interpolate

from metricanything.core.camera import Camera
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.peers import load_peer


class Inputs(dict):
    def to(self, _: str) -> Inputs:
        return self


class Processor(Loaded):
    """As transformers' depth processors: resizes going in, and back to `target_sizes` going out."""

    seen: dict[str, Any]
    focal: float | None = None

    def __call__(self, images: Any, return_tensors: str, **more: Any) -> Inputs:
        assert images.mode == "RGB" and images.size == (W, H) and return_tensors == "pt"
        self.seen = more
        small = torch.from_numpy(np.array(images)).permute(2, 0, 1)[None].float() / 255
        return Inputs(pixel_values=interpolate(small, (15, 20)))

    def post_process_depth_estimation(self, outputs: Any, target_sizes: Any, **more: Any) -> list[dict[str, Any]]:
        self.seen |= more
        depth = interpolate(outputs.predicted_depth[:, None], target_sizes[0], mode="bilinear")[0, 0]
        said = {"predicted_depth": depth}
        return [said if self.focal is None else {**said, "focal_length": torch.tensor(self.focal)}]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in of transformers, whose model answers ten times the brightness; set its `config` and `focal`."""
    made = SimpleNamespace(
        config=SimpleNamespace(model_type="depth_anything", depth_estimation_type="metric"), focal=None
    )

    class Network(Loaded):
        def __call__(self, pixel_values: torch.Tensor) -> Any:
            return SimpleNamespace(predicted_depth=10 * pixel_values[:, 0])

        @property
        def config(self) -> Any:
            return made.config

    class OurProcessor(Processor):
        @property
        def focal(self) -> Any:
            return made.focal

    module(monkeypatch, "torchvision")
    module(monkeypatch, "transformers", AutoImageProcessor=OurProcessor, AutoModelForDepthEstimation=Network)
    return made


def brightness() -> np.ndarray:
    return IMAGE[..., 0] / 25.5


def test_metric_depth_anything_is_in_metres_at_the_size_of_the_image(hub: Any) -> None:
    peer = load_peer("peer:depth-anything-v2-metric-indoor-small", "cpu")
    prediction = peer.predict(IMAGE, camera=CAMERA)
    assert prediction.depth.shape == (H, W) and prediction.depth.dtype == np.float32
    np.testing.assert_allclose(prediction.depth, brightness(), atol=0.25)
    assert prediction.camera == CAMERA and prediction.camera_source == "given"
    np.testing.assert_allclose(prediction.points[..., 2], prediction.depth)
    assert prediction.record["scale"] == "metric" and prediction.record["model"]["licence"] == "Apache-2.0"
    assert prediction.record["model"]["weights"].endswith("Metric-Indoor-Small-hf")


def test_relative_depth_anything_is_affine_disparity(hub: Any) -> None:
    hub.config.depth_estimation_type = "relative"
    prediction = load_peer("owner/some-relative-model", "cpu").predict(IMAGE, camera=CAMERA)
    assert (prediction.record["scale"], prediction.record["aligned_in"]) == ("affine", "disparity")
    disparity = 1 / prediction.depth.astype(np.float64)
    assert np.ptp(np.diff(disparity[0, 2:-2]) / np.diff(brightness()[0, 2:-2]).mean()) < 0.3  # a line stays a line
    assert (disparity[:, -1] > disparity[:, 0]).all()


def test_depth_pro_follows_a_given_focal_length(hub: Any) -> None:
    hub.config.model_type, hub.focal = "depth_pro", 80.0
    peer = load_peer("peer:depth-pro", "cpu")
    own, given = peer.predict(IMAGE), peer.predict(IMAGE, camera=CAMERA)
    assert own.camera_source == "model" and own.camera == Camera.centred(80, W, H)
    np.testing.assert_allclose(given.depth, own.depth * 50 / 80, rtol=1e-6)
    hub.focal = None  # without its field-of-view head, the canonical depth is for a focal length of one width
    np.testing.assert_allclose(peer.predict(IMAGE, camera=CAMERA).depth, own.depth * 50 / W, rtol=1e-6)


def test_prompt_depth_anything_gets_a_map_in_metres_without_holes(hub: Any) -> None:
    hub.config.model_type = "prompt_depth_anything"
    peer: Any = load_peer("peer:prompt-depth-anything-small", "cpu")
    prediction = peer.predict(IMAGE, prompt=PROMPT, camera=CAMERA)
    seen = peer.processor.seen
    assert seen["prompt_scale_to_meter"] == 1 and seen["prompt_depth"].shape == (H, W)
    assert seen["prompt_depth"][4, 3] == 2 and set(np.unique(seen["prompt_depth"])) == set(PROMPT.depth)
    assert prediction.record["prompt_points"] == 5
    assert_refused(lambda: peer.predict(IMAGE), "completes a sparse prompt")
    dense = SparsePrompt.from_depth(np.full((600, 800), 2.0, np.float32))
    peer.predict(IMAGE, prompt=dense, camera=CAMERA)
    assert peer.processor.seen["prompt_depth"].shape == (192, 256)


def test_zoedepth_states_the_source_size(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.config.model_type = "zoedepth"
    peer: Any = load_peer("peer:zoedepth", "cpu")
    peer.predict(IMAGE, camera=CAMERA)
    assert peer.processor.seen["source_sizes"] == [(H, W)]
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert_refused(lambda: load_peer("peer:zoedepth", "cpu"), "torchvision", "metricanything[peers]")


def test_models_of_other_kinds_are_refused(hub: Any) -> None:
    hub.config.model_type = "glpn"
    assert_refused(lambda: load_peer("vinvino02/glpn-nyu", "cpu"), "'glpn' has no adapter")


def test_weights_that_cannot_be_had_are_one_line(hub: Any) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no such repository\nwith more lines")

    sys.modules["transformers"].AutoImageProcessor.from_pretrained = fail  # type: ignore[attr-defined]
    assert_refused(
        lambda: load_peer("peer:depth-pro", "cpu"), "apple/DepthPro-hf cannot be loaded", "no such repository"
    )
