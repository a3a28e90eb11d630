"""Models with packages of their own behind our interface, with stand-ins that have their signatures and shapes.

Their values are chosen so that a wrong unit, a wrong axis or a lost pixel shows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expectations import assert_refused
from peer_fixtures import CAMERA, IMAGE, PROMPT, SLANT, H, Loaded, W, module

from metricanything.core.camera import Camera
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.peers import PEERS, load_peer
from metricanything.evaluation.peers.packages import FOLDER_VARIABLE


def test_moge(monkeypatch: pytest.MonkeyPatch) -> None:
    class MoGeModel(Loaded):
        def infer(
            self, image: torch.Tensor, *, fov_x: Any, apply_mask: bool, use_fp16: bool
        ) -> dict[str, torch.Tensor]:
            assert image.shape == (3, H, W) and image.max() <= 1 and not apply_mask and not use_fp16
            self.fov = fov_x
            k = torch.tensor([[1.25, 0, 0.5], [0, 5 / 3, 0.5], [0, 0, 1]])
            mask = torch.ones(H, W, dtype=torch.bool)
            mask[0] = False
            return {"depth": SLANT, "points": torch.stack([SLANT, -SLANT, SLANT], -1), "intrinsics": k, "mask": mask}

    module(monkeypatch, "moge.model.v2", MoGeModel=MoGeModel)
    peer: Any = load_peer("moge-2", "cpu")
    free = peer.predict(IMAGE)
    assert free.camera == Camera.pinhole(50, 50, 20, 15, W, H) or np.allclose(free.camera.params, (50, 50, 20, 15))
    assert free.camera_source == "model" and peer.model.fov is None
    np.testing.assert_allclose(free.points[..., 1], -SLANT)
    assert not free.mask[0].any() and free.mask[1:].all()
    given = peer.predict(IMAGE, camera=CAMERA)
    assert np.deg2rad(peer.model.fov / 2) == pytest.approx(np.arctan(W / 2 / 50))
    np.testing.assert_allclose(given.points[5, 7], CAMERA.unproject([[7.5, 5.5]])[0] * float(SLANT[5, 7]) /
                               CAMERA.unproject([[7.5, 5.5]])[0, 2], rtol=1e-5)  # fmt: skip


def test_unidepth(monkeypatch: pytest.MonkeyPatch) -> None:
    class UniDepthV2(Loaded):
        def infer(self, rgb: torch.Tensor, camera: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
            assert rgb.dtype == torch.uint8 and rgb.shape == (3, H, W)
            self.given = camera
            k = torch.tensor([[[44.0, 0, 21], [0, 45, 14], [0, 0, 1]]])
            return {"depth": SLANT[None, None], "intrinsics": k, "confidence": SLANT[None, None]}

    module(monkeypatch, "unidepth.models", UniDepthV2=UniDepthV2)
    peer: Any = load_peer("unidepth-v2-large", "cpu")
    free = peer.predict(IMAGE)
    assert free.camera == Camera.pinhole(44, 45, 21, 14, W, H) and free.confidence is None
    np.testing.assert_array_equal(free.depth, SLANT)
    peer.predict(IMAGE, camera=CAMERA)
    np.testing.assert_array_equal(peer.model.given[0], np.array([[50, 0, 19], [0, 52, 16], [0, 0, 1]]))
    fisheye = Camera.kannala_brandt(50, 50, 20, 15, W, H, distortion=[0.1, 0, 0, 0])
    assert_refused(lambda: peer.predict(IMAGE, camera=fisheye), "pinhole cameras only")


@pytest.mark.parametrize("shape", [(H, W), (W, H), (700, 1300)])
def test_metric3d_scales_by_the_focal_length_of_the_resized_image(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Network(Loaded):
        def inference(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, None, dict[str, Any]]:
            x = batch["input"]
            assert x.shape == (1, 3, 616, 1064)
            return 4 * (x[:, :1] * 0.229 + 0.485), None, {}  # four times the brightness

    monkeypatch.setattr(torch.hub, "load", lambda *_, **__: Network())
    module(monkeypatch, "mmengine")
    height, width = shape
    ramp = np.add.outer(np.linspace(0, 40, height), np.linspace(20, 200, width)).astype(np.uint8)
    image = np.stack([ramp] * 3, -1)
    camera = Camera.centred(500, width, height)
    depth = load_peer("metric3d-v2-small", "cpu").predict(image, camera=camera).depth
    scale = min(616 / height, 1064 / width)
    np.testing.assert_allclose(depth, 4 * (ramp / 255) * 500 * scale / 1000, rtol=0.05, atol=0.02 * 2 * scale)
    doubled = load_peer("metric3d-v2-small", "cpu").predict(image, camera=Camera.centred(1000, width, height)).depth
    np.testing.assert_allclose(doubled, 2 * depth, rtol=1e-5)


def test_prior_depth_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    class PriorDepthAnything:
        def __init__(self, device: str) -> None:
            assert device == "cpu"

        def infer_one_sample(self, image: np.ndarray, prior: np.ndarray) -> torch.Tensor:
            assert image.dtype == np.uint8 and image.shape == (H, W, 3) and prior.dtype == np.float32
            return torch.from_numpy(prior + 1)

    module(monkeypatch, "prior_depth_anything", PriorDepthAnything=PriorDepthAnything)
    peer = load_peer("prior-depth-anything", "cpu")
    depth = peer.predict(IMAGE, prompt=PROMPT, camera=CAMERA).depth
    assert depth[4, 3] == 3 and depth[20, 30] == 4.5 and depth[0, 0] == 1  # 0 is where there is no point
    few = SparsePrompt.from_pixels([[1, 1]], [2.0], (H, W))
    assert_refused(lambda: peer.predict(IMAGE, prompt=few), "at least 5 pixels")


@pytest.fixture
def omni_dc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "OMNI-DC" / "src"
    (folder / "model").mkdir(parents=True)
    (folder / "config.py").write_text(
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--num_resolution', type=int, default=1)\n"
        "p.add_argument('--load_dav2', type=int, default=False)\n"
        "args, rest = p.parse_known_args()\nassert '--whiten_sparse_depths' in rest\n"
    )
    checkpoint = folder / "depth_models" / "depth_anything_v2" / "checkpoints" / "depth_anything_v2_vitl.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("weights")
    (folder / "model" / "__init__.py").write_text("")
    (folder / "model" / "ognidc.py").write_text(
        "import torch\n"
        "class OGNIDC(torch.nn.Module):\n"
        "    @classmethod\n"
        "    def from_pretrained(cls, repo, args):\n"
        "        assert repo == 'zuoym15/OMNI-DC' and args.num_resolution == 3 and args.load_dav2 == 1\n"
        "        assert open('./depth_models/depth_anything_v2/checkpoints/depth_anything_v2_vitl.pth').read()\n"
        "        return cls()\n"
        "    def forward(self, sample):\n"
        "        assert sample['rgb'].shape[2] % 16 == 0 and sample['dep'].shape[3] % 16 == 0\n"
        "        return {'pred': sample['dep'] + 0.5}\n"
    )
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("config", "model", "model.ognidc"):
        sys.modules.pop(name, None)


def test_omni_dc(omni_dc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["metricanything", "evaluate", "--unknown-to-them"])
    before = Path.cwd()
    depth = load_peer("omni-dc", "cpu").predict(IMAGE, prompt=PROMPT, camera=CAMERA).depth
    assert depth.shape == (H, W) and depth[4, 3] == 2.5 and depth[29, 39] == 4.5 and depth[0, 0] == 0.5
    assert sys.argv[1] == "evaluate" and Path.cwd() == before


def test_omni_dc_without_the_weights_of_depth_anything(omni_dc: Path) -> None:
    next(omni_dc.rglob("*.pth")).unlink()
    assert_refused(lambda: load_peer("omni-dc", "cpu"), "depth_anything_v2_vitl.pth", "README")


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [("moge-2", "moge.model.v2", "MoGeModel"), ("unidepth-v2-large", "unidepth.models", "UniDepthV2")],
)
def test_weights_that_cannot_be_fetched_are_one_line(
    name: str, path: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreachable:
        @staticmethod
        def from_pretrained(_: str) -> None:
            raise ConnectionError("no route\nto the Hub")

    module(monkeypatch, path, **{kind: Unreachable})
    assert_refused(lambda: load_peer(name, "cpu"), PEERS[name].source, "no route to the Hub", "check the name")
