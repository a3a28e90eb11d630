"""Raw formats: one file per format, each turning a path into frames by number, behind one registry.

A reader is a function `items(path, **options) -> Items`: it lists what there is when called and loads each frame only
when asked for it, in any order. Its options are checked against their annotations, which also tell the
command line what `--option NAME=…` takes. To add one, write the file and register it in `sources/formats.py`; the
tests in tests/test_sources.py then ask for a fixture. Nothing heavy is imported before a reader is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Changed, Items, OnError
from metricanything.sources.formats import ALL
from metricanything.sources.reader import SHARED, Option, Reader

__all__ = ["READERS", "Items", "OnError", "Option", "Reader", "open_items", "read", "resembles"]

#: Every reader by name.
READERS: dict[str, Reader] = {reader.name: reader for reader in ALL}


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

    `options` are those of the reader (`READERS[kind].options()`), which include two that every reader has: `undistort`
    turns frames of distorted cameras into pinhole frames (see `sources.undistort`), `limit` keeps the first so many
    items. Raises InputError for an unknown kind, an option that is unknown or of another type, a missing path and a
    folder without frames; the message then says what the folder resembles.
    """
    if kind not in READERS:
        names = ", ".join(READERS)
        raise InputError(f"source kind {kind!r} is unknown; use one of {names}{_hint(path)}")
    reader = READERS[kind]
    function, known = reader.load(), reader.options()
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"source {kind}: no option {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    for name, value in options.items():
        if not known[name].takes(value):
            raise InputError(f"source {kind}: option {name} must be {known[name].wants()}, got {value!r}")
    shared = {name: options.pop(name, option.default) for name, option in SHARED.items()}
    if shared["limit"] is not None and shared["limit"] < 1:
        raise InputError(f"source {kind}: limit must be at least 1, got {shared['limit']}")
    items = _listed(reader, function, path, options)
    if not any(shared.values()):
        return items
    change = None
    if shared["undistort"]:
        from metricanything.sources.undistort import undistort

        change = undistort
    return Changed(items, change, shared["limit"])


def resembles(path: str | Path) -> list[str]:
    """Names of the formats whose files a folder holds (see `Reader.signs`); nothing but file names is looked at."""
    return [name for name, reader in READERS.items() if reader.recognises(Path(path))]


def _listed(reader: Reader, function: Any, path: str | Path | None, options: dict[str, Any]) -> Items:
    kind = reader.name
    if not reader.needs_path:
        return function(path, **options)
    if path is None:
        raise InputError(f"source {kind}: needs the folder to read; give a path")
    folder = Path(path)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {problem}; source {kind} reads a folder of data")
    try:
        return function(folder, **options)
    except InputError as error:
        if reader.recognises(folder):
            raise
        raise InputError(f"{error}{_hint(folder)}") from None


def _hint(path: str | Path | None) -> str:
    """What a folder resembles, as the end of a message."""
    found = resembles(path) if path is not None and Path(path).is_dir() else []
    return f"; the folder looks like {' or '.join(found)}" if found else ""
