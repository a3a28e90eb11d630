"""Models that come as packages or repositories of their own: MoGe-2, UniDepth, Metric3D, Prior Depth Anything, OMNI-DC.

Checked line by line against their repositories (commits in docs/evaluation.md), and tested with stand-ins of the same
interface; the real packages with their weights were not run.
"""

from __future__ import annotations

import math
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.peers.interface import Adapter, Image, Output, array_of, camera_of, chw, fetching, need

FOLDER_VARIABLE = "METRICANYTHING_PEERS"
#: What OMNI-DC's published weights are run with (src/testing_scripts/demo.sh); its defaults are of another network.
_OMNI_DC_SETTINGS = {
    "load_dav2": "1",
    "num_resolution": "3",
    "multi_resolution_learnable_gradients_weights": "uniform",
    "pred_confidence_input": "1",
    "optim_layer_input_clamp": "1.0",
    "depth_activation_format": "exp",
    "max_depth": "300.0",
    "whiten_sparse_depths": "1",
    "gru_internal_whiten_method": "median",
    "backbone_mode": "rgbd",
    "GRU_iters": "1",
    "data_normalize_median": "1",
}
_OMNI_DC_DAV2 = Path("depth_models", "depth_anything_v2", "checkpoints", "depth_anything_v2_vitl.pth")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for RGB in 0..1


class MoGePeer(Adapter):
    """MoGe-2 (`moge` package): metric points with a recovered camera; of a given one it takes the field of view."""

    def __init__(self, name: str, licence: str, repo: str, device: str | None = None) -> None:
        super().__init__(name, licence, repo, device)
        remedy = "install it with `pip install git+https://github.com/microsoft/MoGe.git`"
        kind = need("moge.model.v2", name, remedy).MoGeModel
        with fetching(name, repo):
            self.model = kind.from_pretrained(repo).to(self.device).eval()

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        height, width = image.shape[:2]
        # Of a given camera it takes the field of view, as if the principal point were the centre.
        fov = None if camera is None else math.degrees(2 * math.atan(width / 2 / self.pinhole(camera).fx))
        tensor = chw(image).to(self.device).float() / 255
        half = self.device.startswith("cuda")
        said = self.model.infer(tensor, fov_x=fov, apply_mask=False, use_fp16=half)
        return Output(
            array_of(said["depth"]),
            mask=array_of(said["mask"]) > 0.5 if "mask" in said else None,
            # Its points are those of a centred camera; with a given one, the depth is unprojected with that.
            points=array_of(said["points"]) if camera is None else None,
            camera=camera_of(said["intrinsics"], width, height, normalised=True),
            normals=array_of(said["normal"]) if said.get("normal") is not None else None,
        )


class UniDepthPeer(Adapter):
    """UniDepth V2 (`unidepth` package): takes the camera matrix. Its "confidence" is an error and is left out."""

    def __init__(self, name: str, licence: str, repo: str, device: str | None = None) -> None:
        super().__init__(name, licence, repo, device)
        remedy = "clone https://github.com/lpiccinelli-eth/UniDepth and install it with `pip install -e .`"
        kind = need("unidepth.models", name, remedy).UniDepthV2
        with fetching(name, repo):
            self.model = kind.from_pretrained(repo).to(self.device).eval()

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        import torch

        height, width = image.shape[:2]
        k = None if camera is None else torch.from_numpy(np.asarray(self.pinhole(camera).K, dtype=np.float32))[None]
        said = self.model.infer(chw(image), k)
        return Output(
            array_of(said["depth"]).reshape(height, width),
            camera=camera_of(said["intrinsics"], width, height, normalised=False),
        )


class Metric3DPeer(Adapter):
    """Metric3D v2 by torch.hub, which downloads and runs the code of the repository yvanyin/metric3d.

    Its canonical camera has a focal length of 1000 pixels at the network's size, 616x1064, into which the image is
    scaled and padded; without a given camera, metres rest on an assumed one.
    """

    size = (616, 1064)

    def __init__(self, name: str, licence: str, entry: str, device: str | None = None) -> None:
        super().__init__(name, licence, entry, device)
        import torch

        if find_spec("mmcv") is None:  # it reads its configuration with either
            need("mmengine", name, "install it with `pip install mmengine timm`")
        try:
            with fetching(name, entry):
                model: Any = torch.hub.load("yvanyin/metric3d", entry, pretrain=True, trust_repo=True)
        except (ImportError, RuntimeError) as error:  # torch.hub names a missing dependency in a RuntimeError
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{name}: torch.hub cannot load it ({reason}); install what it names") from None
        self.model = model.to(self.device).eval()

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        import torch
        from torch.nn.functional import interpolate, pad

        height, width = image.shape[:2]
        focal = float(width) if camera is None else self.pinhole(camera).fx
        scale = min(self.size[0] / height, self.size[1] / width)
        h, w = int(height * scale), int(width * scale)
        small = interpolate(_standardised(image, self.device), (h, w), mode="bilinear", align_corners=False)
        top, left = (self.size[0] - h) // 2, (self.size[1] - w) // 2
        # Padding with the mean colour, which standardised is 0.
        framed = pad(small, (left, self.size[1] - w - left, top, self.size[0] - h - top))
        with torch.no_grad():
            depth = self.model.inference({"input": framed})[0].reshape(1, 1, *self.size)
        depth = depth[..., top : top + h, left : left + w]
        depth = interpolate(depth, (height, width), mode="bilinear", align_corners=False)
        return Output((array_of(depth)[0, 0] * np.float32(focal * scale / 1000)).clip(0, 300))


class PriorDepthAnythingPeer(Adapter):
    """Prior Depth Anything (`prior_depth_anything` package): completes a prompt of at least five points."""

    takes_prompt = needs_prompt = True

    def __init__(self, name: str, licence: str, source: str, device: str | None = None) -> None:
        super().__init__(name, licence, source, device)
        remedy = "clone https://github.com/SpatialVision/Prior-Depth-Anything and install it with `pip install -e .`"
        kind = need("prior_depth_anything", name, remedy).PriorDepthAnything
        with fetching(name, source):
            self.model = kind(device=self.device)

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        prior = _sparse_map(prompt, image)
        if (known := int((prior > 0).sum())) < 5:
            raise InputError(f"{self.name} needs at least 5 pixels with a prompt, got {known}")
        return Output(array_of(self.model.infer_one_sample(image=image, prior=prior)).squeeze())


class OmniDCPeer(Adapter):
    """OMNI-DC, from a checkout of its repository in `$METRICANYTHING_PEERS/OMNI-DC` (it is no package).

    Its top-level modules (`config`, `model`) are put on Python's path, its command line is that of its demonstration,
    and it is loaded in its own folder, since it reads the weights of Depth Anything V2 Large from there.
    """

    takes_prompt = needs_prompt = True

    def __init__(self, name: str, licence: str, repo: str, device: str | None = None) -> None:
        super().__init__(name, licence, repo, device)
        folder = Path(os.environ.get(FOLDER_VARIABLE) or "peers") / "OMNI-DC" / "src"
        remedy = f"clone https://github.com/princeton-vl/OMNI-DC into a folder and set {FOLDER_VARIABLE} to that folder"
        if not (folder / "model" / "ognidc.py").is_file():
            raise InputError(f"{name} needs its repository, which is not at {folder.parent}; {remedy}")
        if not (folder / _OMNI_DC_DAV2).is_file():
            raise InputError(f"{name} also needs {folder / _OMNI_DC_DAV2}; its README says where to download it")
        folder = folder.resolve()
        sys.path.insert(0, str(folder))
        before, arguments = Path.cwd(), sys.argv
        try:
            # Its configuration parses the command line when it is imported.
            sys.argv = [
                sys.argv[0],
                *(word for key, value in _OMNI_DC_SETTINGS.items() for word in (f"--{key}", value)),
            ]
            os.chdir(folder)
            self.settings = need("config", name, remedy).args
            kind = need("model.ognidc", name, remedy).OGNIDC
            with fetching(name, repo):
                self.model = kind.from_pretrained(repo, args=self.settings)
        finally:
            sys.argv = arguments
            os.chdir(before)
        self.model = self.model.to(self.device).eval()

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        import torch
        from torch.nn.functional import pad

        height, width = image.shape[:2]
        unit = 4 * 2 ** (int(self.settings.num_resolution) - 1)
        room = (0, -width % unit, 0, -height % unit)  # right and below, black and without points
        sparse = torch.from_numpy(_sparse_map(prompt, image))[None, None].to(self.device)
        sample = {
            "rgb": pad(_standardised(image, self.device), room),
            "dep": pad(sparse, room),
            "K": torch.eye(3, device=self.device)[None],  # asked for, not used
            "pattern": 0,
        }
        with torch.no_grad():
            depth = self.model(sample)["pred"]
        return Output(array_of(depth).reshape(depth.shape[-2:])[:height, :width])


def _standardised(image: Image, device: str) -> Any:
    """The image float32 (1, 3, H, W) with ImageNet's mean and deviation taken out."""
    import torch

    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (_MEAN, _STD))
    return ((chw(image).to(device).float() / 255 - mean) / std)[None]


def _sparse_map(prompt: SparsePrompt | None, image: Image) -> NDArray[np.float32]:
    """The prompt (H, W) in metres on the grid of the image, 0 where there is no point."""
    assert prompt is not None  # `needs_prompt`
    return np.nan_to_num(prompt.rasterise(*image.shape[:2]))
