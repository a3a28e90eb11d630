"""iBims-1 (https://www.asg.ed.tum.de/lmf/ibims1): laser-scanned rooms, one MATLAB file a frame.

`data` of a .mat (version 5) holds `rgb`, `depth` in metres, `mask_invalid` and `mask_transp` (1: good; their product
counts) and `calib`, K transposed. The toolbox is Python and counts pixels from 0: 0.5 is added.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, make_frame

_ORIGIN = Origin("captured", "lidar", "iBims-1", "CC BY-NC-SA 4.0")


def items(path: Path, *, transparent: bool = False) -> Items:
    """Frames of all .mat files at or below `path`, sorted; `transparent` keeps the depth of transparent things.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = sorted(p for p in path.rglob("*.mat") if p.is_file())
    return Items(found, partial(_load, path, transparent), path=path, expected="gt_mat/*.mat")


def _load(root: Path, transparent: bool, file: Path) -> Frame:
    from scipy.io import loadmat

    with reading(file, "MATLAB file"):
        data = loadmat(file)["data"][0, 0]
        image, depth = np.ascontiguousarray(data["rgb"]), np.asarray(data["depth"])
        good = np.asarray(data["mask_invalid"]) > 0
        if not transparent:
            good = good & (np.asarray(data["mask_transp"]) > 0)
        k = np.asarray(data["calib"], dtype=np.float64).reshape(3, 3).T
    if image.dtype != np.uint8 or good.shape != depth.shape:
        raise InputError(f"{file}: rgb is {image.dtype}, depth {depth.shape} and masks {good.shape}; fetch it again")
    depth = np.where(good, clean_depth(depth, file), np.float32(np.nan))
    camera = Camera.pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, image.shape[1], image.shape[0])
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), file)
