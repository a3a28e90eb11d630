"""NYU Depth v2, labelled part: `nyu_depth_v2_labeled.mat` (https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html).

A MATLAB 7.3 file is HDF5 with its axes reversed: `images` (N, 3, W, H) uint8, `rawDepths` and `depths` (N, W, H)
float32 metres, registered to the colour image; 0 is unknown in `rawDepths`, `depths` is in-painted. The camera is the
one of the toolbox (camera_params.m), whose code counts pixels from 1: 0.5 is subtracted.
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
from metricanything.sources.clouds import late
from metricanything.sources.common import Items, Origin, make_frame

_ORIGIN = Origin("captured", "rgbd", "NYU Depth v2", "research use, cite Silberman et al., ECCV 2012")
_CAMERA = Camera.pinhole(518.85790117, 519.46961112, 325.58244941 - 0.5, 253.73616633 - 0.5, 640, 480)
_EXPECTED = "nyu_depth_v2_labeled.mat"


def items(path: Path, *, filled: bool = False) -> Items:
    """The labelled frames of the one .mat file in `path`, in its order; `filled` takes the in-painted depth.

    Raises InputError (see `Items`), for several such files and for one that is damaged.
    """
    path = Path(path)
    files = sorted(path.glob("*labeled*.mat"))
    if len(files) > 1:
        raise InputError(f"{path}: holds {len(files)} labelled .mat files; give a folder with one")
    chosen = "depths" if filled else "rawDepths"
    numbers: list[int] = []
    if files:
        h5py = late("h5py", "NYU Depth v2")
        with reading(files[0], "MATLAB 7.3 file"), h5py.File(files[0]) as data:
            numbers = list(range(len(data["images"])))
            if len(data[chosen]) != len(numbers):
                raise InputError(f"{files[0]}: has {len(numbers)} images and {len(data[chosen])} depth maps")
    load = partial(_load, path, files[0] if files else path, chosen)
    return Items(numbers, load, path=path, expected=_EXPECTED)


def _load(root: Path, file: Path, chosen: str, number: int) -> Frame:
    h5py = late("h5py", "NYU Depth v2")
    with reading(file, "MATLAB 7.3 file"), h5py.File(file) as data:
        image = np.ascontiguousarray(np.transpose(data["images"][number], (2, 1, 0)))
        depth = clean_depth(np.ascontiguousarray(data[chosen][number].T), file)
    return make_frame(f"nyu/{number + 1:04d}", image, depth, _CAMERA, _ORIGIN.stated(root), file)
