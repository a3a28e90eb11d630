"""ScanNet++ (https://kaldir.vc.in.tum.de/scannetpp), iPhone part: LiDAR of the phone with COLMAP's cameras.

    SCENE/iphone/rgb/frame_NNNNNN.jpg  SCENE/iphone/depth/frame_NNNNNN.png
    SCENE/iphone/colmap/{cameras,images,points3D}.txt

As the data set's own scripts lay it out once they have taken images and depth from `rgb.mkv` and `depth.bin`. Depth
PNG / 1000 = metres on the sensor's grid (256x192) of the same view. Camera (OPENCV) and poses are those of COLMAP,
aligned with the laser scan and thereby in metres; only the images that it registered are read. Pixel centres are
COLMAP's, which are ours. The DSLR photos have no depth of their own; rendered depth is read by `folder`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from metricanything.core.codecs import read_depth, read_image
from metricanything.core.frame import Frame
from metricanything.sources.colmap import Views, load_views
from metricanything.sources.common import Items, Origin, make_frame, require_file
from metricanything.sources.filters import clean_tof

_ORIGIN = Origin("captured", "tof", "ScanNet++ iPhone", "ScanNet++ terms of use (research)")


def items(path: Path, *, flying: bool = True) -> Items:
    """Frames of the registered iPhone images of all scenes at or below `path`, sorted by scene and name.

    With `flying` (the default) pixels that mix foreground and background are removed; the format has no confidence.
    Raises InputError (see `Items`) and for a model that cannot be read.
    """
    path = Path(path)
    views = lru_cache(maxsize=2)(load_views)  # frames come scene by scene
    models = sorted(p for p in path.glob("**/iphone/colmap") if any(p.glob("cameras.*")))
    found = [(model, name) for model in models for name in sorted(views(model))]
    expected = "SCENE/iphone/colmap/cameras.txt with SCENE/iphone/rgb/*.jpg and depth/*.png"
    return Items(found, partial(_load, path, flying, views), path=path, expected=expected)


def _load(root: Path, flying: bool, views: Callable[[Path], Views], item: tuple[Path, str]) -> Frame:
    model, name = item
    phone, stem = model.parent, Path(name).stem
    camera, pose = views(model)[name]
    image = read_image(require_file(phone / "rgb" / Path(name).name, "the model names this image"))
    where = require_file(phone / "depth" / f"{stem}.png", "every image needs its depth")
    depth = read_depth(where, 1000.0)
    depth, removed = clean_tof(depth, None, 0, flying)
    label = f"{phone.resolve().parent.name}/{stem}"
    origin = _ORIGIN.stated(root, phone.parent)
    return make_frame(label, image, depth, camera, origin, where, pose=pose, notes={"removed": removed})
