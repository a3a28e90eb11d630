"""SUN RGB-D (https://rgbd.cs.princeton.edu): one folder a frame, four sensors.

    FRAME/image/*.jpg  depth_bfx/*.png  depth/*.png  intrinsics.txt  extrinsics/*.txt

A PNG value is the depth in millimetres with its bits rotated left by three; depth beyond 8 m is unknown, as the
toolbox clips there. `depth_bfx` is in-painted from neighbouring frames, `depth` as the sensor gave it. The toolbox
(read3dPoints.m) subtracts the principal point from pixels counted from 1: 0.5 is subtracted here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image, read_png16
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, files_below, list_images, make_frame, read_numbers

_ORIGIN = Origin("captured", "rgbd", "SUN RGB-D", "research use, cite Song et al., CVPR 2015")
_FAR = 8.0


def items(path: Path, *, raw: bool = False) -> Items:
    """Frames of all folders with `intrinsics.txt` at or below `path`, sorted; `raw` takes `depth` for `depth_bfx`.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    chosen = "depth" if raw else "depth_bfx"
    listed = [p.parent for p in files_below(path) if p.name == "intrinsics.txt"]
    found = [folder for folder in listed if (folder / "image").is_dir() and (folder / chosen).is_dir()]
    expected = f"FRAME/image/*.jpg with {chosen}/*.png and intrinsics.txt"
    return Items(found, partial(_load, path, chosen), path=path, expected=expected)


def _load(root: Path, chosen: str, folder: Path) -> Frame:
    image_file, depth_file = _only(folder / "image"), _only(folder / chosen)
    image = read_image(image_file)
    k = read_numbers(folder / "intrinsics.txt", 9)
    camera = Camera.pinhole(k[0], k[4], k[2] - 0.5, k[5] - 0.5, image.shape[1], image.shape[0])
    name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
    return make_frame(name, image, unrotate(read_png16(depth_file)), camera, _ORIGIN.stated(root), depth_file)


def unrotate(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Metres float32 (H, W) of the values of a depth PNG; 0 and beyond 8 m are NaN."""
    metres = ((values >> 3) | (values << 13)).astype(np.float32) / np.float32(1000)
    return np.where((metres > 0) & (metres <= _FAR), metres, np.float32(np.nan))


def _only(folder: Path) -> Path:
    files = list_images(folder)
    if len(files) != 1:
        raise InputError(f"{folder}: needs exactly one image file; found {len(files)}")
    return files[0]
