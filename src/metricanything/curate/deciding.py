"""Judging finished shards again by other rules: only the index is read and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.errors import InputError
from metricanything.curate.index import INDEX, QUALITY, Columns, read_table, with_decisions, write_table
from metricanything.curate.rules import decide


@dataclass(frozen=True)
class Decision:
    """What rules decided on a shard folder: numbers of frames, and how many every rule put aside, most first."""

    frames: int
    kept: int
    kept_before: int
    reasons: dict[str, int]


def decide_again(folder: str | Path, rules: Mapping[str, Mapping[str, Any]], *, write: bool = True) -> Decision:
    """Decide by `rules` which frames of a shard folder are kept, and with `write` store that in its index, atomically.

    Raises InputError when the folder holds no index, or its frames were never measured.
    """
    index = Path(folder) / INDEX
    if not index.is_file():
        raise InputError(f"{folder}: no {INDEX}; not a shard folder, or its writing was interrupted")
    table = read_table(index)
    columns = Columns(table, index)
    if not any(name.startswith(QUALITY) for name in columns):
        raise InputError(f"{folder}: its frames were written without measuring quality; ingest them again")
    before = int(np.count_nonzero(columns["kept"]))
    kept, reasons = decide(columns, rules)
    if write:
        write_table(index, with_decisions(table, kept, reasons))
    texts, counts = np.unique(reasons, return_counts=True)
    found: dict[str, int] = {}
    for text, count in zip(texts, counts, strict=True):
        for reason in filter(None, str(text).split(";")):
            found[reason] = found.get(reason, 0) + int(count)
    return Decision(len(kept), int(kept.sum()), before, dict(sorted(found.items(), key=lambda item: -item[1])))
