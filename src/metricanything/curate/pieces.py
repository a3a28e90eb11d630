"""Carrying out a plan piece by piece, so that a run that is cut short goes on where it was.

A shard depends on the plan and its own items alone, so shards can be made in any order, on any machine, and again. A
worker writes the tar file and then its part of the index, each whole or not at all; what is there need not be made
again, and the finished folder is the same in every byte. Until then the folder has a `plan.json`, and the parts of the
index in `unfinished/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path, lock, read_json, write_json, write_text
from metricanything.core.frame import Frame
from metricanything.curate.index import INDEX, make_table, read_table, shard_name, write_table
from metricanything.curate.plan import Plan
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_index, write_shard
from metricanything.sources import READERS, Items, open_items

if TYPE_CHECKING:
    import pyarrow as pa

PLAN = "plan.json"
UNFINISHED = "unfinished"
#: The items that could not be read, one line each; only where there are any.
SKIPPED = "skipped.txt"


@dataclass(frozen=True)
class Summary:
    """What a finished folder holds: frames written, those of them that the rules keep, and the items left out."""

    frames: int
    kept: int
    skipped: tuple[str, ...]


# ---------------------------------------------------------------- the folder


@contextmanager
def begun(plan: Plan) -> Iterator[list[int]]:
    """Prepare the folder, or find out how far an interrupted run of the same plan came; the shards still to be written.

    Only one process at a time gets in. Raises InputError when another is in, when the folder holds shards already, and
    when it holds an unfinished set made by another plan; one that has not come to a shard yet is forgotten.
    """
    record = plan.output / PLAN
    if record.exists():
        with _only_here(record):
            if read_json(record) != plan.record() and not _has_shards(plan.output):
                _forget(plan)
    if not record.exists():
        if (plan.output / INDEX).exists():
            raise InputError(f"{plan.output}: holds shards already; give another --output or delete it")
        write_json(record, plan.record())
    with _only_here(record):
        old, new = read_json(record), plan.record()
        if old != new:
            raise InputError(
                f"{plan.output}: holds an unfinished set made with {_difference(old, new)}; repeat that command to "
                "finish it, give another --output, or delete the folder"
            )
        if (plan.output / INDEX).exists():
            yield []  # stopped while it tidied up
            return
        _remove_temporaries(plan.output)
        yield [shard for shard in range(plan.shards) if not _is_written(plan, shard)]


def _has_shards(folder: Path) -> bool:
    return (folder / INDEX).exists() or any(folder.glob("shard-*.tar"))


def _difference(old: Any, new: dict[str, Any]) -> str:
    key = next((key for key in new if isinstance(old, dict) and old.get(key) != new[key]), None)
    return "another plan" if key is None else f"{key.replace('_', ' ')} {json.dumps(old.get(key))}"


@contextmanager
def _only_here(path: Path) -> Iterator[None]:
    """Hold a lock on a file, which ends with the process at the latest."""
    with open(path, "rb") as file:
        lock(file, f"{path.parent}: another run is writing here; wait until it is done")
        yield


def _remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left half-written (see `atomic_path`)."""
    for stem in ("plan", "shard-*", "skipped", "index", "labels"):
        for path in folder.glob(f".{stem}.*"):
            path.unlink()
    for path in (folder / UNFINISHED).glob(".*"):
        path.unlink()


def _is_written(plan: Plan, shard: int) -> bool:
    """Whether part of the index and, at its full size, the tar file are there; after a power cut one may be missing."""
    if not piece_path(plan, shard).exists():
        return False
    size = Piece.read(plan, shard).size
    path = plan.output / shard_name(shard)
    return (path.stat().st_size if path.exists() else 0) == size


# ---------------------------------------------------------------- one shard


@dataclass(frozen=True)
class Piece:
    """A shard's part of the index, the `size` of its tar file in bytes (0: there is none), and what was `skipped`."""

    table: pa.Table
    size: int
    skipped: tuple[str, ...]

    @classmethod
    def read(cls, plan: Plan, shard: int) -> Piece:
        """The piece that a worker wrote."""
        table = read_table(piece_path(plan, shard), mapped=False)  # a process may only map some 65,000 files
        metadata = dict(table.schema.metadata)
        record = json.loads(metadata.pop(b"piece"))
        return cls(table.replace_schema_metadata(metadata), record["size"], tuple(record["skipped"]))

    def write(self, plan: Plan, shard: int) -> None:
        """Write it where `read` looks."""
        record = json.dumps({"size": self.size, "skipped": self.skipped})
        metadata = {**self.table.schema.metadata, "piece": record}
        write_table(piece_path(plan, shard), self.table.replace_schema_metadata(metadata))


def piece_path(plan: Plan, shard: int) -> Path:
    """The file of a shard's part of the index."""
    return plan.output / UNFINISHED / f"{shard:06d}.arrow"


_OPEN: dict[str, Items] = {}  # the data of the plan at hand, since listing a large data set takes its time


def _open(plan: Plan) -> Items:
    key = json.dumps(plan.record(), sort_keys=True)
    if key not in _OPEN:
        _OPEN.clear()
        items = open_items(plan.kind, plan.path, **plan.options)
        if len(items) != plan.items:
            raise InputError(
                f"{plan.path}: has {len(items)} items and had {plan.items}; leave the data as it is meanwhile"
            )
        _OPEN[key] = items
    return _OPEN[key]


def write_planned(
    plan: Plan, shard: int, progress: Callable[[int, int], None], items: Items | None = None
) -> tuple[str, ...]:
    """Write one shard and its part of the index; the items that were skipped, one line each.

    `progress` is called with a number of items that are done and the bytes written for them. `items` are the plan's,
    where they are not those of a raw format.
    """
    skipped: list[str] = []

    def skip(problem: str) -> None:
        skipped.append(problem)
        progress(1, 0)

    def written(frame: Frame, size: int) -> None:
        progress(1, size)

    with _one_thread(plan) if items is None else nullcontext():
        data = _open(plan) if items is None else items
        frames = data.read(plan.numbers(shard), on_error=skip)
        path = plan.output / shard_name(shard)
        first = next(frames, None)
        if first is None:
            path.unlink(missing_ok=True)
            table, size = make_table([]), 0
        else:
            with atomic_path(path) as temporary:
                table = write_shard(temporary, shard, chain([first], frames), plan.encoding, plan.curation, written)
                size = temporary.stat().st_size
    Piece(table, size, tuple(skipped)).write(plan, shard)
    return tuple(skipped)


@contextmanager
def _one_thread(plan: Plan) -> Iterator[None]:
    """One thread for torch, where the frames are rendered: sums in another order would have other last digits."""
    if READERS[plan.kind].needs_path:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def skipped_so_far(plan: Plan) -> list[str]:
    """What the shards that are written left out, in the order of the items."""
    written = (shard for shard in range(plan.shards) if piece_path(plan, shard).exists())
    return [problem for shard in written for problem in Piece.read(plan, shard).skipped]


# ---------------------------------------------------------------- the end


def finish(plan: Plan) -> Summary:
    """Join the parts of the index when every shard is written, and tidy up; interrupted, it can be called again.

    Raises InputError, and forgets the plan, when no item could be read.
    """
    if not (plan.output / INDEX).exists():
        pieces = [Piece.read(plan, shard) for shard in range(plan.shards)]
        names = {plan.output / shard_name(shard) for shard, piece in enumerate(pieces) if piece.size}
        if not names:
            _forget(plan)
            raise InputError(f"{plan.output}: no frames to write; none of the {plan.items} items could be read")
        for left_over in set(plan.output.glob("shard-*.tar")) - names:
            left_over.unlink()  # of an earlier, longer set: readers that list the folder must not find it
        (plan.output / SKIPPED).unlink(missing_ok=True)
        if skipped := [problem for piece in pieces for problem in piece.skipped]:
            write_text(plan.output / SKIPPED, "".join(f"{problem}\n" for problem in skipped))
        write_index(plan.output, [piece.table for piece in pieces if piece.size], plan.curation)
    _forget(plan)
    shards, skipped_file = Shards(plan.output), plan.output / SKIPPED
    skipped = skipped_file.read_text(encoding="utf-8").splitlines() if skipped_file.exists() else []
    return Summary(len(shards), len(shards.kept), tuple(skipped))


def _forget(plan: Plan) -> None:
    """Remove the parts of the index, then the plan."""
    folder = plan.output / UNFINISHED
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    (plan.output / PLAN).unlink()
