"""Raw formats: one file per format, each turning a path into an iterator of `Frame`, behind one registry.

A reader is a function `read(path, *, on_error=None, **options) -> Iterator[Frame]`: it lists its items when called
and loads each one only when asked for it. To add one, write the file and register it in `READERS`; the tests in
tests/test_sources.py then ask for a fixture. Nothing heavy is imported before a reader is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import OnError

__all__ = ["READERS", "OnError", "Reader", "read"]


@dataclass(frozen=True)
class Reader:
    """One raw format: its `name` on the command line, what it is, where it is specified and under which terms.

    `url` is the format's documentation (a module of this package for its own formats).
    `metric` says whether its depth is in metres without being told; `needs_path` is False for generators.
    """

    name: str
    description: str
    url: str
    licence: str
    metric: bool = True
    needs_path: bool = True

    def load(self) -> Callable[..., Iterator[Frame]]:
        """The function `read` of the module of this name, imported now."""
        function: Callable[..., Iterator[Frame]] = import_module(f"{__name__}.{self.name}").read
        return function


_ALL = (
    Reader(
        "folder",
        "images with depth maps and cameras: FRAME/{image,depth,meta.json} or images/ depth/ cameras/",
        "metricanything/sources/folder.py",
        "that of your data; state it as `licence` in dataset.json or meta.json",
    ),
    Reader(
        "colmap",
        "COLMAP sparse model (bin or txt) with its images; 3D points as sparse depth",
        "https://colmap.github.io/format.html",
        "that of your data; state it as `licence` in dataset.json",
        metric=False,
    ),
    Reader(
        "tum",
        "TUM RGB-D sequence: rgb.txt, depth.txt, groundtruth.txt",
        "https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats",
        "TUM RGB-D: CC BY 4.0, cite Sturm et al., IROS 2012",
    ),
    Reader(
        "kitti_raw",
        "KITTI raw drives, synced and rectified: colour images with Velodyne sweeps",
        "https://www.cvlibs.net/datasets/kitti/raw_data.php",
        "KITTI: CC BY-NC-SA 3.0 (non-commercial), cite Geiger et al., IJRR 2013",
    ),
    Reader(
        "procedural",
        "rendered rooms and objects with exact depth, made on the fly",
        "metricanything/sources/procedural/__init__.py",
        "CC0-1.0 (generated)",
        needs_path=False,
    ),
)
#: Every reader by name.
READERS: dict[str, Reader] = {reader.name: reader for reader in _ALL}


def read(
    kind: str, path: str | Path | None = None, *, on_error: OnError | None = None, **options: Any
) -> Iterator[Frame]:
    """Frames of the raw data at `path` in the format `kind`, streamed.

    A bad item is reported to `on_error` and skipped; without `on_error` it is raised. `options` are those of the
    reader. Raises InputError for an unknown kind or option, a missing path and a folder without frames.
    """
    if kind not in READERS:
        raise InputError(f"source kind {kind!r} is unknown; use one of {', '.join(READERS)}")
    reader = READERS[kind]
    function = reader.load()
    known = set(inspect.signature(function).parameters) - {"path", "on_error"}
    if unknown := sorted(set(options) - known):
        raise InputError(f"source {kind}: no option {', '.join(unknown)}; it has {', '.join(sorted(known)) or 'none'}")
    if not reader.needs_path:
        return function(path, **options)
    if path is None:
        raise InputError(f"source {kind}: needs the folder to read; give a path")
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}; give the folder of the {kind} data")
    return function(folder, on_error=on_error, **options)
