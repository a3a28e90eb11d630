"""Reading training shards with random access."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.codec import BLOCK, decode_frame, padded
from metricanything.curate.index import INDEX, MEMBERS, Columns, read_table, shard_name


class Shards:
    """The frames of a shard folder by number, and the columns of its index (docs/shards.md).

    Opening takes the same time at any size, and reading a frame is one read at a known place, so that nothing grows
    with the number of frames. An object may be used from several threads, after a fork, and in other processes, where
    it arrives as its path. Raises InputError when the folder has no index (unfinished, or not a shard folder).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = self.folder / INDEX
        if not index.is_file():
            raise InputError(f"{self.folder}: no {INDEX}; not a shard folder, or its writing was interrupted")
        #: All columns by name.
        self.columns = Columns(read_table(index), index)
        self._shard, self._offset = self.columns["shard"], self.columns["offset"]
        self._sizes = {member: self.columns[f"{member}_size"] for member in MEMBERS}

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.folder,))

    def __len__(self) -> int:
        return len(self._shard)

    def column(self, name: str) -> NDArray[Any]:
        """One column (N,) of the index; numbers without a copy and read-only, NaN where unknown."""
        return self.columns[name]

    def coded(self, name: str) -> tuple[NDArray[np.integer], list[str]]:
        """Codes (N,) and the texts they stand for: source, kind, sensor, scale, licence, camera_model, reasons."""
        return self.columns.coded(name)

    @cached_property
    def kept(self) -> NDArray[np.int64]:
        """Numbers of the frames that no rule of quality put aside, rising."""
        return np.flatnonzero(self.columns["kept"])

    def sources(self) -> list[str]:
        """The source of every frame, without reading any; `coded` tells the same without a list of all frames."""
        return self._texts("source")

    def kinds(self) -> list[str]:
        """The kind of every frame, without reading any."""
        return self._texts("kind")

    def _texts(self, name: str) -> list[str]:
        codes, texts = self.coded(name)
        return [texts[code] for code in codes]

    def name(self, number: int) -> str:
        """The name of frame `number`."""
        return self.columns.text("name", number)

    def frame(self, number: int) -> Frame:
        """Decode frame `number`; raises InputError, naming the shard, when its bytes are damaged."""
        where, members = self.encoded(number)
        with self.decoding(where):
            frame = decode_frame(members, where)
            if frame.name != self.name(number):
                raise ValueError(f"the index has another frame here than the shard, {frame.name}")
            return frame

    def encoded(self, number: int) -> tuple[str, dict[str, bytes]]:
        """The members of frame `number` as they are stored, and what to call it in messages; InputError like `frame`.

        Whoever decodes them does it within `decoding`.
        """
        path = self.folder / shard_name(int(self._shard[number]))
        where = f"{path}:{self.name(number)}"
        with self.decoding(where):
            return where, self._members(path, number)

    @staticmethod
    @contextmanager
    def decoding(where: str) -> Iterator[None]:
        """Raise InputError for what damaged members make the block raise."""
        try:
            yield
        except (OSError, KeyError, TypeError, ValueError) as error:
            reason = str(error).removeprefix(f"{where}: ")
            raise InputError(f"{where}: damaged ({reason}); write the shards again") from None

    def _members(self, path: Path, number: int) -> dict[str, bytes]:
        """The members of a frame, which follow each other in the tar file, each after a header of one block."""
        sizes = {member: int(self._sizes[member][number]) for member in MEMBERS if self._sizes[member][number]}
        with open(path, "rb", buffering=0) as file:
            file.seek(int(self._offset[number]))
            data = file.read(sum(BLOCK + padded(size) for size in sizes.values()))
        members, start = dict[str, bytes](), 0
        for member, size in sizes.items():
            members[member] = data[start + BLOCK : start + BLOCK + size]
            start += BLOCK + padded(size)
        return members
