"""`load` a model and `predict`: images in, metric depth, points and camera out."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prediction import Prediction
from metricanything.core.prompt import SparsePrompt
from metricanything.inference.inputs import ImageInput, Prepared, check_prompt, find_camera, read_image_input
from metricanything.inference.outputs import depth_prediction, find_view, points_prediction
from metricanything.models.checkpoint import load_model
from metricanything.models.compact.encoder import STRIDE
from metricanything.models.registry import MODELS, ModelSpec

Item = TypeVar("Item")
_OTHER_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".onnx")


def load(
    name: str | Path,
    *,
    config: dict[str, Any] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
) -> Model:
    """A model by registered name (bundled weights) or by the path of a checkpoint of this project (.safetensors).

    config: values that replace those stored in the file, nested as they are there ({"encoder": {"heads": 8}}).
    device: the best at hand when None. dtype: float32 when None. Raises InputError for an unknown name, a bad file, a
    config that does not fit, or a registered model whose weights are not bundled.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a model is a name or the path of a checkpoint, got {type(name).__name__}")
    path = Path(name)
    if str(name) in MODELS:
        path = MODELS[str(name)].weights_path()
        if not path.is_file():
            raise InputError(
                f"{name}: this version bundles no weights for it; run `metricanything quickstart` "
                f"and load runs/quickstart/models/{name}.safetensors"
            )
    elif path.suffix != ".safetensors":
        known = ", ".join(MODELS)
        if path.suffix in _OTHER_CHECKPOINTS or (isinstance(name, str) and "/" in name):
            raise InputError(
                f"{name}: this version reads only its own .safetensors checkpoints, no other layouts and no Hub ids; "
                f"give the path of one or a model name ({known})"
            )
        raise InputError(f"{name}: neither a model name ({known}) nor the path of a .safetensors checkpoint")
    network, spec, description = load_model(path, config)
    record = {"model": spec.name, "weights": path.name, **description["record"]}
    return Model(network, spec, record, device=device, dtype=dtype)


def best_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Model:
    """A network with its preprocessing: what `metricanything.load` returns."""

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        record: dict[str, Any] | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
    ) -> None:
        try:
            self.device = best_device() if device is None else torch.device(device)
            self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
            self.network = network.to(device=self.device, dtype=self.dtype).eval()
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {device} or dtype {dtype} is not available here ({reason})") from None
        self.spec = spec
        self.record = record or {"model": spec.name}

    @overload
    def predict(
        self,
        image: list[Any],
        *,
        prompt: Any = ...,
        camera: Any = ...,
        max_side: int | None = ...,
        batch_size: int = ...,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        image: ImageInput,
        *,
        prompt: SparsePrompt | None = ...,
        camera: Camera | None = ...,
        max_side: int | None = ...,
        batch_size: int = ...,
    ) -> Prediction: ...
    def predict(
        self,
        image: Any,
        *,
        prompt: Any = None,
        camera: Any = None,
        max_side: int | None = None,
        batch_size: int = 8,
    ) -> Any:
        """Metric depth, points, mask and camera of an image, at its own size; a list gives a list, batched.

        image: path, PIL image, uint8 (H, W, 3) array or (3, H, W) tensor. prompt: `SparsePrompt` on a grid of the same
        aspect, for the teacher. camera: of exactly this image; otherwise found by the rule given > sidecar > EXIF >
        the model's own estimate > assumed. For lists, prompt and camera are lists too (with None inside), or None.
        max_side: longer side of the network's input in pixels; by default what the model was trained for.
        """
        single = not isinstance(image, list | tuple)
        images = [image] if single else list(image)
        prompts = _per_image([prompt] if single and prompt is not None else prompt, len(images), "prompt")
        cameras = _per_image([camera] if single and camera is not None else camera, len(images), "camera")
        items = [
            self.prepare(*inputs, max_side=max_side, name=f"image {i}")
            for i, inputs in enumerate(zip(images, prompts, cameras, strict=True))
        ]
        results = self.predict_prepared(items, batch_size)
        return results[0] if single else results

    def prepare(
        self,
        image: ImageInput,
        prompt: SparsePrompt | None = None,
        camera: Camera | None = None,
        *,
        max_side: int | None = None,
        name: str = "image",
    ) -> Prepared:
        """Read and check one input; everything that can be wrong with it raises InputError here, before computing."""
        array, path = read_image_input(image, name)
        height, width = array.shape[:2]
        if prompt is not None:
            if self.spec.task != "prompted-depth":
                raise InputError(f"{self.spec.name} takes no prompt; use compact-teacher, or leave the prompt out")
            check_prompt(prompt, height, width, str(path or name))
        found, source = find_camera(camera, path, height, width)
        return Prepared(array, prompt, found, source, network_size(height, width, self._side(max_side)))

    def predict_prepared(self, items: Sequence[Prepared], batch_size: int = 8) -> list[Prediction]:
        """Predictions of prepared inputs, in order; those of one network size go through it together."""
        if _whole(batch_size, "batch_size") < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        results: dict[int, Prediction] = {}
        for group in _batches(items, batch_size):
            results.update(zip(group, self._run([items[i] for i in group]), strict=True))
        return [results[i] for i in range(len(items))]

    def _side(self, max_side: int | None) -> int:
        default = self.record.get("input_side", self.spec.max_side)
        side = int(default) if max_side is None else _whole(max_side, "max_side")
        if not STRIDE <= side <= 4096:
            raise InputError(f"max_side must lie between {STRIDE} and 4096 pixels, got {side}")
        return side

    @torch.inference_mode()
    def _run(self, items: list[Prepared]) -> list[Prediction]:
        height, width = items[0].size
        tensors = [torch.from_numpy(_resize(item.image, height, width)).permute(2, 0, 1) for item in items]
        image_B3HW = (
            torch.stack(tensors).to(self.device, self.dtype).div(255).contiguous(memory_format=torch.channels_last)
        )
        if self.spec.task == "points":
            output = self.network(image_B3HW)
            points, logit, log_scale = output.points_B3HW, output.mask_logit_B1HW, output.log_scale_B
            return [
                points_prediction(
                    item, points[i].float().cpu(), logit[i].float().cpu(), float(log_scale[i]), self.record
                )
                for i, item in enumerate(items)
            ]
        views = [find_view(item) for item in items]
        focal_B = torch.tensor([view.camera.fx / view.camera.width for view in views])
        if any(item.prompt is not None for item in items):
            prompt_B1HW = torch.stack(
                [_prompt_map(item, f, height, width) for item, f in zip(items, focal_B, strict=True)]
            )
            output = self.network(image_B3HW, prompt_B1HW.to(self.device))
        else:
            output = self.network(image_B3HW)
        log_c, logit = output.log_c_B1HW.float().cpu(), output.mask_logit_B1HW.float().cpu()
        return [
            depth_prediction(item, view, log_c[i], logit[i], float(focal_B[i]), self.record)
            for i, (item, view) in enumerate(zip(items, views, strict=True))
        ]


def network_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Input size (height, width) in multiples of 32 with the longer side near `side`, closest to the image's aspect."""
    long, short = max(height, width), min(height, width)
    top = max(round(side / STRIDE), 1)
    candidates = []
    for units in range(max(top - 2, 1), top + 1):
        other = max(round(units * short / long), 1)
        candidates.append((abs(math.log(units / other * short / long)) + 0.01 * (top - units), units, other))
    _, units, other = min(candidates)
    size = (units * STRIDE, other * STRIDE)
    return size if height >= width else (size[1], size[0])


def _whole(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} must be a whole number, got {value!r}") from None


def _per_image(value: Any, count: int, what: str) -> list[Any]:
    if value is None:
        return [None] * count
    if not isinstance(value, Sequence) or len(value) != count:
        given = len(value) if isinstance(value, Sequence) else "one"
        raise InputError(
            f"{count} images need a list of {count} {what}s (with None inside where there is none), got {given}"
        )
    return list(value)


def _batches(items: Sequence[Prepared], batch_size: int) -> list[list[int]]:
    """Indices of items of one network size, at most `batch_size` together."""
    sizes: dict[tuple[int, int], list[int]] = {}
    for index, item in enumerate(items):
        sizes.setdefault(item.size, []).append(index)
    return [group[i : i + batch_size] for group in sizes.values() for i in range(0, len(group), batch_size)]


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _prompt_map(item: Prepared, focal: Tensor, height: int, width: int) -> Tensor:
    """Canonical inverse depth of the prompt (1, H, W), 0 where there is no point."""
    if item.prompt is None:
        return torch.zeros(1, height, width)
    depth = torch.from_numpy(item.prompt.rasterise(height, width))[None]
    return torch.nan_to_num(focal / depth, nan=0.0)
