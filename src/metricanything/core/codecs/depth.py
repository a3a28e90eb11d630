"""Depth maps in files: the float formats, and one registry of all formats."""

from __future__ import annotations

import io
import math
import re
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs.png16 import (
    clean_depth,
    log_png_error,
    png16_scale,
    read_png_depth,
    write_depth_log_png,
    write_depth_png16,
)
from metricanything.core.codecs.reading import check_size, reading
from metricanything.core.errors import InputError, MissingScale
from metricanything.core.files import atomic_path, write_bytes

Float32 = NDArray[np.float32]


# ---------------------------------------------------------------- npy, npz


def read_npy(path: str | Path) -> NDArray[Any]:
    """The array of a .npy file, or the only one (or the one named `depth`) of a .npz file; numbers only.

    Raises InputError for pickled objects, other dtypes, a damaged file, or more than `MAX_PIXELS` values.
    """
    path = Path(path)
    with reading(path, "numpy file"), open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            return _parse_npy(file, path.stat().st_size, path)
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            if len(names) != 1 and "depth.npy" not in names:
                raise InputError(f"{path}: holds {len(names)} arrays; keep one, or name the depth 'depth'")
            member = archive.getinfo("depth.npy" if "depth.npy" in names else names[0])
            with archive.open(member) as stream:
                return _parse_npy(stream, member.file_size, path)


def _parse_npy(stream: IO[bytes], size: int, name: Path) -> NDArray[Any]:
    """Array of a .npy stream of `size` bytes; shape and type are checked before a value is read, never unpickled."""
    version = np.lib.format.read_magic(stream)
    parse = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = parse(stream)
    if dtype.kind not in "fiu":
        raise InputError(f"{name}: holds {dtype} values, not numbers; save a float32 array")
    count = math.prod(shape)
    check_size(name, count, 1)
    # Compared with the bytes at hand, so that a forged shape cannot make us allocate.
    if count * dtype.itemsize > size:
        raise InputError(f"{name}: shorter than its shape {shape} needs; the file is truncated, fetch it again")
    data = stream.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")


def write_depth_npy(path: str | Path, depth: NDArray[Any]) -> None:
    """Write depth (H, W) in metres as float32 .npy; exact."""
    buffer = io.BytesIO()
    np.save(buffer, clean_depth(depth), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def write_depth_npz(path: str | Path, depth: NDArray[Any]) -> None:
    """Write depth (H, W) in metres as compressed .npz with the array `depth`, float32; exact."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, depth=clean_depth(depth))
    write_bytes(path, buffer.getvalue())


# ---------------------------------------------------------------- EXR


def read_exr(path: str | Path) -> Float32:
    """One channel float32 (H, W) of an OpenEXR file: Z, Y, V, R or depth (also with a layer prefix), else the first."""
    path = Path(path)
    with reading(path, "EXR file"):
        import OpenEXR

        # OpenEXR reports a directory or a missing file as any other failure.
        open(path, "rb").close()
        with OpenEXR.File(str(path), header_only=True) as file:
            header = file.header()
            low, high = header["dataWindow"]
            width, height = int(high[0]) - int(low[0]) + 1, int(high[1]) - int(low[1]) + 1
            check_size(path, width, height)
            full = header["displayWindow"]
            if not (np.array_equal(low, full[0]) and np.array_equal(high, full[1])):
                raise InputError(f"{path}: stores a cropped window of its image; write the full frame")
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
        usual = [key for wanted in ("Z", "Y", "V", "R", "depth") for key in channels if key.split(".")[-1] == wanted]
        return np.asarray(channels[(usual or list(channels))[0]]).astype(np.float32)


def decode_depth_exr(data: bytes, name: str) -> Float32:
    """The same as `read_exr` for a file in memory; `name` stands for it in messages."""
    with tempfile.NamedTemporaryFile(suffix=".exr") as file:  # OpenEXR reads files only
        file.write(data)
        file.flush()
        try:
            return read_exr(file.name)
        except InputError as error:
            raise InputError(str(error).replace(file.name, name)) from None


def encode_depth_exr(depth: NDArray[Any]) -> bytes:
    """The file that `write_depth_exr` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "depth.exr"
        write_depth_exr(path, depth)
        return path.read_bytes()


def write_depth_exr(path: str | Path, depth: NDArray[Any]) -> None:
    """Write depth (H, W) in metres as the float32 channel Z of a ZIP-compressed OpenEXR file; exact."""
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with atomic_path(path) as temporary, OpenEXR.File(header, {"Z": np.ascontiguousarray(clean_depth(depth))}) as file:
        file.write(str(temporary))


# ---------------------------------------------------------------- PFM


def read_pfm(path: str | Path) -> Float32:
    """The raw values float32 (H, W), top row first, of a grey PFM file (rows stored bottom-up, sign = byte order).

    The magnitude of the scale is ignored, as Middlebury and BlendedMVS do. Raises InputError for a colour PFM.
    Format: Paul Debevec's description of Portable FloatMap.
    """
    path = Path(path)
    with reading(path, "PFM file"), open(path, "rb") as file:
        head = re.match(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,32})\s", file.read(128))
        if head is None:
            raise InputError(f"{path}: not a PFM file (its header is not 'Pf width height scale'); check the file")
        kind, width, height, scale = head[1], int(head[2]), int(head[3]), float(head[4])
        if kind == b"PF":
            raise InputError(f"{path}: a colour PFM; depth is a grey one (Pf)")
        check_size(path, width, height)
        if path.stat().st_size < head.end() + 4 * width * height:
            raise InputError(f"{path}: shorter than {width}x{height} values need; truncated, fetch it again")
        file.seek(head.end())
        values = np.frombuffer(file.read(4 * width * height), "<f4" if scale < 0 else ">f4")
    return values.reshape(height, width)[::-1].astype(np.float32)


def write_depth_pfm(path: str | Path, depth: NDArray[Any]) -> None:
    """Write depth (H, W) in metres as a grey little-endian PFM file; exact."""
    depth = clean_depth(depth)
    header = f"Pf\n{depth.shape[1]} {depth.shape[0]}\n-1.0\n".encode()
    write_bytes(path, header + depth[::-1].astype("<f4").tobytes())


# ---------------------------------------------------------------- the registry


@dataclass(frozen=True)
class DepthFormat:
    """How one format stores depth: its suffix, its writer and reader, and what survives a round trip.

    read(path, scale): metres float32 (H, W); max_error(depth): largest absolute error in metres, per pixel.
    """

    suffix: str
    write: Callable[[str | Path, NDArray[Any]], None]
    read: Callable[[str | Path, float | None], Float32]
    max_error: Callable[[NDArray[Any]], NDArray[Any]]
    keeps_inf: bool = True


def _scaled(read: Callable[[str | Path], NDArray[Any]]) -> Callable[[str | Path, float | None], Float32]:
    """Reader in metres from one of raw values: floats are metres unless a scale is given, integers need one."""

    def read_metres(path: str | Path, scale: float | None) -> Float32:
        values = read(path)
        if scale is None and values.dtype.kind in "iu":
            raise MissingScale(f"{path}: holds whole numbers; give their scale in values per metre (1000 for mm)")
        return clean_depth(values if scale is None else values / np.float64(scale), path)

    return read_metres


#: All formats that `read_depth` reads. Formats with the same suffix share a reader.
DEPTH_FORMATS = {
    "png16": DepthFormat(
        ".png",
        write_depth_png16,
        read_png_depth,
        lambda depth: np.full(depth.shape, 0.5 / png16_scale(depth)) + np.spacing(depth),
        keeps_inf=False,
    ),
    "log-png16": DepthFormat(
        ".png", write_depth_log_png, read_png_depth, lambda depth: depth * np.float64(log_png_error(depth))
    ),
    "npy": DepthFormat(".npy", write_depth_npy, _scaled(read_npy), np.zeros_like),
    "npz": DepthFormat(".npz", write_depth_npz, _scaled(read_npy), np.zeros_like),
    "exr": DepthFormat(".exr", write_depth_exr, _scaled(read_exr), np.zeros_like),
    "pfm": DepthFormat(".pfm", write_depth_pfm, _scaled(read_pfm), np.zeros_like),
}


def read_depth(path: str | Path, scale: float | None = None) -> Float32:
    """Depth float32 (H, W) in metres of a .png, .npy, .npz, .exr or .pfm file; NaN unknown, +inf kept.

    `scale` is in values per metre. A 16-bit PNG needs it unless it states its own; float files are metres without it.
    0 and negative values are unknown. Raises InputError for a bad file, an unknown suffix, a missing or contradictory
    scale.
    """
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise InputError(f"{path}: depth scale must be a positive number of values per metre, got {scale}")
    readers = {entry.suffix: entry.read for entry in DEPTH_FORMATS.values()}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise InputError(f"{path}: depth files are {', '.join(readers)}; convert it to one of these")
    return readers[suffix](path, scale)
