"""ScanNet `.sens` recordings (https://github.com/ScanNet/ScanNet, SensReader): colour and depth of a Structure Sensor.

Header: uint32 version 4, a name, four float32 4x4 (colour K, colour extrinsic, depth K, depth extrinsic), int32 kinds
of compression (2 JPEG; 1 zlib), the four sizes, float32 depth_shift (values per metre) and the number of frames. A
frame is float32 4x4 world from camera, two times, two lengths and the bytes. Depth has its own camera (640x480, another
view than the 1296x968 of colour): each depth pixel is taken to the colour image as a point. Principal points count the
first pixel's centre as 0: 0.5 is added. A pose of -inf (tracking lost) is left out.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import decode_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import check_size, reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, make_frame
from metricanything.sources.lidar import register_depth

_ORIGIN = Origin("captured", "rgbd", "ScanNet", "ScanNet terms of use (research), cite Dai et al., CVPR 2017")
_HEADER = struct.Struct("<64fii4IfQ")
_FRAME = struct.Struct("<16fQQQQ")


@dataclass(frozen=True)
class _Recording:
    """What the header of one .sens file says; `color_from_depth` (4, 4)."""

    file: Path
    color: Camera
    depth: Camera
    color_from_depth: NDArray[np.float64]
    scale: float


def items(path: Path, *, every: int = 1) -> Items:
    """Frames of all .sens files at or below `path`, of each every `every`-th.

    Listing reads the headers of the frames only. Raises InputError (see `Items`) and for a file that is damaged or
    compressed in another way.
    """
    path = Path(path)
    if every < 1:
        raise InputError(f"source scannet: every must be at least 1, got {every}")
    found = [item for file in sorted(path.rglob("*.sens")) for item in _listing(file)[::every]]
    return Items(found, partial(_load, path), path=path, expected="SCENE.sens")


def _listing(path: Path) -> list[tuple[_Recording, int, int]]:
    """The recording, number and place in the file of every frame."""
    with reading(path, "ScanNet recording"), path.open("rb") as file:
        version, length = struct.unpack("<IQ", file.read(12))
        if version != 4 or length > 4096:
            raise InputError(f"{path}: is version {version} of the format, not 4; fetch it again")
        file.seek(length, 1)
        values = _HEADER.unpack(file.read(_HEADER.size))
        matrices = np.array(values[:64]).reshape(4, 4, 4)
        color_kind, depth_kind, cw, ch, dw, dh, shift, count = values[64:]
        if (color_kind, depth_kind) != (2, 1):
            raise InputError(f"{path}: is compressed as {color_kind}, {depth_kind}; only JPEG with zlib is read")
        check_size(path, dw, dh)
        recording = _Recording(
            path,
            _camera(matrices[0], cw, ch),
            _camera(matrices[2], dw, dh),
            np.linalg.inv(matrices[1]) @ matrices[3],
            shift,
        )
        found = []
        for number in range(count):
            place = file.tell()
            *_, color_bytes, depth_bytes = _FRAME.unpack(file.read(_FRAME.size))
            file.seek(color_bytes + depth_bytes, 1)
            found.append((recording, number, place))
    return found


def _camera(matrix: NDArray[np.float64], width: int, height: int) -> Camera:
    return Camera.pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5, width, height)


def _load(root: Path, item: tuple[_Recording, int, int]) -> Frame:
    recording, number, place = item
    path, size = recording.file, recording.depth
    where = f"{path}: frame {number}."
    with reading(where, "frame of a ScanNet recording"), path.open("rb") as file:
        file.seek(place)
        *values, _, _, color_bytes, depth_bytes = _FRAME.unpack(file.read(_FRAME.size))
        image = decode_image(file.read(color_bytes), where)
        raw = zlib.decompressobj().decompress(file.read(depth_bytes), 2 * size.width * size.height + 1)
        if len(raw) != 2 * size.width * size.height:
            raise InputError(f"{where} its depth is not {size.width}x{size.height} values; fetch it again")
    depth = np.frombuffer(raw, "<u2").reshape(size.height, size.width)
    metres = clean_depth(depth / np.float64(recording.scale), path)
    registered, notes = register_depth(metres, size, recording.color_from_depth, recording.color)
    pose = np.array(values, dtype=np.float64).reshape(4, 4)
    name = f"{path.stem}/{number:06d}"
    return make_frame(name, image, registered, recording.color, _ORIGIN.stated(root), path, pose=pose, notes=notes)
