"""Archives of the Record3D app, NAME.r3d (https://record3d.app): what `record3d` reads, not yet exported.

A zip file with `metadata` (JSON, as `metadata.json` of an export) and, by frame number, `rgbd/N.jpg`, `rgbd/N.depth`
and `rgbd/N.conf`. Depth is float32 metres and confidence a byte of 0, 1 or 2, both LZFSE-compressed and of `dh` rows
and `dw` columns; archives without these sizes have the grid of 192x256 that fits the image. Pixel centres, poses and
cameras are those of `record3d`.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs import decode_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import late
from metricanything.sources.common import Items, Origin, files_below, make_frame
from metricanything.sources.filters import clean_tof
from metricanything.sources.record3d import geometry

_ORIGIN = Origin("captured", "tof", "Record3D", "not stated")
_LIDAR = (192, 256)  # the short and the long side of the sensor's grid


def items(path: Path, *, min_confidence: int = 1, flying: bool = True) -> Items:
    """Frames of all archives at or below `path`, sorted by archive and number; options as in `record3d`.

    Raises InputError (see `Items`) and for a file that is no archive.
    """
    path = Path(path)
    found = [(file, n) for file in files_below(path) if file.suffix.lower() == ".r3d" for n in _numbers(file)]
    return Items(found, partial(_load, path, min_confidence, flying), path=path, expected="NAME.r3d archives")


def _numbers(file: Path) -> list[int]:
    with reading(file, "Record3D archive"), ZipFile(file) as archive:
        names = [Path(name) for name in archive.namelist()]
    return sorted(int(n.stem) for n in names if n.parent.name == "rgbd" and n.suffix == ".jpg" and n.stem.isdigit())


def _load(root: Path, min_confidence: int, flying: bool, item: tuple[Path, int]) -> Frame:
    file, number = item
    record, (picture, depth_data, confidence_data) = _members(file, number)
    inside = file / "rgbd"
    image = decode_image(picture, f"{inside / str(number)}.jpg")
    where = inside / f"{number}.depth"
    shape = _grid(record, image.shape[1] > image.shape[0], file)
    depth = clean_depth(_unpack(depth_data, "<f4", shape, where), where)
    confidence = None
    if confidence_data is not None:
        confidence = _unpack(confidence_data, "u1", shape, inside / f"{number}.conf")
    depth, removed = clean_tof(depth, confidence, min_confidence, flying)
    camera, pose = geometry(record, file / "metadata", str(number))
    name = (file.relative_to(root).with_suffix("") / str(number)).as_posix()
    origin = _ORIGIN.stated(root, file.parent)
    return make_frame(name, image, depth, camera, origin, where, pose=pose, notes={"removed": removed})


def _members(file: Path, number: int) -> tuple[dict[str, Any], tuple[bytes, bytes, bytes | None]]:
    """The metadata, and the image, depth and, where there is one, confidence of a frame as they are stored."""
    stem = f"rgbd/{number}"
    with reading(file, "Record3D archive"), ZipFile(file) as archive:
        there = set(archive.namelist())
        if missing := sorted({"metadata", f"{stem}.depth"} - there):
            raise InputError(f"{file / missing[0]}: is not in the archive; record or export it again")
        record = json.loads(archive.read("metadata"))
        if not isinstance(record, dict):
            raise InputError(f"{file / 'metadata'}: must hold a JSON object; record or export it again")
        confidence = archive.read(f"{stem}.conf") if f"{stem}.conf" in there else None
        return record, (archive.read(f"{stem}.jpg"), archive.read(f"{stem}.depth"), confidence)


def _grid(record: dict[str, Any], landscape: bool, file: Path) -> tuple[int, int]:
    """Rows and columns of the depth map."""
    rows, columns = record.get("dh"), record.get("dw")
    if rows is None and columns is None:
        return _LIDAR if landscape else _LIDAR[::-1]
    if not (isinstance(rows, int) and isinstance(columns, int) and rows > 0 and columns > 0):
        raise InputError(f"{file / 'metadata'}: dh and dw must be whole numbers of pixels; record or export it again")
    return rows, columns


def _unpack(data: bytes, dtype: str, shape: tuple[int, int], where: Path) -> NDArray[Any]:
    liblzfse = late("liblzfse", "Record3D archives", extra="r3d")
    with reading(where, "LZFSE-compressed map"):
        raw = liblzfse.decompress(data)
    wanted = shape[0] * shape[1] * np.dtype(dtype).itemsize
    if len(raw) != wanted:
        raise InputError(
            f"{where}: holds {len(raw)} bytes and not {wanted} of {shape[1]}x{shape[0]} pixels; fetch it again"
        )
    return np.frombuffer(raw, dtype).reshape(shape)
