"""COLMAP dense workspaces: undistorted images with the depth maps of PatchMatch stereo (https://colmap.github.io).

    dense/images/NAME  dense/sparse/{cameras,images,points3D}.bin  dense/stereo/depth_maps/NAME.geometric.bin

A depth map is the text `W&H&1&`, then float32 row by row; 0 is unknown. Pixel centres and scale are those of `colmap`:
the scale is arbitrary unless `scale.json` lies there, `metres_per_unit` or `metric` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import check_size, reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.colmap import find_model, load_reconstruction, scale_of, to_camera
from metricanything.sources.common import Items, Origin, make_frame, require_file, require_size
from metricanything.sources.filters import View, drop, inconsistent

_NEIGHBOURS = 4  # views that a depth map is checked against


@dataclass(frozen=True)
class _Item:
    """One image with its camera and pose (scaled), and the names of the views nearest to it."""

    name: str
    camera: Camera
    world_from_cam: NDArray[np.float64]
    neighbours: tuple[str, ...]


def items(
    path: Path,
    *,
    maps: str = "geometric",
    agreeing: int = 0,
    metric: bool = False,
    metres_per_unit: float | None = None,
) -> Items:
    """Frames of the images of one workspace that have a depth map, sorted by name.

    `maps` is "geometric" (already checked by COLMAP between views) or "photometric" (raw). With `agreeing` > 0 pixels
    that fewer than so many of the four nearest views confirm are removed (`filters.inconsistent`). Scale as in
    `colmap`. Raises InputError (see `Items`), for bad options and for a model that cannot be read.
    """
    path = Path(path)
    if maps not in ("geometric", "photometric"):
        raise InputError(f"source colmap_dense: maps must be geometric or photometric, got {maps!r}")
    if not 0 <= agreeing <= _NEIGHBOURS:
        raise InputError(f"source colmap_dense: agreeing must lie between 0 and {_NEIGHBOURS}, got {agreeing}")
    folder = find_model(path, None)
    factor = scale_of(path, folder, metres_per_unit)
    scale: Any = "metric" if factor is not None or metric else "up_to_scale"
    origin = Origin("reconstructed", "mvs", path.resolve().name, "not stated", scale).stated(path, folder)
    views = _listing(path, load_reconstruction(folder), maps, 1.0 if factor is None else factor)
    load = partial(_load, path, maps, agreeing, 1.0 if factor is None else factor, origin, views)
    return Items(sorted(views), load, path=path, expected=f"stereo/depth_maps/*.{maps}.bin with images/ and sparse/")


def _listing(root: Path, model: Any, maps: str, factor: float) -> dict[str, _Item]:
    poses: dict[str, NDArray[np.float64]] = {}
    cameras: dict[str, Camera] = {}
    for image in model.images.values():
        if image.has_pose and _map_file(root, str(image.name), maps).is_file():
            matrix = np.vstack([np.asarray(image.cam_from_world().matrix(), dtype=np.float64), [0, 0, 0, 1]])
            matrix[:3, 3] *= factor
            poses[str(image.name)] = np.linalg.inv(matrix)
            cameras[str(image.name)] = to_camera(model.cameras[image.camera_id])
    names = sorted(poses)
    centres = np.array([poses[name][:3, 3] for name in names]).reshape(-1, 3)
    found = {}
    for name in names:
        order = np.argsort(np.linalg.norm(centres - poses[name][:3, 3], axis=1), kind="stable")
        near = tuple(names[k] for k in order if names[k] != name)[:_NEIGHBOURS]
        found[name] = _Item(name, cameras[name], poses[name], near)
    return found


def _load(
    root: Path, maps: str, agreeing: int, factor: float, origin: Origin, views: dict[str, _Item], name: str
) -> Frame:
    item = views[name]
    image = read_image(require_file(root / "images" / name, "the model names this image"))
    view = _view(root, maps, factor, item)
    depth, notes = view.depth, {}
    if agreeing:
        others = [_view(root, maps, factor, views[other]) for other in item.neighbours]
        depth, notes["removed"] = drop(depth, inconsistent=inconsistent(view, others, agreeing=agreeing))
    label = Path(name).with_suffix("").as_posix()
    where = _map_file(root, name, maps)
    return make_frame(label, image, depth, item.camera, origin, where, pose=item.world_from_cam, notes=notes)


def _view(root: Path, maps: str, factor: float, item: _Item) -> View:
    file = _map_file(root, item.name, maps)
    depth = read_map(file) * np.float32(factor)
    require_size(file, depth, item.camera.width, item.camera.height, "its camera in the model")
    return View(depth, item.camera, item.world_from_cam)


def _map_file(root: Path, name: str, maps: str) -> Path:
    return root / "stereo" / "depth_maps" / f"{name}.{maps}.bin"


def read_map(path: Path) -> NDArray[np.float32]:
    """Depth float32 (H, W) of a file of COLMAP's dense stereo, in the model's unit; NaN unknown."""
    with reading(path, "COLMAP depth map"):
        data = path.read_bytes()
        width, height, channels = (int(v) for v in data.split(b"&", 3)[:3])
        check_size(path, width, height)
        start = len(f"{width}&{height}&{channels}&")
        if channels != 1 or len(data) != start + 4 * width * height:
            raise InputError(f"{path}: has {len(data)} bytes, not those of {width}x{height} depths; write it again")
        return clean_depth(np.frombuffer(data, "<f4", offset=start).reshape(height, width), path)
