"""MegaDepth (https://www.cs.cornell.edu/projects/megadepth): photos of landmarks with cleaned multi-view stereo.

    SCENE/dense0/imgs/NAME.jpg  SCENE/dense0/depths/NAME.h5
    SCENE/sparse-txt/{cameras,images,points3D}.txt    or SCENE/sparse, the model of the undistorted images

An HDF5 file holds `depth` in the model's unit, 0 unknown. One with negative values is no depth but an ordering (sky
and people before or behind something): it is refused. Images and depth are undistorted, so the published SfM models,
whose cameras are SIMPLE_RADIAL, have to be undistorted as well (`colmap image_undistorter`, as D2-Net's scripts do);
their images are taken where imgs/ is missing. Pixel centres are COLMAP's, which are ours. Scale is arbitrary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs import read_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import late
from metricanything.sources.colmap import Views, load_views
from metricanything.sources.common import Items, Origin, files_below, make_frame, require_file

_ORIGIN = Origin("reconstructed", "mvs", "MegaDepth", "CC BY 4.0 (photos: their own licences)", "up_to_scale")
_MODELS = ("sparse-txt", "sparse", "sparse/0", ".")


def items(path: Path, *, sfm: Path | None = None) -> Items:
    """Frames of all depth maps at or below `path`, sorted.

    `sfm` is the folder of the undistorted models, SCENE/sparse-txt/... (by default they lie in the scenes of `path`).
    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in files_below(path) if p.parent.name == "depths" and p.suffix == ".h5"]
    views = lru_cache(maxsize=4)(load_views)  # frames come scene by scene
    load = partial(_load, path, None if sfm is None else Path(sfm), views)
    return Items(found, load, path=path, expected="SCENE/dense0/depths/*.h5 with imgs/*.jpg and SCENE/sparse-txt/")


def _load(root: Path, sfm: Path | None, views: Callable[[Path], Views], file: Path) -> Frame:
    dense = file.parents[1]
    scene = dense.parent if dense.name.startswith("dense") else dense
    folder = scene if sfm is None else sfm / scene.name
    image_file = _image_file(dense, folder, file.stem)
    model = next((folder / m for m in _MODELS if any((folder / m).glob("cameras.*"))), None)
    if model is None:
        raise InputError(f"{folder}: no model of the undistorted images ({_MODELS[0]}/cameras.txt); give it with sfm=")
    known = views(model)
    if image_file.name not in known:
        raise InputError(f"{image_file}: is not registered in {model}; leave the image out")
    camera, pose = known[image_file.name]
    if camera.model != "pinhole":
        raise InputError(f"{model}: its cameras are distorted and the depth is not; run `colmap image_undistorter`")
    image = read_image(image_file)
    name = f"{scene.resolve().name}/{dense.name}/{file.stem}"
    return make_frame(name, image, read_map(file), camera, _ORIGIN.stated(root, scene), file, pose=pose)


def _image_file(dense: Path, folder: Path, stem: str) -> Path:
    places = [p / f"{stem}{suffix}" for p in (dense / "imgs", folder / "images") for suffix in (".jpg", ".JPG", ".png")]
    return require_file(next((p for p in places if p.is_file()), places[0]), "every depth map needs its image")


def read_map(path: Path) -> NDArray[np.float32]:
    """Depth float32 (H, W) in the model's unit, NaN unknown; raises InputError for a map that only orders pixels."""
    h5py = late("h5py", "HDF5 files")
    with reading(path, "HDF5 file"), h5py.File(path) as data:
        depth = np.asarray(data["depth"][:])
    if np.any(depth < 0):
        raise InputError(f"{path}: orders its pixels and holds no depth (negative values); leave the image out")
    return clean_depth(depth, path)
