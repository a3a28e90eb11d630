"""Several shard folders looked at as one: their columns in one piece, their frames by one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards


class Collection(Mapping[str, NDArray[Any]]):
    """The frames of shard folders one after the other; a mapping of column names to arrays (N,).

    Raises InputError when no folder is given, or one twice, and for what `Shards` raises.
    """

    def __init__(self, folders: Sequence[str | Path]) -> None:
        if not folders:
            raise InputError("no shard folder given")
        self.folders = [Path(folder) for folder in folders]
        if len({folder.resolve() for folder in self.folders}) < len(self.folders):
            raise InputError("a shard folder was given twice; its frames would all be duplicates")
        self.parts = [Shards(folder) for folder in self.folders]
        self._start = np.cumsum([0, *map(len, self.parts)])
        #: How many frames there are.
        self.frames = int(self._start[-1])

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self:
            raise KeyError(name)
        columns = [part.column(name) for part in self.parts]
        return columns[0] if len(columns) == 1 else np.concatenate(columns)

    def __iter__(self) -> Iterator[str]:
        names = [list(part.columns) for part in self.parts]
        return (name for name in names[0] if all(name in other for other in names[1:]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def coded(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """Codes (N,) and the texts they stand for, the same codes for all folders."""
        coded = [part.coded(name) for part in self.parts]
        texts = sorted({text for _, own in coded for text in own})
        place = {text: i for i, text in enumerate(texts)}
        codes = [np.array([place[t] for t in own], dtype=np.int64)[code] for code, own in coded if len(code)]
        return np.concatenate(codes or [np.empty(0, np.int64)]), texts

    def folder_of(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        """The place in `folders` of frames."""
        return np.searchsorted(self._start, numbers, side="right") - 1

    def name(self, number: int) -> str:
        """The name of a frame."""
        part, own = self._place(number)
        return part.name(own)

    def frame(self, number: int) -> Frame:
        """Decode a frame; InputError like `Shards.frame`."""
        part, own = self._place(number)
        return part.frame(own)

    def _place(self, number: int) -> tuple[Shards, int]:
        which = int(self.folder_of(np.array([number]))[0])
        return self.parts[which], number - int(self._start[which])
