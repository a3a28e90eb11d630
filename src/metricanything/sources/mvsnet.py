"""MVSNet-style scenes, such as BlendedMVS (https://github.com/YoYo000/BlendedMVS): images, PFM depth, camera files.

    SCENE/blended_images/NNNNNNNN.jpg  rendered_depth_maps/NNNNNNNN.pfm  cams/NNNNNNNN_cam.txt
    (or images/ and depths/)

A camera file is `extrinsic`, camera from world (4x4), then `intrinsic` (3x3), then the range of depth. Depth 0 is
unknown. The scale is arbitrary unless the photos had GPS, which the files do not say: frames are up to scale. Pixel
centres: MVSNet's grid begins at 0.5, which is ours.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, files_below, make_frame, require_file
from metricanything.sources.lidar import inverse

_ORIGIN = Origin("reconstructed", "mvs", "BlendedMVS", "CC BY 4.0", "up_to_scale")
_IMAGES = ("blended_images", "images")
_DEPTHS = ("rendered_depth_maps", "depths")


def items(path: Path, *, masked: bool = False) -> Items:
    """Frames of all camera files at or below `path`, sorted; `masked` takes `NAME_masked.jpg` (black background).

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in files_below(path) if p.parent.name == "cams" and p.name.endswith("_cam.txt")]
    expected = "SCENE/cams/*_cam.txt with blended_images/*.jpg and rendered_depth_maps/*.pfm"
    return Items(found, partial(_load, path, masked), path=path, expected=expected)


def _load(root: Path, masked: bool, file: Path) -> Frame:
    scene, stem = file.parents[1], file.name.removesuffix("_cam.txt")
    name = f"{stem}_masked" if masked else stem
    places = [scene / folder / f"{name}{suffix}" for folder in _IMAGES for suffix in (".jpg", ".png")]
    image_file = next((p for p in places if p.is_file()), places[0])
    depths = [scene / folder / f"{stem}.pfm" for folder in _DEPTHS]
    depth_file = next((p for p in depths if p.is_file()), depths[0])
    image = read_image(require_file(image_file, "the image of this camera file"))
    depth = read_depth(require_file(depth_file, "every image needs its depth"))
    k, cam_from_world = read_cam(file)
    camera = Camera.pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2], image.shape[1], image.shape[0])
    label = f"{scene.relative_to(root).as_posix()}/{name}" if scene != root else f"{root.resolve().name}/{name}"
    pose = inverse(cam_from_world)
    return make_frame(label, image, depth, camera, _ORIGIN.stated(root, scene), depth_file, pose=pose)


def read_cam(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """K (3, 3) and camera from world (4, 4) of a camera file."""
    with reading(path, "camera file"):
        words = path.read_text(encoding="utf-8").split()
        if words[0] != "extrinsic" or words[17] != "intrinsic":
            raise InputError(f"{path}: must hold `extrinsic` and `intrinsic`; fetch it again")
        return np.array(words[18:27], dtype=np.float64).reshape(3, 3), np.array(words[1:17], dtype=np.float64).reshape(
            4, 4
        )
