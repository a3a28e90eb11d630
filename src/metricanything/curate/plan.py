"""What a run of aggregation is to write: shard k holds the items [k S, (k + 1) S) of one data set."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.curate.codec import DEFAULT, Encoding
from metricanything.curate.writing import FRAMES_PER_SHARD, Curation
from metricanything.sources import READERS, open_items


@dataclass(frozen=True)
class Plan:
    """What to write: `items` frames of the data at `path` (None for a generator) into the folder `output`.

    All paths are absolute, also those among the options, since workers may run in another folder.

    It can be sent to other processes, which see the same files; they open the data again, once each.
    """

    kind: str
    path: str | None
    options: dict[str, Any]
    output: Path
    items: int
    frames_per_shard: int
    encoding: Encoding
    curation: Curation | None

    @property
    def shards(self) -> int:
        """How many shards there are at most; those without a readable frame are left out."""
        return -(-self.items // self.frames_per_shard)

    def numbers(self, shard: int) -> range:
        """The items of a shard."""
        return range(shard * self.frames_per_shard, min((shard + 1) * self.frames_per_shard, self.items))

    def record(self) -> dict[str, Any]:
        """All that decides the bytes of the shards, as plain values."""
        judges = None if self.curation is None else [_name(self.curation.measure), _name(self.curation.decide)]
        rest = {"curation": judges, "encoding": asdict(self.encoding)}
        plain = {"kind": self.kind, "path": self.path, "options": self.options, "items": self.items}
        return json.loads(json.dumps({**plain, "frames_per_shard": self.frames_per_shard, **rest}, default=_plain))


def make_plan(
    kind: str,
    path: str | Path | None,
    output: str | Path,
    options: Mapping[str, Any],
    *,
    frames_per_shard: int = FRAMES_PER_SHARD,
    encoding: Encoding = DEFAULT,
    curation: Curation | None = None,
) -> Plan:
    """The plan for one data set (see `sources.open_items`, also for what it raises); nothing is written yet."""
    if frames_per_shard < 1:
        raise InputError(f"frames_per_shard must be at least 1, got {frames_per_shard}")
    items = len(open_items(kind, path, **options))
    if not items:
        raise InputError(f"source {kind}: no frames to write; the source gives none")
    whole = str(Path(path).resolve()) if path is not None and READERS[kind].needs_path else None
    types = {name: option.types for name, option in READERS[kind].options().items()}
    absolute = {
        name: str(Path(value).absolute()) if value is not None and Path in types[name] else value
        for name, value in options.items()
    }
    return Plan(kind, whole, absolute, Path(output).absolute(), items, frames_per_shard, encoding, curation)


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _plain(value: Any) -> Any:
    """Options of readers that JSON does not know, as something that tells them apart."""
    if isinstance(value, Camera):
        return value.to_dict()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    array = np.ascontiguousarray(value)
    return [array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).hexdigest()]
