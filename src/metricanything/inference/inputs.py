"""What a user hands to a model: images in any form, cameras by one rule of priority, prompt files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.files import read_json
from metricanything.core.geometry import pixel_index
from metricanything.core.prediction import CameraSource
from metricanything.core.prompt import SparsePrompt, Unit
from metricanything.sources.common import camera_from_record, read_record, same_aspect

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as PILImage

    ImageInput = str | Path | PILImage | NDArray[np.uint8] | torch.Tensor
else:
    ImageInput = Any

_PER_METRE: dict[str, float] = {"m": 1, "cm": 100, "mm": 1000}


@dataclass(frozen=True)
class Prepared:
    """One image, read and checked, on its way through the network."""

    image: NDArray[np.uint8]
    prompt: SparsePrompt | None
    camera: Camera | None
    source: CameraSource | None
    size: tuple[int, int]


def read_image_input(image: ImageInput, name: str = "image") -> tuple[NDArray[np.uint8], Path | None]:
    """uint8 (H, W, 3) of a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W); and its path if it has one.

    Float tensors and arrays are taken as 0..1. Raises InputError for anything else.
    """
    if isinstance(image, str | Path):
        return codecs.read_image(image), Path(image)
    if hasattr(image, "convert"):
        return _read_pil(image, name), None
    if hasattr(image, "detach"):  # a tensor; numpy knows no bfloat16
        image = image.detach().cpu()
        image = image.float().numpy() if image.is_floating_point() else image.numpy()
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] != 3 and array.shape[0] == 3:
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(f"{name}: an image must be (H, W, 3) or a (3, H, W) tensor, got shape {array.shape}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError(f"{name}: a float image must lie in 0..1; divide by 255 or pass uint8")
        array = (array * 255 + 0.5).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"{name}: an image must be uint8 or float in 0..1, got {array.dtype}")
    return np.require(array, requirements=["C", "W"]), None  # torch takes no other, or warns


def _read_pil(image: Any, name: str) -> NDArray[np.uint8]:
    """Upright uint8 (H, W, 3), as `read_image` gives for its file; Pillow may decode the file only now."""
    from PIL import ImageOps

    if image.mode.startswith(("I", "F")):
        raise InputError(f"{name}: a PIL image of mode {image.mode} has no 8-bit colours; give its path, or convert it")
    with reading(name, "image"):
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def find_camera(
    given: Camera | None, path: Path | None, height: int, width: int
) -> tuple[Camera | None, CameraSource | None]:
    """The camera of an image by the one rule: given, then the sidecar `STEM.json`, then EXIF; else (None, None).

    Raises InputError when a given camera or a sidecar is for another image size or malformed.
    """
    if given is not None:
        if not isinstance(given, Camera):
            raise InputError(f"{path or 'image'}: the camera must be a Camera, got {type(given).__name__}")
        if (given.height, given.width) != (height, width):
            raise InputError(
                f"{path or 'image'}: the camera is for {given.width}x{given.height} pixels but the image has "
                f"{width}x{height}; use camera.resize({width}, {height}) if it shows the same view"
            )
        return given, "given"
    if path is None:
        return None, None
    sidecar = path.with_suffix(".json")
    if sidecar.is_file() and _states_camera(record := read_json(sidecar)):
        camera = camera_from_record(record, width, height, sidecar)
        if camera is not None:
            return camera, "sidecar"
    focal = codecs.exif_focal_px(path)
    if focal is not None:
        return Camera.centred(focal, width, height), "exif"
    return None, None


def _states_camera(record: Any) -> bool:
    """Whether a JSON file beside an image is meant as its camera; other tools write other things there."""
    forms = ({"cam_in"}, {"fx", "fy", "cx", "cy"}, {"model", "params"})
    return isinstance(record, dict) and any(form <= set(record) for form in forms)


def read_camera(path: str | Path, height: int, width: int) -> Camera:
    """The camera in a JSON file: `Camera.to_dict()`, {fx, fy, cx, cy}, or {cam_in: [fx, fy, cx, cy]}."""
    path = Path(path)
    camera = camera_from_record(read_record(path), width, height, path)
    if camera is None:
        raise InputError(f'{path}: states no camera; write {{"cam_in": [fx, fy, cx, cy]}} in pixels of the image')
    return camera


def read_prompt(
    path: str | Path,
    size: tuple[int, int],
    camera: Camera | None = None,
    *,
    scale: float | None = None,
    unit: Unit | None = None,
) -> SparsePrompt:
    """A prompt file: a depth map (.png .npy .exr .pfm), pixels (.csv with u,v,depth), or points (.ply).

    All hold metres unless `unit` says otherwise; depth maps may instead hold `scale` values per metre, which 16-bit
    PNGs state themselves or need. Pixels are those of the image of `size` (height, width). Points of a .ply are in the
    camera frame, and need the camera. Raises InputError naming the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if unit is not None and scale is not None:
            raise InputError("scale and unit both say what the values are; give one of them")
        if scale is not None and suffix in (".csv", ".ply"):
            raise InputError("values per metre (a scale) are for depth maps; state the unit (m, cm or mm) instead")
        if suffix == ".csv":
            return _read_csv(path, size, unit)
        if suffix == ".ply":
            if camera is None:
                raise InputError("a point cloud needs the camera it is seen by; give --camera")
            return SparsePrompt.from_points(codecs.read_ply(path)[0], camera, unit=unit)
        if unit is not None:
            if unit not in _PER_METRE:
                raise InputError(f"unit {unit!r} is unknown; use m, cm or mm")
            scale = _PER_METRE[unit]
        # A PNG is read only with a scale, its own or a given one. What is in metres by statement is not doubted.
        stated = scale is not None or suffix == ".png"
        return SparsePrompt.from_depth(codecs.read_depth(path, scale), unit="m" if stated else None)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path}: {error}") from None


def _read_csv(path: Path, size: tuple[int, int], unit: Unit | None) -> SparsePrompt:
    """Lines of u,v,depth, below a header that names these columns (among others) or none; # starts a comment."""
    wanted = "write lines of u,v,depth (pixels, pixels, metres)"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as text ({error}); {wanted}") from None
    lines = [line for line in text.splitlines() if line.split("#")[0].strip()]
    columns = None
    names = [name.strip().strip('"').lower() for name in lines[0].split(",")] if lines else []
    if {"u", "v", "depth"} <= set(names):
        columns = [names.index(name) for name in ("u", "v", "depth")]
        lines = lines[1:]
    elif lines and len(names) != 3:
        raise InputError(f"has {len(names)} columns; {wanted}")
    if not lines:
        raise InputError(f"holds no points; {wanted}")
    try:
        table = np.loadtxt(lines, delimiter=",", comments="#", usecols=columns, ndmin=2, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"cannot be read as numbers ({error}); {wanted}") from None
    return SparsePrompt.from_pixels(table[:, :2], table[:, 2], size, unit=unit)


def check_prompt(prompt: SparsePrompt, height: int, width: int, name: str) -> None:
    """Raise InputError unless this is a prompt with points, all on its grid, and the grid shows the image's view."""
    if not isinstance(prompt, SparsePrompt):
        raise InputError(
            f"{name}: the prompt must be a SparsePrompt, got {type(prompt).__name__}; make one with "
            "SparsePrompt.from_depth, from_points or from_pixels"
        )
    if len(prompt) == 0:
        raise InputError(f"{name}: the prompt is empty; pass prompt=None to predict without one")
    if not same_aspect(prompt.width, prompt.height, width, height):
        raise InputError(
            f"{name}: the prompt's grid is {prompt.width}x{prompt.height} but the image has {width}x{height}, "
            "another aspect ratio; crop or pad one so that both show the same view"
        )
    outside = int((~pixel_index(prompt.uv, prompt.height, prompt.width)[1]).sum())
    if outside:
        raise InputError(f"{name}: {outside} of {len(prompt)} prompt points lie outside the prompt's grid; drop them")
