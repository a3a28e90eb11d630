"""Models of the transformers library: Depth Pro, Depth Anything V2, Prompt Depth Anything, ZoeDepth, by their Hub id.

Run with transformers 5.23 and small random weights of all four (classes, processors and units), not with the
published weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.peers.interface import Adapter, Image, Output, array_of, fetching, need, positive
from metricanything.inference.baselines import nearest

REMEDY = "install it with `pip install 'metricanything[peers]'`"
_KINDS = ("depth_pro", "depth_anything", "prompt_depth_anything", "zoedepth")
_PROMPT_SIDE = 256  # pixels: the longer side of the phone's depth map that Prompt Depth Anything was trained with


class TransformersPeer(Adapter):
    """A depth model of transformers, with the processor that belongs to it.

    Depth Pro states metres for the field of view it estimates; for a given camera they are multiplied by the ratio of
    the focal lengths, which its definition of depth makes exact. Depth Anything is metric where its configuration says
    so, and else disparity up to scale and shift. Prompt Depth Anything needs a prompt, which it wants without holes:
    a sparse one is filled by the nearest point on a grid of 256 pixels.
    Raises InputError when the library, the weights or a processor is missing, or the model is of another kind.
    """

    def __init__(self, name: str, licence: str, repo: str, device: str | None = None) -> None:
        super().__init__(name, licence, repo, device)
        transformers = need("transformers", name, REMEDY)
        try:
            with fetching(name, repo):
                processor = transformers.AutoImageProcessor.from_pretrained(repo)
                model = transformers.AutoModelForDepthEstimation.from_pretrained(repo)
        except ImportError as error:
            reason = " ".join(str(error).split())[:160]
            raise InputError(f"{name} needs more than transformers itself ({reason}); {REMEDY}") from None
        self.kind = str(model.config.model_type)
        if self.kind not in _KINDS:
            raise InputError(
                f"{name}: a model of kind {self.kind!r} has no adapter; there is one for {', '.join(_KINDS)}"
            )
        if self.kind == "zoedepth":  # its processor loads without, and fails when it is used
            need("torchvision", name, REMEDY)
        self.takes_prompt = self.needs_prompt = self.kind == "prompt_depth_anything"
        self.model, self.processor = model.to(self.device).eval(), processor

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        import torch
        from PIL import Image as Pillow

        more: dict[str, Any] = {}
        if prompt is not None:
            more = {"prompt_depth": _dense_prompt(prompt), "prompt_scale_to_meter": 1.0}
        inputs = self.processor(images=Pillow.fromarray(image), return_tensors="pt", **more).to(self.device)
        size = image.shape[:2]
        sizes = {"source_sizes": [size]} if self.kind == "zoedepth" else {}
        with torch.no_grad():
            raw = self.model(**inputs)
            said = self.processor.post_process_depth_estimation(raw, target_sizes=[size], **sizes)[0]
        depth = array_of(said["predicted_depth"])
        if self.kind == "depth_pro":
            return _depth_pro(depth, said.get("focal_length"), camera)
        if self.kind == "depth_anything" and self.model.config.depth_estimation_type == "relative":
            return Output(np.float32(1) / positive(depth), scale="affine", aligned_in="disparity")
        return Output(depth)


def _depth_pro(depth: NDArray[np.float32], focal: Any, camera: Camera | None) -> Output:
    """D = focal / (W C) for the given focal length, else the model's own, else one width."""
    height, width = depth.shape
    own = None if focal is None else float(focal)
    if camera is not None:
        depth = depth * np.float32(camera.fx / (width if own is None else own))
    return Output(depth, camera=None if own is None else Camera.centred(own, width, height))


def _dense_prompt(prompt: SparsePrompt) -> NDArray[np.float32]:
    """Prompt depth (h, w) in metres without holes, its longer side at most 256 pixels."""
    factor = min(1.0, _PROMPT_SIDE / max(prompt.height, prompt.width))
    height, width = max(round(prompt.height * factor), 1), max(round(prompt.width * factor), 1)
    grid = prompt.rasterise(height, width)
    if np.isfinite(grid).all():
        return grid
    scale = np.array([width / prompt.width, height / prompt.height])
    return np.where(np.isfinite(grid), grid, nearest(prompt.uv * scale, prompt.depth, height, width))
