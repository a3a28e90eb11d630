"""WAI, the format of MapAnything's training data (https://github.com/facebookresearch/map-anything), read and written.

    SCENE/scene_meta.json  images/NAME  depth/NAME.exr

The record of a frame has `image`, the key that `frame_modalities.depth.frame_key` names (`depth`), `transform_matrix`
(world from camera, OpenCV's axes) and, there or for the whole scene, `fl_x, fl_y, cx, cy, w, h` with `camera_model`
PINHOLE, OPENCV or OPENCV_FISHEYE. Depth is float, 0 unknown, metric where `scale_type` is "metric". The format leaves
pixel centres as its sources have them; they are taken as ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image, write_image
from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path, write_json
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, files_below, make_frame, read_record, require_file
from metricanything.sources.nerfstudio import camera_of

_VERSION = "0.1"


def items(path: Path, *, licence: str = "not stated") -> Items:
    """Frames with depth of all scenes at or below `path`, by scene, in the order of the scene's file.

    `licence` is that of the data, which the format does not state. Raises InputError (see `Items`) and for a scene
    that is malformed.
    """
    path = Path(path)
    found = [item for file in files_below(path) if file.name == "scene_meta.json" for item in _listing(file)]
    return Items(found, partial(_load, path, licence), path=path, expected="SCENE/scene_meta.json with depth")


def _listing(file: Path) -> list[tuple[Path, str, dict[str, Any]]]:
    """Scene file, key of the depth and record (with what is shared) of every frame that has depth."""
    record = read_record(file)
    frames, modalities = record.get("frames"), record.get("frame_modalities")
    if not isinstance(frames, list) or not isinstance(modalities, dict):
        raise InputError(f"{file}: needs frames (a list) and frame_modalities (an object); write it again")
    key = str(dict(modalities.get("depth") or {}).get("frame_key", "depth"))
    shared = {name: value for name, value in record.items() if name not in ("frames", "frame_modalities")}
    return [(file, key, {**shared, **frame}) for frame in frames if frame.get(key)]


def _load(root: Path, licence: str, item: tuple[Path, str, dict[str, Any]]) -> Frame:
    where, key, record = item
    scene = where.parent
    try:
        file, depth_file = scene / (record.get("image") or record["file_path"]), scene / record[key]
        pose = np.array(record["transform_matrix"], dtype=np.float64).reshape(4, 4)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: a frame needs image, {key} and transform_matrix (4x4); write it again") from None
    if record.get("camera_convention", "opencv") != "opencv":
        raise InputError(f"{where}: camera_convention must be opencv, is {record['camera_convention']!r}")
    image = read_image(require_file(file, "scene_meta.json names this image"))
    depth = read_depth(require_file(depth_file, "scene_meta.json names this depth map"))
    camera = camera_of(record, image.shape[1], image.shape[0], where)
    metric = record.get("scale_type") == "metric"
    origin = Origin(
        "reconstructed",
        "mvs",
        str(record.get("dataset_name", scene.name)),
        licence,
        "metric" if metric else "up_to_scale",
    )
    name = f"{record.get('scene_name', scene.name)}/{record.get('frame_name', file.stem)}"
    return make_frame(name, image, depth, camera, origin.stated(root, scene), depth_file, pose=pose)


def write_scene(frames: Iterable[Frame], folder: str | Path) -> int:
    """Write frames as one WAI scene, one at a time, and return how many there were; the scene's file comes last.

    Images are PNG, exact; depth is float32 EXR with 0 for unknown and for the sky, which the format has no value for.
    Raises InputError for a frame without pose, a lens the format does not know, scales that differ, and for no frames.
    """
    folder = Path(folder)
    records: list[dict[str, Any]] = []
    scales: set[str] = set()
    for number, frame in enumerate(frames):
        if frame.world_from_cam is None:
            raise InputError(f"{frame.name}: has no pose; WAI needs one for every frame")
        name = f"{number:06d}"
        lens = _lens(frame.camera, frame.name)
        scales.add(frame.scale)
        write_image(folder / f"images/{name}.png", frame.image)
        _write_exr(folder / f"depth/{name}.exr", np.where(np.isfinite(frame.depth), frame.depth, np.float32(0)))
        files = {"image": f"images/{name}.png", "file_path": f"images/{name}.png", "depth": f"depth/{name}.exr"}
        records.append({"frame_name": name, **files, "transform_matrix": frame.world_from_cam.tolist(), **lens})
        source = frame.source
    if not records or len(scales) > 1:
        raise InputError(f"{folder}: a scene needs frames of one scale, got {', '.join(sorted(scales)) or 'none'}")
    modalities = {name: {"frame_key": name, "format": name} for name in ("image", "depth")}
    scene = {"scene_name": folder.resolve().name, "dataset_name": source, "version": _VERSION}
    kind = {"camera_convention": "opencv", "shared_intrinsics": False, "scale_type": scales.pop()}
    meta = {**scene, **kind, "scene_modalities": {}, "frames": records, "frame_modalities": modalities}
    write_json(folder / "scene_meta.json", meta)
    return len(records)


def _write_exr(path: Path, values: NDArray[np.float32]) -> None:
    """One float32 channel Y, as OpenCV writes grey images, with 0 where ours are NaN."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with atomic_path(path) as temporary, OpenEXR.File(header, {"Y": np.ascontiguousarray(values)}) as file:
        file.write(str(temporary))


def _lens(camera: Camera, name: str) -> dict[str, Any]:
    fx, fy, cx, cy, *rest = camera.params
    record = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": camera.width, "h": camera.height}
    if camera.model == "pinhole":
        return {**record, "camera_model": "PINHOLE"}
    if camera.model == "kannala_brandt":
        return {**record, **dict(zip(("k1", "k2", "k3", "k4"), rest, strict=True)), "camera_model": "OPENCV_FISHEYE"}
    if camera.model == "opencv" and not any(rest[5:]):
        return {**record, **dict(zip(("k1", "k2", "p1", "p2", "k3"), rest, strict=False)), "camera_model": "OPENCV"}
    raise InputError(f"{name}: WAI has no such lens ({camera.model}); undistort the frames first")
