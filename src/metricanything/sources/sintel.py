"""MPI Sintel depth (http://sintel.is.tue.mpg.de/depth): a rendered film, with depth in units of its own.

    training/final/SCENE/frame_NNNN.png  training/depth/SCENE/frame_NNNN.dpt  training/camdata_left/SCENE/frame_NNNN.cam

Both files begin with the float32 202021.25. `.dpt` goes on with int32 width and height and float32 depth; `.cam` with
float64 K (3x3) and camera from world (3x4). The film's world was not built to scale: frames are up to scale.
Principal points count the first pixel's centre as 0 (511.5 for 1024 columns): 0.5 is added.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import check_size, reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, require_file

_ORIGIN = Origin("rendered", "synthetic", "MPI Sintel", "research use, cite Butler et al., ECCV 2012", "up_to_scale")
_TAG = np.float32(202021.25)


def items(path: Path, *, rendering: str = "final") -> Items:
    """Frames of all scenes at or below `path`, sorted; `rendering` is "final", "clean" or "albedo".

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in list_images(path) if p.parents[1].name == rendering]
    expected = f"training/{rendering}/SCENE/*.png with depth/SCENE/*.dpt and camdata_left/SCENE/*.cam"
    return Items(found, partial(_load, path), path=path, expected=expected)


def _load(root: Path, file: Path) -> Frame:
    split, scene = file.parents[2], file.parent.name
    depth_file = require_file(split / "depth" / scene / f"{file.stem}.dpt", "every image needs its depth")
    cam_file = require_file(split / "camdata_left" / scene / f"{file.stem}.cam", "every image needs its camera")
    image, depth = read_image(file), read_dpt(depth_file)
    k, pose = _read_cam(cam_file)
    camera = Camera.pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, image.shape[1], image.shape[0])
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), depth_file, pose=pose)


def read_dpt(path: Path) -> NDArray[np.float32]:
    """Depth float32 (H, W) of a .dpt file."""
    data = _tagged(path)
    with reading(path, "Sintel file"):
        width, height = (int(v) for v in np.frombuffer(data, "<i4", 2, 4))
        check_size(path, width, height)
        if len(data) != 12 + 4 * width * height:
            raise InputError(f"{path}: has {len(data)} bytes, not those of {width}x{height} values; fetch it again")
        return clean_depth(np.frombuffer(data, "<f4", width * height, 12).reshape(height, width), path)


def _read_cam(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    data = _tagged(path)
    if len(data) != 4 + 8 * 21:
        raise InputError(f"{path}: has {len(data)} bytes instead of {4 + 8 * 21}; fetch it again")
    values = np.frombuffer(data, "<f8", 21, 4)
    cam_from_world = np.vstack([values[9:].reshape(3, 4), [0, 0, 0, 1]])
    return values[:9].reshape(3, 3), np.linalg.inv(cam_from_world)


def _tagged(path: Path) -> bytes:
    with reading(path, "Sintel file"):
        data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != _TAG:
        raise InputError(f"{path}: does not begin with Sintel's tag 202021.25; fetch the file again")
    return data
