"""Images with depth maps and cameras in plain folders.

Two layouts; the first is recognised by a file `meta.json` anywhere below the given folder.

    FRAME/image.jpg depth.png meta.json         any number of levels above FRAME (SPLIT/SOURCE/FRAME, say)
    images/NAME.jpg depth/NAME.png|npy|npz|exr|pfm
        cameras/NAME.json, or images/NAME.json, or one camera.json for all; dataset.json

`meta.json` and the camera files hold the camera (see `camera_from_record`) and may hold `depth_scale` (stored values
per metre), `sensor`, `kind`, `scale`, `source`, `licence`, `camera_source` and `world_from_cam` (4x4); `dataset.json`
holds the same for the whole folder. A frame's own record goes before `dataset.json`. Depth is z-depth; float files are
metres unless a scale is stated; a 16-bit PNG must state its unit there, in itself or by the option `depth_scale`
(`--option depth_scale=1000` on the command line).
Pixel centres: the first is at (0.5, 0.5), which is ours, unless the record says `"pixel_centre": 0`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.errors import InputError, MissingScale
from metricanything.core.frame import Frame
from metricanything.sources.common import (
    IMAGE_SUFFIXES,
    Items,
    camera_from_record,
    files_below,
    list_images,
    place_depth,
    read_dataset_record,
    read_record,
    require_file,
)

_EXPECTED = "FRAME/{image.jpg,depth.png,meta.json}, or images/NAME.jpg with depth/NAME.png|npy|npz|exr|pfm"
_DEPTH_SUFFIXES = (".png", ".npy", ".npz", ".exr", ".pfm")
_KIND_OF_SENSOR = {"sfm": "reconstructed", "slam": "reconstructed", "mvs": "reconstructed", "synthetic": "rendered"}


@dataclass(frozen=True)
class _Defaults:
    """What holds for the whole folder: `dataset.json` and the options of `items`."""

    record: dict[str, Any]
    source: str
    depth_scale: float | None
    fov_x: float | None


@dataclass(frozen=True)
class _Stem:
    """A name (relative, without suffix) of the second layout with the image and depth files that bear it."""

    name: str
    images: list[Path]
    depths: list[Path]


def items(path: Path, *, depth_scale: float | None = None, fov_x: float | None = None) -> Items:
    """Frames of a folder in one of the two layouts above, sorted by name.

    A depth map with fewer pixels than its image but the same aspect ratio (a ToF sensor's grid) is placed at the image
    pixels that hold its pixel centres and never interpolated; another aspect ratio is an error. `depth_scale` (stored
    values per metre) overrides the files. Images without a camera are refused unless `fov_x` (degrees) gives an assumed
    one; `notes["camera_source"]` then says "assumed". Raises InputError (see `Items`).
    """
    found = listing(path, depth_scale=depth_scale, fov_x=fov_x)
    return Items(found, lambda item: item[1](), path=Path(path), expected=_EXPECTED)


def listing(
    path: Path, *, depth_scale: float | None = None, fov_x: float | None = None
) -> list[tuple[str, Callable[[], Frame]]]:
    """Names of the frames that `items` gives, sorted, each with the function that loads it; options as there.

    Raises InputError for a bad option; the functions raise it for a bad frame.
    """
    if depth_scale is not None and not (math.isfinite(depth_scale) and depth_scale > 0):
        raise InputError(f"source folder: depth_scale must be a positive number of values per metre, got {depth_scale}")
    if fov_x is not None and not 0 < fov_x < 180:
        raise InputError(f"source folder: fov_x must lie between 0 and 180 degrees, got {fov_x}")
    path = Path(path)
    defaults = _Defaults(read_dataset_record(path), path.resolve().name, depth_scale, fov_x)
    if metas := [p for p in files_below(path) if p.name == "meta.json"]:
        return [(_name_of(path, meta), partial(_load_frame_folder, path, defaults, meta)) for meta in metas]
    return [(stem.name, partial(_load_stem, path, defaults, stem)) for stem in _stems(path)]


# ---------------------------------------------------------------- the two layouts


def _load_frame_folder(root: Path, defaults: _Defaults, meta: Path) -> Frame:
    folder = meta.parent
    record = {**defaults.record, **read_record(meta)}
    image = folder / str(record.get("image", "image.jpg"))
    depth = folder / str(record.get("depth", "depth.png"))
    return _frame(_name_of(root, meta), image, depth, record, meta, defaults)


def _name_of(root: Path, meta: Path) -> str:
    return meta.parent.relative_to(root).as_posix() if meta.parent != root else root.resolve().name


def _stems(root: Path) -> list[_Stem]:
    """The names that have an image or a depth map; a missing partner is an error of the item."""
    images = _by_stem(root / "images", list_images(root / "images"))
    depths = _by_stem(root / "depth", [p for p in files_below(root / "depth") if p.suffix.lower() in _DEPTH_SUFFIXES])
    return [_Stem(name, images.get(name, []), depths.get(name, [])) for name in sorted({*images, *depths})]


def _by_stem(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return found


def _load_stem(root: Path, defaults: _Defaults, stem: _Stem) -> Frame:
    image = _only_file(root / "images" / stem.name, stem.images, IMAGE_SUFFIXES, "the image of this depth map")
    depth = _only_file(root / "depth" / stem.name, stem.depths, _DEPTH_SUFFIXES, "the depth map of this image")
    record, where = dict(defaults.record), root
    places = (root / "cameras" / f"{stem.name}.json", root / "images" / f"{stem.name}.json", root / "camera.json")
    for camera in places:
        if camera.is_file():
            record, where = {**record, **read_record(camera)}, camera
            break
    return _frame(stem.name, image, depth, record, where, defaults)


def _only_file(stem: Path, files: list[Path], suffixes: tuple[str, ...], what: str) -> Path:
    if len(files) != 1:
        found = ", ".join(p.name for p in files) or "none"
        raise InputError(f"{stem}: needs exactly one file that is {what} ({', '.join(suffixes)}); found {found}")
    return files[0]


# ---------------------------------------------------------------- one frame


def _frame(
    name: str, image_path: Path, depth_path: Path, record: dict[str, Any], where: Path, defaults: _Defaults
) -> Frame:
    image = read_image(require_file(image_path, "every frame needs its image"))
    height, width = image.shape[:2]
    scale = defaults.depth_scale if defaults.depth_scale is not None else _number(record, "depth_scale", where)
    depth = _read_depth(require_file(depth_path, "every frame needs its depth map"), scale)
    camera = camera_from_record(record, width, height, where)
    notes: dict[str, Any] = {"camera_source": record.get("camera_source", "given")}
    if camera is None:
        if defaults.fov_x is None:
            raise InputError(
                f"{where}: states no camera; add fx, fy, cx, cy (pixels), or assume one with fov_x=DEGREES "
                "(--option fov_x=DEGREES)"
            )
        camera, notes = Camera.from_fov(defaults.fov_x, width, height), {"camera_source": "assumed"}
    if depth.shape != (height, width):
        notes["depth_grid"] = [depth.shape[1], depth.shape[0]]
        depth = place_depth(depth, width, height, depth_path)
    # A record may name the sensor as its kind, since the sensor tells the kind. Frame checks both.
    sensor: Any = record.get("sensor") or record.get("kind", "rgbd")
    sensor = "synthetic" if sensor == "rendered" else sensor
    kind: Any = record.get("kind") if "sensor" in record else None
    kind = kind or _KIND_OF_SENSOR.get(str(sensor), "captured")
    return Frame(
        name=name,
        image=image,
        depth=depth,
        camera=camera,
        kind=kind,
        sensor=sensor,
        source=str(record.get("source", defaults.source)),
        licence=str(record.get("licence", "not stated")),
        scale=record.get("scale", "metric"),
        world_from_cam=_pose(record, where),
        notes=notes,
    )


def _read_depth(path: Path, scale: float | None) -> NDArray[np.float32]:
    try:
        return read_depth(path, scale)
    except MissingScale as error:  # the reader cannot know where a data set states one
        raise InputError(
            f'{error}, as "depth_scale" in dataset.json or as depth_scale=1000 (--option depth_scale=1000)'
        ) from None


def _number(record: dict[str, Any], key: str, where: Path) -> float | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise InputError(f"{where}: {key} must be a number, got {value!r}")
    return float(value)


def _pose(record: dict[str, Any], where: Path) -> NDArray[np.float64] | None:
    if record.get("world_from_cam") is None:
        return None
    try:
        return np.array(record["world_from_cam"], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}: world_from_cam must be a 4x4 list of numbers; correct the file") from None
