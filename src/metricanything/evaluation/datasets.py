"""Data to evaluate on, with random access: shards, folders, OMNI-DC samples, Marigold-DC folders and mattes.

A data set is a list of names and a way to load one. Frames may bring their own prompt, segments and matte. Which of the
forms a folder has is told from what lies in it: `index.arrow` (shards), `rgb/` and `gt/` (Marigold-DC), images beside
mattes and no depth (`MATTES`), `.npy` files alone (OMNI-DC), else the readers' `folder` layouts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.errors import InputError, MissingScale
from metricanything.core.files import read_json
from metricanything.core.frame import Frame
from metricanything.evaluation.beside import read_matte, read_segments
from metricanything.evaluation.safe_npy import read_npy_dict

Map = NDArray[np.float32]
_IMAGES = (".png", ".jpg", ".jpeg")
_PROMPTS = (".png", ".npy", ".npz", ".exr", ".pfm")


#: Folders of images and of their mattes, as in this project, AM-2k, P3M-10k and DIS5K.
MATTES = (("images", "alpha"), ("original", "mask"), ("original_image", "mask"), ("im", "gt"))


@dataclass(frozen=True)
class Item:
    """A frame, and what reads the rest that it has, each (H, W) or None where it has none.

    prompt: its own, float32 metres, NaN without a point. segments: int32, a number for each object, 0 for none.
    matte: float32, share of foreground 0..1.
    """

    frame: Frame
    prompt: Callable[[], Map | None] = lambda: None
    segments: Callable[[], NDArray[np.int32] | None] = lambda: None
    matte: Callable[[], Map | None] = lambda: None


@dataclass(frozen=True)
class Dataset:
    """Names of frames, in order and unique, and `load(number)`, which raises InputError for a bad frame."""

    name: str
    format: str
    names: tuple[str, ...]
    load: Callable[[int], Item]

    def __len__(self) -> int:
        return len(self.names)

    def record(self, split: str) -> dict[str, Any]:
        """What was measured on: name, format, split as the user states it, number of frames, hash of their names."""
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        return {"name": self.name, "format": self.format, "split": split, "frames": len(self), "names_sha256": digest}


def open_data(path: str | Path, *, depth_scale: float | None = None, fov_x: float | None = None) -> Dataset:
    """The data set in a folder. `depth_scale` and `fov_x` are those of the `folder` reader.

    Raises InputError for a missing folder and one without frames.
    """
    path = Path(path)
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise InputError(f"{path}: {problem}; --data is a folder: shards, images with depth, .npy samples")
    name = path.resolve().name
    if (path / "index.arrow").is_file():
        return _shards(path, name)
    if (path / "gt").is_dir() and (path / "rgb").is_dir():
        return _marigold_dc(path, name)
    for images, mattes in MATTES:
        if (path / images).is_dir() and (path / mattes).is_dir() and not (path / "depth").is_dir():
            return _mattes(path, name, images, mattes)
    files = sorted(path.glob("*.npy"))
    if files and not any(p.is_dir() for p in path.iterdir()):
        return Dataset(name, "omni_dc", tuple(f.stem for f in files), lambda i: _omni_dc_sample(files[i], name))
    return _folder(path, name, depth_scale, fov_x)


def _shards(path: Path, name: str) -> Dataset:
    from metricanything.curate.shards import Shards

    shards = Shards(path)
    names = [f"{number:06d}" for number in range(len(shards))]

    def load(number: int) -> Item:
        frame = shards.frame(number)  # names are unique within a source alone
        return Item(replace(frame, name=f"{names[number]}/{frame.source}/{frame.name}"))

    return Dataset(name, "shards", tuple(names), load)


def _folder(path: Path, name: str, depth_scale: float | None, fov_x: float | None) -> Dataset:
    from metricanything.sources.folder import listing

    items = listing(path, depth_scale=depth_scale, fov_x=fov_x)

    def load(number: int) -> Item:
        try:
            frame = items[number][1]()
        except InputError as error:  # the reader names the options of `metricanything ingest`
            text = str(error).replace("--option fov_x=DEGREES", "--fov-x DEGREES")
            raise InputError(text.replace("--option depth_scale=1000", "--depth-scale 1000")) from None
        return Item(
            frame,
            lambda: _prompt_beside(path, frame, depth_scale),
            lambda: read_segments(_beside(path, frame.name, "segmentation", "segmentations"), frame),
            lambda: read_matte(_beside(path, frame.name, "alpha", "alpha"), frame),
        )

    return Dataset(name, "folder", tuple(item for item, _ in items), load)


def _prompt_beside(root: Path, frame: Frame, depth_scale: float | None) -> Map | None:
    """FRAME/prompt.* or prompts/NAME.*: a sparse depth map of the image, or of a coarser grid that shows the same.

    Its scale is `depth_scale`, else that in the file, else `prompt_scale` or `depth_scale` of the frame's meta.json or
    of dataset.json.
    """
    for stem in (root / frame.name / "prompt", root / "prompts" / frame.name):
        for suffix in _PROMPTS:
            if (file := stem.parent / f"{stem.name}{suffix}").is_file():
                try:
                    sparse = read_depth(file, depth_scale)
                except MissingScale:
                    sparse = read_depth(file, _stated_scale(root, frame))
                return _on_grid(sparse, frame.height, frame.width, file)
    return None


def _beside(root: Path, name: str, stem: str, folder: str) -> Path:
    """FRAME/STEM.png, or FOLDER/FRAME.png."""
    inside = root / name / f"{stem}.png"
    return inside if inside.is_file() else root / folder / f"{name}.png"


def _stated_scale(root: Path, frame: Frame) -> float | None:
    from metricanything.sources.common import read_dataset_record

    meta = root / frame.name / "meta.json"
    record = {**read_dataset_record(root), **(read_json(meta) if meta.is_file() else {})}
    scale = record.get("prompt_scale", record.get("depth_scale"))
    return float(scale) if isinstance(scale, int | float) else None


def _on_grid(sparse: Map, height: int, width: int, where: Path) -> Map:
    from metricanything.core.prompt import SparsePrompt
    from metricanything.sources.common import same_aspect

    if not same_aspect(width, height, sparse.shape[1], sparse.shape[0]):
        raise InputError(f"{where}: the prompt has another aspect ratio than the image; give one of the same view")
    return SparsePrompt.from_depth(sparse, unit="m").rasterise(height, width)


# ---------------------------------------------------------------- other projects' layouts


def _mattes(path: Path, name: str, images: str, mattes: str) -> Dataset:
    """IMAGES/NAME.jpg with MATTES/NAME.png; no depth, no cameras."""
    files = {file.stem: file for suffix in _IMAGES for file in sorted((path / images).glob(f"*{suffix}"))}
    names = tuple(sorted(files))
    if not names:
        raise InputError(f"{path / images}: holds no image ({', '.join(_IMAGES)}); give images/NAME.jpg")

    def load(number: int) -> Item:
        image = read_image(files[names[number]])
        frame = _frame(names[number], name, image, np.zeros(image.shape[:2], np.float32), None)
        file = path / mattes / f"{names[number]}.png"
        if not file.is_file():
            raise InputError(f"{file}: no such matte; add it, or take its image out")
        return Item(frame, matte=lambda: read_matte(file, frame))

    return Dataset(name, "mattes", names, load)


def _frame(name: str, source: str, image: Any, gt: Any, camera: Camera | None) -> Frame:
    depth = _metres(gt)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or depth.shape != image.shape[:2]:
        raise InputError(f"image {image.dtype} {image.shape} and depth {depth.shape} do not fit; give one size")
    height, width = depth.shape
    notes = {"camera_source": "given" if camera else "assumed"}
    camera = camera or Camera.centred(width, width, height)
    return Frame(name, image, depth, camera, "captured", "rgbd", source, "that of the data", notes=notes)


def _metres(values: Any) -> Map:
    """float32 (H, W), NaN where the file has 0, a negative number or no number."""
    depth = np.asarray(values, dtype=np.float32).squeeze()
    with np.errstate(invalid="ignore"):
        return np.where(depth > 0, depth, np.float32(np.nan))


def _omni_dc_sample(file: Path, source: str) -> Item:
    """{rgb uint8 (H, W, 3), dep, gt (H, W) metres with 0 = unknown, K (3, 3) or (fx, fy, cx, cy)}."""
    sample = read_npy_dict(file)
    try:
        gt, dep, rgb = sample["gt"], sample["dep"], np.ascontiguousarray(sample["rgb"])
        height, width = rgb.shape[:2]
        k = sample.get("K")
        k = None if k is None else np.asarray(k, dtype=float)
        fx, fy, cx, cy = k.ravel() if k is not None and k.size == 4 else _of_matrix(k)
        # K counts pixel centres from 0, as OpenCV does.
        camera = None if k is None else Camera.pinhole(fx, fy, cx + 0.5, cy + 0.5, width, height)
        return Item(_frame(file.stem, source, rgb, gt, camera), lambda: _metres(dep))
    except KeyError as error:
        raise InputError(f"{file}: has no {error}; OMNI-DC samples hold rgb, dep, gt and K") from None
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{file}: {str(error).splitlines()[0]}; write the sample again") from None


def _of_matrix(k: Any) -> tuple[float, float, float, float]:
    return (0.0, 0.0, 0.0, 0.0) if k is None else (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))


def _marigold_dc(path: Path, name: str) -> Dataset:
    """rgb/STEM.png, sparse/STEM.npy, gt/STEM.npy; metres, 0 = unknown; no cameras."""
    stems = sorted(p.stem for p in (path / "gt").glob("*.npy"))
    if not stems:
        raise InputError(f"{path / 'gt'}: holds no .npy file; expected rgb/STEM.png, sparse/STEM.npy, gt/STEM.npy")

    def load(number: int) -> Item:
        stem = stems[number]
        image = next((f for s in _IMAGES if (f := path / "rgb" / f"{stem}{s}").is_file()), None)
        if image is None:
            raise InputError(f"{path / 'rgb' / stem}: no image of this name ({', '.join(_IMAGES)}); add it")
        sparse = path / "sparse" / f"{stem}.npy"
        try:
            frame = _frame(stem, name, read_image(image), _array(path / "gt" / f"{stem}.npy"), None)
        except InputError as error:
            raise InputError(str(error) if str(path) in str(error) else f"{path / 'gt' / stem}.npy: {error}") from None
        return Item(frame, lambda: _metres(_array(sparse)) if sparse.is_file() else None)

    return Dataset(name, "marigold_dc", tuple(stems), load)


def _array(file: Path) -> Any:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a plain .npy array ({str(error).splitlines()[0]}); write it again") from None
