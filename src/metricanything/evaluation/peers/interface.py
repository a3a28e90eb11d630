"""What the evaluation asks of any model, ours or others', and what all adapters share."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.geometry import depth_to_points
from metricanything.core.prediction import CameraSource, Prediction
from metricanything.core.prompt import SparsePrompt
from metricanything.inference.inputs import check_prompt, find_camera, read_image_input

Image = NDArray[np.uint8]
Scale = Literal["metric", "up_to_scale", "affine"]


class Peer(Protocol):
    """A model under test. What `metricanything.load` returns is one, and so is every adapter here."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def licence(self) -> str:
        """Under which terms its code and weights may be used, in a few words."""

    @property
    def takes_prompt(self) -> bool:
        """Whether it can use a sparse prompt; one that cannot refuses it (InputError)."""

    def predict(self, image: Image, *, prompt: SparsePrompt | None = None, camera: Camera | None = None) -> Prediction:
        """Depth float32 (H, W) in metres, points, mask and camera of an image uint8 (H, W, 3).

        `record["scale"]` of the result, where it is there, is not "metric" for models that know depth only up to
        scale or affinely. Raises InputError for an input the model cannot use.
        """


@dataclass
class Output:
    """What a peer says of an image, before it is a `Prediction`: arrays of the size of the image."""

    depth: NDArray[np.float32]
    """z-depth (H, W) in metres; what is not positive is unknown, inf is sky."""
    mask: NDArray[np.bool_] | None = None
    points: NDArray[np.float32] | None = None
    """(H, W, 3) metres in the camera frame, where the model states them itself."""
    camera: Camera | None = None
    """The camera that the model estimates."""
    normals: NDArray[np.float32] | None = None
    scale: Scale = "metric"
    aligned_in: Literal["depth", "disparity"] = "depth"
    """Which quantity is affine to the truth, where `scale` is "affine"."""
    notes: list[str] = field(default_factory=list)


class Adapter(ABC):
    """Another project's model behind the interface of `Peer`: inputs checked, outputs in this project's conventions."""

    takes_prompt = False
    needs_prompt = False

    def __init__(self, name: str, licence: str, source: str, device: str | None = None) -> None:
        self.name, self.licence, self.source = name, licence, source
        self.device = device or _best_device()

    def predict(self, image: Image, *, prompt: SparsePrompt | None = None, camera: Camera | None = None) -> Prediction:
        """See `Peer.predict`. The camera is the given one, else the model's, else assumed (focal length = width)."""
        array, _ = read_image_input(image)
        height, width = array.shape[:2]
        find_camera(camera, None, height, width)  # raises for a camera of another size
        if prompt is None and self.needs_prompt:
            raise InputError(f"{self.name} completes a sparse prompt and has none here; give one")
        if prompt is not None:
            if not self.takes_prompt:
                raise InputError(f"{self.name} takes no prompt; leave it out")
            check_prompt(prompt, height, width, self.name)
        output = self.run(array, prompt, camera)
        if output.depth.shape != (height, width):
            raise InputError(f"{self.name}: returned depth of shape {output.depth.shape} for a {width}x{height} image")
        return self._prediction(array, prompt, camera, output)

    @abstractmethod
    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        """Run the model; inputs are checked."""

    def _prediction(
        self, image: Image, prompt: SparsePrompt | None, given: Camera | None, output: Output
    ) -> Prediction:
        camera, source = self._camera(image, given, output.camera)
        with np.errstate(invalid="ignore"):
            depth = np.where(output.depth > 0, output.depth, np.nan).astype(np.float32)
        points = depth_to_points(depth, camera) if output.points is None else output.points.astype(np.float32)
        mask = np.isfinite(depth) & np.isfinite(points).all(axis=-1)
        record: dict[str, Any] = {
            "model": {"model": self.name, "weights": self.source, "licence": self.licence},
            "scale": output.scale,
            "prompt_points": 0 if prompt is None else len(prompt),
            "warnings": output.notes,
        }
        if output.scale == "affine":
            record["aligned_in"] = output.aligned_in
        mask &= True if output.mask is None else output.mask
        return Prediction(depth, points, mask, camera, source, image, normals=output.normals, record=record)

    def _camera(self, image: Image, given: Camera | None, estimated: Camera | None) -> tuple[Camera, CameraSource]:
        if given is not None:
            return given, "given"
        if estimated is not None:
            return estimated, "model"
        height, width = image.shape[:2]
        warnings.warn(f"{self.name}: no camera given; assuming a field of view of 53 degrees", stacklevel=4)
        return Camera.centred(width, width, height), "assumed"

    def pinhole(self, camera: Camera) -> Camera:
        """The camera, which has to be a pinhole; raises InputError for others, which the model knows nothing of."""
        if camera.model != "pinhole":
            raise InputError(f"{self.name} takes pinhole cameras only, got {camera.model}; undistort the image first")
        return camera


def positive(values: NDArray[Any]) -> NDArray[np.float32]:
    """Affine values, shifted to be positive where they are not: what is known up to a shift stays what it is.

    The smallest becomes a thousandth of the range, so that its inverse stays finite.
    """
    known = np.isfinite(values)
    if not known.any():
        return np.full(values.shape, np.nan, dtype=np.float32)
    low, high = float(values[known].min()), float(values[known].max())
    shift = max(0.0, 1e-3 * max(high - low, 1e-6) - low)
    return (values + shift).astype(np.float32)


def need(module: str, peer: str, remedy: str) -> ModuleType:
    """The module, imported now; raises InputError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{peer} needs the package {module.split('.')[0]!r} ({reason}); {remedy}") from None


@contextmanager
def fetching(peer: str, source: str) -> Iterator[None]:
    """Turns what libraries raise when weights are not there or cannot be fetched into one line (InputError)."""
    try:
        yield
    except (OSError, ValueError) as error:  # errors of the Hub and of the network are OSErrors
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{peer}: {source} cannot be loaded ({reason}); check the name and the network") from None


def array_of(value: Any) -> NDArray[np.float32]:
    """A tensor of any device and precision, or an array, as float32."""
    if hasattr(value, "detach"):
        value = value.detach().float().cpu().numpy()
    return np.asarray(value, dtype=np.float32)


def chw(image: Image) -> Any:
    """The image as a tensor uint8 (3, H, W)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))


def normalised_intrinsics(camera: Camera) -> NDArray[np.float32]:
    """K (3, 3) with the image spanning 0..1 both ways, as MoGe has it."""
    fx, fy, cx, cy = camera.params[:4]
    w, h = camera.width, camera.height
    return np.array([[fx / w, 0, cx / w], [0, fy / h, cy / h], [0, 0, 1]], dtype=np.float32)


def camera_of(intrinsics: Any, width: int, height: int, *, normalised: bool) -> Camera:
    """The pinhole camera of K ([1,] 3, 3), in pixels or normalised by the size of the image."""
    k = array_of(intrinsics).reshape(3, 3).astype(np.float64)
    sx, sy = (width, height) if normalised else (1, 1)
    return Camera.pinhole(k[0, 0] * sx, k[1, 1] * sy, k[0, 2] * sx, k[1, 2] * sy, width, height)


def _best_device() -> str:
    from metricanything.inference.predictor import best_device

    return str(best_device())
