"""Middlebury stereo 2014 and 2021 (https://vision.middlebury.edu/stereo/data): `im0.png`, `disp0.pfm`, `calib.txt`.

Z = baseline · f / (d + doffs), baseline in millimetres, f and the disparity d in pixels; doffs is the difference of the
two principal points. `inf` is unknown. `cam0` counts the first pixel's centre as 0: 0.5 is added.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image, read_pfm
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, files_below, make_frame, require_file

_ORIGIN = Origin("captured", "stereo", "Middlebury", "research use, cite Scharstein et al., GCPR 2014")


def items(path: Path, *, image: str = "im0.png") -> Items:
    """The left view of every scene at or below `path`, sorted; `image` may name another exposure (im0E.png, im0L.png).

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in files_below(path) if p.name == "disp0.pfm"]
    load = partial(_load, path, image)
    return Items(found, load, path=path, expected="SCENE/im0.png with disp0.pfm and calib.txt")


def _load(root: Path, image_name: str, file: Path) -> Frame:
    scene = file.parent
    image = read_image(require_file(scene / image_name, "the left image of this disparity map"))
    where = require_file(scene / "calib.txt", "it holds camera and baseline")
    with reading(where, "calibration"):
        values = dict(line.split("=", 1) for line in where.read_text(encoding="utf-8").splitlines() if "=" in line)
    try:
        k = np.array(re.sub(r"[\[\];]", " ", values["cam0"]).split(), dtype=np.float64).reshape(3, 3)
        baseline, doffs = float(values["baseline"]), float(values["doffs"])
    except (KeyError, ValueError):
        raise InputError(f"{where}: needs cam0 (3x3), baseline and doffs; fetch it again") from None
    depth = depth_of(read_pfm(file), k[0, 0] * baseline / 1000, doffs)
    camera = Camera.pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, image.shape[1], image.shape[0])
    name = scene.relative_to(root).as_posix() if scene != root else root.resolve().name
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), file)


def depth_of(disparity: NDArray[np.float32], focal_baseline: float, offset: float) -> NDArray[np.float32]:
    """Metres float32 (H, W) of a disparity map in pixels; `focal_baseline` in pixels times metres.

    NaN where the disparity is not finite, or not positive with its offset.
    """
    shift = disparity.astype(np.float64) + offset
    known = np.isfinite(shift) & (shift > 0)
    return np.where(known, focal_baseline / np.where(known, shift, 1), np.nan).astype(np.float32)
