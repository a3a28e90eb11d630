"""What every peer has in common: the interface, the registry, and one line where something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expectations import assert_refused
from peer_fixtures import CAMERA, IMAGE, PROMPT, W

from metricanything.core.camera import Camera
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation import peers
from metricanything.evaluation.peers import PEERS, Adapter, Output, Peer, load_peer
from metricanything.evaluation.peers.interface import positive
from metricanything.evaluation.peers.packages import FOLDER_VARIABLE
from metricanything.inference.predictor import Model
from metricanything.models.registry import COMPACT, MODELS


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_package_is_one_line_with_the_remedy(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("transformers", "moge.model.v2", "unidepth.models", "mmengine", "prior_depth_anything"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert_refused(lambda: load_peer(f"peer:{name}", "cpu"), name, "needs", "install" if name != "omni-dc" else "clone")


def test_unknown_names_list_the_known_ones() -> None:
    assert_refused(lambda: load_peer("peer:depth-por"), "no such peer", *PEERS)


def test_every_peer_states_its_terms_and_source() -> None:
    assert all(spec.licence and spec.source for spec in PEERS.values())
    assert "indoor-large" in " ".join(PEERS) and "NC" in PEERS["depth-anything-v2-metric-indoor-large"].licence


@pytest.mark.parametrize("name", COMPACT)
def test_our_own_models_are_peers(name: str) -> None:
    torch.manual_seed(0)
    model: Peer = Model(MODELS[name].build(), MODELS[name], device="cpu")
    assert model.name == name and model.licence
    image = np.zeros((64, 96, 3), np.uint8)
    prompt = SparsePrompt.from_pixels([[5, 5]], [2.0], (64, 96)) if model.takes_prompt else None
    assert model.predict(image, prompt=prompt, camera=Camera.centred(80, 96, 64)).depth.shape == (64, 96)


class Flat(Adapter):
    def run(self, image: Any, prompt: Any, camera: Any) -> Output:
        return Output(np.full(image.shape[:2], 2.0, np.float32))


def test_inputs_are_checked_before_the_model_runs() -> None:
    peer = Flat("flat", "none", "nowhere", "cpu")
    with pytest.warns(UserWarning, match="no camera given"):
        prediction = peer.predict(IMAGE)
    assert prediction.camera_source == "assumed" and prediction.camera.fx == W
    assert_refused(lambda: peer.predict(IMAGE, prompt=PROMPT), "flat takes no prompt")
    assert_refused(lambda: peer.predict(IMAGE, camera=Camera.centred(9, 10, 10)), "camera is for 10x10")
    assert_refused(lambda: peer.predict(IMAGE[..., 0]), "(H, W, 3)")
    peer.takes_prompt = True
    assert_refused(lambda: peer.predict(IMAGE, prompt=SparsePrompt.from_pixels([[1, 1]], [1.0], (30, 30))), "aspect")


def test_positive_only_shifts() -> None:
    values = np.array([-3.0, 0.0, 5.0, np.nan])
    moved = positive(values)
    assert moved[0] > 0 and np.isnan(moved[3])
    np.testing.assert_allclose(np.diff(moved[:3]), [3, 5], rtol=1e-5)
    np.testing.assert_array_equal(positive(np.array([1.0, 4.0])), [1, 4])
    assert np.isnan(positive(np.full(3, np.nan))).all()


def test_nothing_heavy_is_imported_with_the_registry() -> None:
    code = "import sys; import metricanything.evaluation.peers; assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", dict(PEERS))
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    block = page.split("```python\n")[2].split("```")[0]
    names = {"image": IMAGE, "camera": CAMERA}
    exec(block, names)
    prediction: Any = names["prediction"]
    assert (prediction.depth == 2).all() and prediction.record["model"]["model"] == "peer:my-model"
    assert len([line for line in block.split("PEERS[")[0].splitlines() if line.strip()]) <= 20
