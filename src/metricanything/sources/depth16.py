"""Android's DEPTH16 frames: `NAME_depth16.bin` (or `.raw`) beside `NAME_image*.jpg` (or NAME.jpg, .png).

    https://developer.android.com/reference/android/graphics/ImageFormat#DEPTH16

Each pixel is a little-endian 16-bit word: the lower 13 bits are millimetres, 0 unknown, taken as depth along the
optical axis; the upper 3 are a code of confidence: 0 is full, n is (n - 1)/7. ARCore's raw depth, which uses all 16
bits for millimetres, is another format. The file has no header: rows and columns follow from its length and the aspect
ratio of the image, the largest of its name. Images and depth show the same view; the camera is in `camera.json` beside
the file or in the folder given (as in `folder`: first pixel centre 0.5 unless stated), or comes from `fov_x`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import image_size, read_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import (
    IMAGE_SUFFIXES,
    Items,
    Origin,
    camera_from_record,
    files_below,
    make_frame,
    read_record,
)
from metricanything.sources.filters import drop, flying_pixels, low_confidence

_ORIGIN = Origin("captured", "tof", "Android DEPTH16", "not stated")
_ENDS = ("_depth16.bin", "_depth16.raw")


def items(path: Path, *, min_confidence: float = 0.1, flying: bool = True, fov_x: float | None = None) -> Items:
    """Frames of all depth files at or below `path`, sorted; pixels of a confidence (0 to 1) below `min_confidence` go.

    With `flying` (the default), so do those that mix foreground and background. `fov_x` (degrees) assumes a camera
    where none is stated; `notes["camera_source"]` then says "assumed". Raises InputError (see `Items`) and for bad
    options.
    """
    if fov_x is not None and not 0 < fov_x < 180:
        raise InputError(f"source depth16: fov_x must lie between 0 and 180 degrees, got {fov_x}")
    path = Path(path)
    found = [p for p in files_below(path) if p.name.endswith(_ENDS)]
    load = partial(_load, path, min_confidence, flying, fov_x)
    return Items(found, load, path=path, expected="NAME_depth16.bin with NAME_image.jpg and camera.json")


def _load(root: Path, min_confidence: float, flying: bool, fov_x: float | None, file: Path) -> Frame:
    stem = file.name.rsplit("_", 1)[0]
    image = read_image(_image_file(file, stem))
    height, width = image.shape[:2]
    depth, confidence = read_words(file, width, height)
    bad = {"low_confidence": low_confidence(confidence, min_confidence)}
    if flying:
        bad["flying_pixels"] = flying_pixels(np.where(bad["low_confidence"], np.float32(np.nan), depth))
    depth, removed = drop(depth, **bad)
    camera, source = _camera(root, file, fov_x, width, height)
    name = (file.parent.relative_to(root) / stem).as_posix()
    notes = {"removed": removed, "camera_source": source}
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root, file.parent), file, notes=notes)


def _image_file(file: Path, stem: str) -> Path:
    """The largest image of the name."""
    names = [p for p in sorted(file.parent.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES]
    found = [p for p in names if p.stem == stem or p.stem.startswith(f"{stem}_image")]
    if not found:
        raise InputError(f"{file.parent / stem}_image.jpg: no such file; every depth file needs its image")
    return max(found, key=image_size)


def _camera(root: Path, file: Path, fov_x: float | None, width: int, height: int) -> tuple[Camera, str]:
    for where in (file.parent / "camera.json", root / "camera.json"):
        camera = camera_from_record(read_record(where), width, height, where) if where.is_file() else None
        if camera is not None:
            return camera, "given"
    if fov_x is None:
        raise InputError(f"{file}: states no camera; add camera.json with fx, fy, cx, cy, or assume one with fov_x=")
    return Camera.from_fov(fov_x, width, height), "assumed"


def read_words(path: Path, width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Depth in metres, NaN unknown, and confidence from 0 to 1, both float32 (h, w) of the aspect `width` : `height`.

    Raises InputError for a file whose length is not that of such a grid.
    """
    with reading(path, "DEPTH16 file"):
        data = path.read_bytes()
    rows = max(round((len(data) / 2 * height / width) ** 0.5), 1)
    columns = max(round(rows * width / height), 1)
    if len(data) != 2 * rows * columns:
        raise InputError(
            f"{path}: {len(data)} bytes are no grid of 16-bit words of the image's aspect ratio ({width}:{height}); "
            "give files that belong together"
        )
    words = np.frombuffer(data, "<u2").reshape(rows, columns)
    code = words >> 13
    confidence = np.where(code == 0, 1.0, (code - 1.0) / 7).astype(np.float32)
    return clean_depth((words & 0x1FFF) / np.float32(1000), path), confidence
