"""Points of a cloud in any of the usual files, as float32 or float64 (N, 3) in the file's own frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.codecs import read_npy, read_ply
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError

#: Suffixes in the order in which they are tried: the longer one of nuScenes before that of KITTI.
SUFFIXES = (".pcd.bin", ".ply", ".pcd", ".las", ".laz", ".npy", ".npz", ".bin")


def read_cloud(path: Path) -> NDArray[Any]:
    """Finite points (N, 3) of a PLY, PCD (ascii, binary, compressed), LAS, LAZ, NPY or NPZ (N, 3 or more columns), of
    a KITTI `.bin` (float32 x, y, z, reflectance) or a nuScenes `.pcd.bin` (float32 x, y, z, intensity, ring).

    Raises InputError for another suffix, a damaged file and a library that is missing.
    """
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(f"{path}: no known point cloud; use {', '.join(SUFFIXES)}")
    xyz = _READ[suffix](path)
    return xyz[np.isfinite(xyz).all(axis=1)]


def read_columns(path: Path, columns: int) -> NDArray[np.float32]:
    """The float32 rows (N, columns) of a file that holds nothing else."""
    with reading(path, "file of points"):
        data = path.read_bytes()
    if len(data) == 0 or len(data) % (4 * columns):
        raise InputError(f"{path}: {len(data)} bytes are not whole points of {4 * columns} bytes; fetch the file again")
    return np.frombuffer(data, dtype="<f4").reshape(-1, columns)


def read_pcd(path: Path, fields: tuple[str, ...]) -> NDArray[np.float64]:
    """Fields of a PCD file as float64 (N, len(fields)); needs pypcd4."""
    pypcd4 = late("pypcd4", "PCD files")
    with reading(path, "PCD file"):
        cloud = pypcd4.PointCloud.from_path(path)
        if missing := [f for f in fields if f not in cloud.fields]:
            raise InputError(f"{path}: has no field {', '.join(missing)}, only {', '.join(cloud.fields)}")
        return np.stack([cloud.pc_data[f].astype(np.float64) for f in fields], axis=1)


def late(module: str, what: str, extra: str = "readers") -> Any:
    """A module of an extra, imported now; raises InputError that names the extra when it is missing."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise InputError(
            f"reading {what} needs {module}; install it with pip install 'metricanything[{extra}]'"
        ) from None


def _las(path: Path) -> NDArray[np.float64]:
    laspy = late("laspy", "LAS and LAZ files")
    with reading(path, "LAS file"):
        return np.asarray(laspy.read(path).xyz, dtype=np.float64)


def _npy(path: Path) -> NDArray[Any]:
    points = read_npy(path)
    if points.ndim != 2 or points.shape[1] < 3:
        raise InputError(f"{path}: holds {points.shape}; points are rows of at least x, y, z")
    return points[:, :3]


_READ: dict[str, Callable[[Path], NDArray[Any]]] = {
    ".pcd.bin": lambda path: read_columns(path, 5)[:, :3],
    ".ply": lambda path: read_ply(path)[0],
    ".pcd": lambda path: read_pcd(path, ("x", "y", "z")),
    ".las": _las,
    ".laz": _las,
    ".npy": _npy,
    ".npz": _npy,
    ".bin": lambda path: read_columns(path, 4)[:, :3],
}
