"""Writing training shards: WebDataset-compatible tar files of frames, with an Arrow index beside them.

The members of a frame are described in `curate.codec`, the index in `curate.index`. The index is written last: a folder
without it is not finished.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path
from metricanything.core.frame import Frame
from metricanything.curate.codec import DEFAULT, Encoding, add_members, encode_frame
from metricanything.curate.index import (
    HASHES,
    INDEX,
    QUALITY,
    Columns,
    describe,
    join_tables,
    make_table,
    shard_name,
    with_decisions,
    write_table,
)

if TYPE_CHECKING:
    import pyarrow as pa

FRAMES_PER_SHARD = 256


class Measured(Protocol):
    """What was measured on a frame: `to_dict` gives numbers by name, NaN where unknown, and 64-bit `HASHES`."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Curation:
    """How frames are judged.

    measure(frame, neighbour): of every frame as it is written, with a frame of the same sequence where there is one;
    decide(columns of the index): kept, bool (N,), and reasons, text (N,), of all frames at the end.
    """

    measure: Callable[[Frame, Frame | None], Measured]
    decide: Callable[[Mapping[str, NDArray[Any]]], tuple[NDArray[np.bool_], Any]]


def write_shards(
    frames: Iterable[Frame],
    folder: str | Path,
    *,
    frames_per_shard: int = FRAMES_PER_SHARD,
    encoding: Encoding = DEFAULT,
    curation: Curation | None = None,
    progress: Callable[[Frame], None] | None = None,
) -> int:
    """Write `frames` in order into `folder` and return how many there were; the same frames give the same bytes.

    Every frame is written as it arrives and then let go. Every shard appears whole or not at all; an earlier set in
    the folder is replaced. Without `curation` nothing is measured and every frame is kept. Raises InputError when there
    are no frames.
    """
    if frames_per_shard < 1:
        raise InputError(f"frames_per_shard must be at least 1, got {frames_per_shard}")
    folder = Path(folder)
    tables: list[pa.Table] = []
    arriving = enumerate(frames)

    def written(frame: Frame, size: int) -> None:
        if progress is not None:
            progress(frame)

    for first in arriving:
        members = chain([first], islice(arriving, frames_per_shard - 1))
        with atomic_path(folder / shard_name(len(tables))) as temporary:
            tables.append(write_shard(temporary, len(tables), members, encoding, curation, written))
            # An older index would no longer fit the shards, should this run be interrupted.
            (folder / INDEX).unlink(missing_ok=True)
    if not tables:
        raise InputError(f"{folder}: no frames to write; the sources gave none")
    for left_over in set(folder.glob("shard-*.tar")) - {folder / shard_name(n) for n in range(len(tables))}:
        left_over.unlink()  # of an earlier, longer set: readers that list the folder must not find it
    return write_index(folder, tables, curation)


def write_shard(
    path: Path,
    shard: int,
    frames: Iterable[tuple[int, Frame]],
    encoding: Encoding,
    curation: Curation | None,
    progress: Callable[[Frame, int], None],
) -> pa.Table:
    """Write numbered frames into the tar file `path`, shard number `shard`, and return their part of the index.

    A frame's number is its key in the tar file. `progress` is called with every frame written and its size in bytes.
    """
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    with tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT, copybufsize=1 << 20) as tar:
        for number, frame, neighbour in _with_neighbours(frames, look_ahead=curation is not None):
            measured = {} if curation is None else curation.measure(frame, neighbour).to_dict()
            names = names or [name for name in measured if name not in HASHES]
            record = {name: value if value == value else None for name, value in measured.items()}  # JSON has no NaN
            members = encode_frame(frame, encoding, record or None)
            rows.append(
                {
                    "shard": shard,
                    **add_members(tar, f"{number:08d}", members, encoding),
                    **describe(frame),
                    **{name: measured.get(name, 0) for name in HASHES},
                    **{QUALITY + name: measured[name] for name in names},
                }
            )
            progress(frame, sum(map(len, members.values())))
    return make_table(rows, names)


def write_index(folder: Path, tables: Iterable[pa.Table], curation: Curation | None) -> int:
    """Join the parts of an index, decide what is kept and write it; how many frames there are."""
    table = join_tables(tables)
    if curation is not None:
        table = with_decisions(table, *curation.decide(Columns(table, folder)))
    write_table(folder / INDEX, table)
    return table.num_rows


def _with_neighbours(
    frames: Iterable[tuple[int, Frame]], *, look_ahead: bool
) -> Iterator[tuple[int, Frame, Frame | None]]:
    """Every frame with the one before it, the first with the one after it, where they are of one posed sequence."""
    arriving = iter(frames)
    if not look_ahead:
        yield from ((number, frame, None) for number, frame in arriving)
        return
    previous: Frame | None = None
    for number, frame in arriving:
        if previous is None:
            following = next(arriving, None)
            yield number, frame, None if following is None else _neighbour(frame, following[1])
            if following is not None:
                yield *following, _neighbour(following[1], frame)
                frame = following[1]
        else:
            yield number, frame, _neighbour(frame, previous)
        previous = frame


def _neighbour(frame: Frame, other: Frame) -> Frame | None:
    def sequence(one: Frame) -> tuple[str, str]:
        return one.source, one.name.rpartition("/")[0]

    posed = frame.world_from_cam is not None and other.world_from_cam is not None
    return other if posed and sequence(frame) == sequence(other) else None
