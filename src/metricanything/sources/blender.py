"""Blender render passes: multilayer EXR files with the passes Combined and Depth, and their cameras.

    NAME.exr  NAME.json (or camera.json for all)

The pass Combined (scene-linear, RGB) becomes sRGB without Blender's view transform. The pass Depth of Cycles is the
distance along the camera's axis, which is z-depth; 1e10 and more is background: +inf. A camera file is any form of
`common.camera_from_record` and may hold `matrix_world`, the camera object's 4x4 in Blender (OpenGL's axes), and
`metres_per_unit` (1). Format: https://openexr.com; passes: https://docs.blender.org/manual/en/latest/render/layers/passes.html.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import check_size, reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import (
    Items,
    Origin,
    camera_from_record,
    cv_from_gl,
    files_below,
    make_frame,
    read_record,
)

_BACKGROUND = 1e9


def items(path: Path, *, layer: str | None = None) -> Items:
    """Frames of all .exr files at or below `path`, sorted; `layer` chooses a view layer where there are several.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in files_below(path) if p.suffix.lower() == ".exr"]
    return Items(found, partial(_load, path, layer), path=path, expected="NAME.exr with NAME.json or camera.json")


def _load(root: Path, layer: str | None, file: Path) -> Frame:
    channels = _channels(file)
    image = _srgb(np.stack([_find(channels, file, layer, "Combined", c) for c in "RGB"], axis=-1))
    depth = clean_depth(_find(channels, file, layer, "Depth", "ZV"), file)
    where = file.with_suffix(".json")
    where = where if where.is_file() else root / "camera.json"
    record = read_record(where)
    try:
        camera = camera_from_record(record, image.shape[1], image.shape[0], where)
    except InputError as error:  # one file for all: say whose camera it is not
        raise InputError(f"{file}: {error}") from None
    if camera is None:
        raise InputError(f"{where}: states no camera; add fx, fy, cx, cy")
    unit = float(record.get("metres_per_unit", 1))
    depth = np.where(depth >= _BACKGROUND, np.float32(np.inf), depth * np.float32(unit))
    pose = None
    if "matrix_world" in record:
        pose = cv_from_gl(np.array(record["matrix_world"], dtype=np.float64).reshape(4, 4))
        pose[:3, 3] *= unit
    origin = Origin("rendered", "synthetic", root.resolve().name, "not stated").stated(root)
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, origin, file, pose=pose)


def _channels(path: Path) -> dict[str, NDArray[Any]]:
    """Every channel by its name, of all parts."""
    with reading(path, "EXR file"):
        import OpenEXR

        path.open("rb").close()
        with OpenEXR.File(str(path), separate_channels=True) as file:
            found = {name: channel.pixels for part in file.parts for name, channel in part.channels.items()}
    for values in found.values():
        check_size(path, values.shape[1], values.shape[0])
    return found


def _find(channels: dict[str, NDArray[Any]], path: Path, layer: str | None, name: str, kinds: str) -> NDArray[Any]:
    """The one channel of a pass whose last part is one of `kinds`: LAYER.Combined.R, or Depth.Z, or plain R and Z."""
    found = [
        key
        for key in channels
        if key.split(".")[-1] in kinds and (name in key.split(".") or "." not in key) and (not layer or layer in key)
    ]
    if len(found) != 1:
        names = ", ".join(sorted(channels))
        raise InputError(f"{path}: needs one channel of the pass {name}, found {len(found)} in {names}; give layer=")
    return channels[found[0]]


def _srgb(linear: NDArray[Any]) -> NDArray[np.uint8]:
    """Scene-linear (H, W, 3) as sRGB uint8 (IEC 61966-2-1), clipped at 1."""
    value = np.clip(np.nan_to_num(linear.astype(np.float64)), 0, 1)
    curve = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)
