"""`load` a model and `predict`: images in, metric depth, points and camera out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import nn

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prediction import Prediction
from metricanything.core.prompt import SparsePrompt
from metricanything.inference.depthmap import DepthMapEngine
from metricanything.inference.engine import Engine, Options, whole
from metricanything.inference.inputs import ImageInput, Prepared, check_prompt, find_camera, read_image_input
from metricanything.inference.native import NativeEngine
from metricanything.inference.pointmap import PointMapEngine
from metricanything.models.checkpoint import SUFFIXES, load_model
from metricanything.models.hub import find_weights, is_repo
from metricanything.models.registry import MODELS, ModelSpec

_ENGINES: dict[str, type[Engine]] = {
    "native": NativeEngine,
    "depthmap": DepthMapEngine,
    "pointmap": PointMapEngine,
}


def load(
    name: str | Path,
    *,
    config: dict[str, Any] | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tiles_per_pass: int | None = None,
    low_memory: bool = False,
) -> Model:
    """A model by registered name, by the path of a checkpoint (.safetensors, .pt), or by its Hugging Face Hub id.

    config: values that replace those stored in the file, nested as they are there ({"encoder": {"heads": 8}}), or that
    say what the shapes of a published layout cannot tell ({"num_heads": 4, "hook_block_ids": [1, 2, 4, 5]}).
    device: the best at hand when None. dtype: float32 when None; float16 and bfloat16 halve the memory of the weights,
    and compute in half precision on a GPU and on a processor that is clearly faster at it.
    tiles_per_pass: how many of its 35 tiles the full-size depth map looks at together; fewer need less memory (5 on a
    CPU by default, all on a GPU).
    low_memory: on a CPU, leave the weights in their .safetensors file and read every layer's when it runs: about the
    memory of the activations alone, at the price of reading the file for every image.
    Raises InputError for an unknown name, a missing or bad file, a config or an option that does not fit.
    """
    path = find_checkpoint(name)
    if low_memory and not (dtype in (None, "float32", torch.float32) and torch.device(device or "cpu").type == "cpu"):
        raise InputError("low_memory is for float32 on the CPU; leave out the device and dtype, or low_memory")
    network, spec, description = load_model(path, config, low_memory=low_memory)
    record = {"model": spec.name, "weights": path.name, **description["record"]}
    return Model(
        network, spec, record, device="cpu" if low_memory else device, dtype=dtype, tiles_per_pass=tiles_per_pass
    )


def find_checkpoint(name: str | Path) -> Path:
    """The file of a model given by name, path or Hub id; raises InputError that says where to get a missing one."""
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a model is a name or the path of a checkpoint, got {type(name).__name__}")
    path, spec = Path(name), MODELS.get(str(name))
    if spec is not None and spec.hub is not None:
        return find_weights(spec.hub.repo)
    if spec is not None:
        if not (bundled := spec.weights_path()).is_file():
            raise InputError(
                f"{name}: this version bundles no weights for it; run `metricanything quickstart` "
                f"and load runs/quickstart/models/{name}.safetensors"
            )
        return bundled
    if path.suffix in SUFFIXES or path.exists():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{name}: not a checkpoint; give a file of the kind {', '.join(SUFFIXES[:3])}")
        return path
    if isinstance(name, str) and is_repo(name):
        return find_weights(name)
    known = ", ".join(MODELS)
    raise InputError(
        f"{name}: neither a model name ({known}) nor the path of a checkpoint ({', '.join(SUFFIXES[:3])}) nor a Hub id"
    )


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
        tiles_per_pass: int | None = None,
    ) -> None:
        self.spec = spec
        self.record = record or {"model": spec.name}
        try:
            self.device = best_device() if device is None else torch.device(device)
            self.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
            self.engine = _ENGINES[spec.family](network, spec, self.record, self.device, self.dtype)
        except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"device {device} or dtype {dtype} is not available here ({reason})") from None
        if tiles_per_pass is not None:
            if not isinstance(self.engine, DepthMapEngine):
                raise InputError(f"{spec.name} has no tiles_per_pass; it is for the full-size depth map")
            if whole(tiles_per_pass, "tiles_per_pass") < 1:
                raise InputError(f"tiles_per_pass must be at least 1, got {tiles_per_pass}")
            self.engine.tiles_per_pass = tiles_per_pass

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self.engine.network  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Name of the architecture, as in the registry."""
        return self.spec.name

    @property
    def licence(self) -> str:
        """Under which terms the weights may be used."""
        return str(self.record.get("licence", self.spec.licence))

    @property
    def takes_prompt(self) -> bool:
        """Whether `predict` accepts a sparse prompt."""
        return self.spec.task == "prompted-depth"

    @overload
    def predict(
        self,
        image: list[Any],
        *,
        prompt: Any = ...,
        camera: Any = ...,
        max_side: int | None = ...,
        num_tokens: int | None = ...,
        resolution_level: int | None = ...,
        batch_size: int | None = ...,
    ) -> list[Prediction]: ...
    @overload
    def predict(
        self,
        image: ImageInput,
        *,
        prompt: SparsePrompt | None = ...,
        camera: Camera | None = ...,
        max_side: int | None = ...,
        num_tokens: int | None = ...,
        resolution_level: int | None = ...,
        batch_size: int | None = ...,
    ) -> Prediction: ...
    def predict(
        self,
        image: Any,
        *,
        prompt: Any = None,
        camera: Any = None,
        max_side: int | None = None,
        num_tokens: int | None = None,
        resolution_level: int | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """Metric depth, points, mask and camera of an image, at its own size; a list gives a list, batched.

        image: path, PIL image, uint8 (H, W, 3) array or (3, H, W) tensor. prompt: `SparsePrompt` on a grid of the same
        aspect, for the teacher. camera: of exactly this image; otherwise found by the rule given > sidecar > EXIF >
        the model's own estimate > assumed. For lists, prompt and camera are lists too (with None inside), or None.
        max_side: longer side of a compact network's input in pixels, for an image of 4:3; others get as many pixels. By
            default what the model was trained for.
        num_tokens, or resolution_level from 0 to 9: how finely a full-size point map looks; by default most finely.
        """
        single = not isinstance(image, list | tuple)
        images = [image] if single else list(image)
        prompts = _per_image([prompt] if single and prompt is not None else prompt, len(images), "prompt")
        cameras = _per_image([camera] if single and camera is not None else camera, len(images), "camera")
        options = Options(max_side, num_tokens, resolution_level)
        items = [
            self.prepare(*inputs, options=options, name=f"image {i}")
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
        options: Options | None = None,
        name: str = "image",
    ) -> Prepared:
        """Read and check one input; everything that can be wrong with it raises InputError here, before computing."""
        options = self.engine.check(options or Options())
        array, path = read_image_input(image, name)
        height, width = array.shape[:2]
        if prompt is not None:
            if not self.takes_prompt:
                raise InputError(f"{self.spec.name} takes no prompt; use compact-teacher, or leave the prompt out")
            check_prompt(prompt, height, width, str(path or name))
        found, source = find_camera(camera, path, height, width)
        return Prepared(array, prompt, found, source, self.engine.input_size(height, width, options))

    def predict_prepared(self, items: Sequence[Prepared], batch_size: int | None = None) -> list[Prediction]:
        """Predictions of prepared inputs, in order; those of one network size go through it together."""
        batch_size = self.engine.batch_size if batch_size is None else whole(batch_size, "batch_size")
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        results: dict[int, Prediction] = {}
        for group in _batches(items, batch_size):
            results.update(zip(group, self.engine.run([items[i] for i in group]), strict=True))
        return [results[i] for i in range(len(items))]


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
