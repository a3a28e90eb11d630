"""Raw formats: one file per format, each turning a path into frames by number, behind one registry.

A reader is a function `items(path, **options) -> Items`: it lists what there is when called and loads each frame only
when asked for it, in any order. Its options are checked against their annotations, which also tell the
command line what `--option NAME=…` takes. To add one, write the file and register it in `READERS`; the tests in
tests/test_sources.py then ask for a fixture. Nothing heavy is imported before a reader is used.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, OnError

__all__ = ["READERS", "Items", "OnError", "Option", "Reader", "open_items", "read"]

#: What a value must be an instance of, where that is more than the annotated type (numpy's numbers, paths as text).
_TEXT = (str, os.PathLike)
_ACCEPTED: dict[type, type | tuple[type, ...]] = {float: Real, int: Integral, str: _TEXT, Path: _TEXT}
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True)
class Option:
    """One option of a reader as its signature states it: `name`, the `types` of its values and its `default`."""

    name: str
    types: tuple[type, ...]
    default: Any

    def takes(self, value: Any) -> bool:
        """Whether `value` is of one of the types."""
        if isinstance(value, str):  # is a Sequence as well, which is not meant
            return str in self.types or Path in self.types
        if isinstance(value, bool):  # is an int as well
            return bool in self.types
        return any(isinstance(value, _ACCEPTED.get(t, t)) for t in self.types)

    def wants(self) -> str:
        """The types in words, such as "a Camera or text"; None, for an option that may stay unset, goes unsaid."""
        return " or ".join(_WORDS.get(t, f"a {t.__name__}") for t in self.types if t is not type(None))


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

    def load(self) -> Callable[..., Items]:
        """The function `items` of the module of this name, imported now."""
        function: Callable[..., Items] = import_module(f"{__name__}.{self.name}").items
        return function

    def options(self) -> dict[str, Option]:
        """The options of the reader by name, from the signature of its function `items`."""
        function = self.load()
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        return {p.name: _option(p, hints[p.name]) for p in parameters if p.name != "path"}


def _option(parameter: inspect.Parameter, hint: Any) -> Option:
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return Option(parameter.name, tuple(get_origin(member) or member for member in members), parameter.default)


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

    A bad item is reported to `on_error` and skipped; without `on_error` it is raised. Options and errors are those of
    `open_items`.
    """
    items = open_items(kind, path, **options)
    return (frame for _, frame in items.read(on_error=on_error))


def open_items(kind: str, path: str | Path | None = None, **options: Any) -> Items:
    """The frames of the raw data at `path` in the format `kind` by number.

    `options` are those of the reader (`READERS[kind].options()`). Raises InputError for an unknown kind, an option that
    is unknown or of another type, a missing path and a folder without frames.
    """
    if kind not in READERS:
        raise InputError(f"source kind {kind!r} is unknown; use one of {', '.join(READERS)}")
    reader = READERS[kind]
    function, known = reader.load(), reader.options()
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"source {kind}: no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    for name, value in options.items():
        if not known[name].takes(value):
            raise InputError(f"source {kind}: option {name} must be {known[name].wants()}, got {value!r}")
    if not reader.needs_path:
        return function(path, **options)
    if path is None:
        raise InputError(f"source {kind}: needs the folder to read; give a path")
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}; source {kind} reads a folder of data")
    return function(folder, **options)
