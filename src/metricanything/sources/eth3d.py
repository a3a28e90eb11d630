"""ETH3D's high-resolution multi-view sets (https://www.eth3d.net/datasets): DSLR photos with laser-scanned depth.

    SCENE/images/dslr_images/NAME.JPG            SCENE/dslr_calibration_jpg/{cameras,images,points3D}.txt
    SCENE/ground_truth_depth/dslr_images/NAME.JPG

The depth file bears the image's name and holds float32 metres row by row, for the distorted image (the cameras are
THIN_PRISM_FISHEYE) and in its size; +inf is unknown, sky or not. Pixel centres are COLMAP's, which are ours. Images are
taken as they are stored, whatever their EXIF orientation says, as COLMAP and the depth take them. The undistorted
photos of the site do not go with this depth.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs.images import open_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.colmap import Views, load_views
from metricanything.sources.common import Items, Origin, files_below, make_frame, require_file, require_size

_ORIGIN = Origin("captured", "lidar", "ETH3D", "CC BY-NC-SA 4.0")
_DEPTH, _MODEL = "ground_truth_depth", "dslr_calibration_jpg"


def items(path: Path) -> Items:
    """Frames of all depth files of all scenes at or below `path`, sorted. Raises InputError (see `Items`)."""
    path = Path(path)
    found = [p for p in files_below(path) if p.parts[-3:-1] == (_DEPTH, "dslr_images")]
    load = partial(_load, path, lru_cache(maxsize=2)(load_views))  # frames come scene by scene
    expected = f"SCENE/{_DEPTH}/dslr_images/* with images/dslr_images/* and {_MODEL}/cameras.txt"
    return Items(found, load, path=path, expected=expected)


def _load(root: Path, views: Callable[[Path], Views], file: Path) -> Frame:
    scene, name = file.parents[2], f"dslr_images/{file.name}"
    image_file = require_file(scene / "images" / name, "every depth file needs its photo")
    known = views(scene / _MODEL)
    if name not in known:
        raise InputError(f"{image_file}: is not in the model {scene / _MODEL}; leave the image out")
    camera, pose = known[name]
    with open_image(image_file, image_file) as picture:
        image = np.array(picture.convert("RGB"))
    require_size(image_file, image, camera.width, camera.height, "its camera in the model")
    depth = read_map(file, camera.width, camera.height)
    label = f"{scene.resolve().name}/{file.stem}"
    return make_frame(label, image, depth, camera, _ORIGIN.stated(root, scene), file, pose=pose)


def read_map(path: Path, width: int, height: int) -> NDArray[np.float32]:
    """Depth float32 (height, width) metres, NaN unknown; raises InputError for a file of another size."""
    with reading(path, "depth file"):
        data = path.read_bytes()
    if len(data) != 4 * width * height:
        raise InputError(f"{path}: has {len(data)} bytes, not those of {width}x{height} depths; fetch the file again")
    depth = np.frombuffer(data, "<f4").reshape(height, width)
    return clean_depth(np.where(np.isfinite(depth), depth, np.float32(np.nan)), path)
