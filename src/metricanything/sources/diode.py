"""DIODE (https://diode-dataset.org): laser scans indoors and outdoors.

    SPLIT/{indoors,outdoor}/scene_*/scan_*/NAME.png  NAME_depth.npy  NAME_depth_mask.npy

Depth is float32 metres (H, W, 1), valid where the mask is 1. The images are crops of panoramas with one camera: f =
(886.81, 927.06), c = (512, 384) for 1024x768, the middle of the image. Depth bleeds at edges: pixels that mix
foreground and background are removed (`flying_pixels`).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image, read_npy
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, require_file, require_size
from metricanything.sources.filters import drop, flying_pixels

_ORIGIN = Origin("captured", "lidar", "DIODE", "MIT")
_CAMERA = Camera.pinhole(886.81, 927.06, 512, 384, 1024, 768)


def items(path: Path, *, flying: bool = True) -> Items:
    """Frames of all images with depth at or below `path`, sorted; without `flying` the filter is left out.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in list_images(path) if p.with_name(f"{p.stem}_depth.npy").is_file()]
    expected = "scene_*/scan_*/NAME.png with NAME_depth.npy and NAME_depth_mask.npy"
    return Items(found, partial(_load, path, flying), path=path, expected=expected)


def _load(root: Path, flying: bool, file: Path) -> Frame:
    image = read_image(file)
    depth_file = file.with_name(f"{file.stem}_depth.npy")
    mask_file = require_file(file.with_name(f"{file.stem}_depth_mask.npy"), "it says which depths are valid")
    depth, mask = read_depth(depth_file), read_npy(mask_file)
    require_size(mask_file, mask, depth.shape[1], depth.shape[0], "its depth map")
    bad = {"mask": mask.reshape(depth.shape) != 1}
    if flying:
        bad["flying_pixels"] = flying_pixels(np.where(bad["mask"], np.float32(np.nan), depth))
    depth, removed = drop(depth, **bad)
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, _CAMERA, _ORIGIN.stated(root), depth_file, notes={"removed": removed})
