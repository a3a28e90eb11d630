"""The index of a shard folder: one Arrow table, a row for every frame, read by memory mapping.

Opening touches the file's footer alone, whatever its length, and numeric columns are views of the file, which all
processes of a machine share. docs/shards.md lists the columns and says why the file is Arrow IPC and not Parquet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path
from metricanything.core.frame import Frame

if TYPE_CHECKING:
    import pyarrow as pa

INDEX = "index.arrow"
#: Prefix of the columns that hold measurements of quality.
QUALITY = "q_"
#: Measurements that are 64-bit hashes, columns of their own.
HASHES = ("hash", "depth_hash")
#: Members of a frame in the order in which the tar file holds them.
MEMBERS = ("image", "depth", "sigma", "json")
_VERSION = b"2"
#: Columns of few different values, stored as codes of this many bits.
_CODED = {"source": 32, "kind": 8, "sensor": 8, "scale": 8, "licence": 32, "camera_model": 8, "reasons": 32}
_QUANTILES = {"depth_p05": 0.05, "depth_p50": 0.5, "depth_p95": 0.95}
_QUANTILE_PIXELS = 5_000


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:06d}.tar"


def describe(frame: Frame) -> dict[str, Any]:
    """What the index says of a frame itself, by column: names, size, focal length (px), FoV (degrees), depth.

    The quantiles of the depth are those of some 5,000 known pixels, evenly spaced.
    """
    known = frame.depth.ravel() if (valid := frame.valid).all() else frame.depth[valid]
    some = np.sort(known[:: max(1, len(known) // _QUANTILE_PIXELS)])
    quantiles = [float(some[int(q * len(some))]) if len(some) else np.nan for q in _QUANTILES.values()]
    return {
        "name": frame.name,
        "source": frame.source,
        "kind": frame.kind,
        "sensor": frame.sensor,
        "scale": frame.scale,
        "licence": frame.licence,
        "camera_model": frame.camera.model,
        "width": frame.width,
        "height": frame.height,
        "fx": frame.camera.fx,
        "fov": _fov(frame.camera),
        "valid": len(known) / frame.depth.size,
        **dict(zip(_QUANTILES, quantiles, strict=True)),
    }


@lru_cache(maxsize=64)
def _fov(camera: Camera) -> float:
    """Remembered, since frames of a sequence share their camera."""
    return camera.fov_x


def schema(quality: Sequence[str] = ()) -> pa.Schema:
    """The columns of an index whose quality measurements are named `quality` (without prefix), in order."""
    import pyarrow as pa

    coded = [(name, pa.dictionary(getattr(pa, f"int{bits}")(), pa.string())) for name, bits in _CODED.items()]
    return pa.schema(
        [
            ("name", pa.large_string()),
            *coded[:-1],
            ("shard", pa.uint32()),
            ("offset", pa.uint64()),
            *((f"{member}_size", pa.uint32()) for member in MEMBERS),
            ("width", pa.uint32()),
            ("height", pa.uint32()),
            *((name, pa.float32()) for name in ("fx", "fov", "valid", *_QUANTILES)),
            *((name, pa.uint64()) for name in HASHES),
            *((QUALITY + name, pa.float32()) for name in quality),
            ("kept", pa.bool_()),
            coded[-1],
        ],
        metadata={"version": _VERSION},
    )


def make_table(rows: Sequence[Mapping[str, Any]], quality: Sequence[str] = ()) -> pa.Table:
    """A table of `rows`, each a value for every column except `kept` and `reasons`: all are kept at first."""
    import pyarrow as pa

    columns = schema(quality)
    decided: dict[str, Any] = {"kept": True, "reasons": ""}
    return pa.table({c.name: [{**decided, **row}[c.name] for row in rows] for c in columns}, schema=columns)


def join_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """One table of all rows in order, each column in one piece."""
    import pyarrow as pa

    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def with_decisions(table: pa.Table, kept: NDArray[np.bool_], reasons: Sequence[str] | NDArray[Any]) -> pa.Table:
    """`table` with new columns `kept` (N,) and `reasons` (N,), text that is empty where a frame is kept."""
    import pyarrow as pa

    texts, codes = np.unique(np.asarray(reasons, dtype=str), return_inverse=True)
    coded = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts.tolist(), pa.string()))
    table = table.set_column(table.schema.get_field_index("kept"), "kept", pa.array(np.asarray(kept, dtype=bool)))
    return table.set_column(table.schema.get_field_index("reasons"), table.schema.field("reasons"), coded)


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table as an Arrow file of a single batch, atomically."""
    import pyarrow as pa

    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table.combine_chunks())


def read_table(path: str | Path, *, mapped: bool = True) -> pa.Table:
    """A table that `write_table` wrote, mapped into memory, or else read into it.

    Raises InputError, naming the file, when it is damaged or of another version.
    """
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) if mapped else pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        table.validate()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable index ({reason}); write the shards again") from None
    if (table.schema.metadata or {}).get(b"version") != _VERSION or not set(schema().names) <= set(table.schema.names):
        raise InputError(f"{path}: an index of another version; write the shards again")
    return table


class Columns(Mapping[str, NDArray[Any]]):
    """The columns of an index as numpy arrays (N,), each made when it is asked for.

    Numbers are views of the file without a copy; text is an array of Python strings, a copy as long as the column, so
    that `coded` is the way to look at text of many rows. Raises InputError for a column the index does not have.
    """

    def __init__(self, table: pa.Table, where: str | Path) -> None:
        self._table, self._where = table, where

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._column(name).to_numpy()

    def __iter__(self) -> Any:
        return iter(self._table.column_names)

    def __len__(self) -> int:
        return len(self._table.column_names)

    def coded(self, name: str) -> tuple[NDArray[np.integer], list[str]]:
        """Codes (N,), signed integers, and the texts that they stand for, of a column of few different texts."""
        column = self._column(name)
        if name not in _CODED:
            raise InputError(f"{self._where}: column {name} is not coded; coded are {', '.join(_CODED)}")
        if not column.num_chunks:
            return np.empty(0, dtype=np.int32), []
        array = column.combine_chunks() if column.num_chunks > 1 else column.chunk(0)
        return array.indices.to_numpy(), array.dictionary.to_pylist()

    def text(self, name: str, row: int) -> str:
        """The text of one row of a column."""
        return str(self._column(name)[row].as_py())

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._table.column_names:
            raise InputError(f"{self._where}: no column {name}; it has {', '.join(self._table.column_names)}")
        return self._table.column(name)
