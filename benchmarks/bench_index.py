"""How the index of a large training set opens: Arrow IPC, mapped into memory, against Parquet.

    python benchmarks/bench_index.py --rows 20000000 --folder FOLDER      about 3 minutes and 6 GB of disk

A made-up index with the columns of a real one and ten measurements of quality is written both ways. Every line is a
fresh process: seconds and peak resident memory until it has opened the index, then found the frames that are kept and
the source of each, then read the place and name of 1000 random frames. Resident memory counts mapped pages of the file
that were touched, which all processes of a machine share; `private` does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from metricanything.curate.index import Columns, read_table, schema, write_table

MEASURES = [f"measure{i}" for i in range(10)]
SOURCES = 24


def make(rows: int) -> pa.Table:
    """A table of `rows` made-up frames in 24 sources, a hundredth of them put aside."""
    rng = np.random.default_rng(0)

    def column(field: pa.Field) -> pa.Array:
        name = field.name
        if name == "name":
            numbers = pa.array(np.arange(rows)).cast(pa.large_string())
            return pyarrow.compute.binary_join_element_wise(
                pa.scalar("scene/", pa.large_string()), numbers, pa.scalar("", pa.large_string())
            )
        if pa.types.is_dictionary(field.type):
            texts = [f"{name} {i}" for i in range(SOURCES if name == "source" else 3)]
            codes = np.minimum(np.arange(rows) * len(texts) // rows, len(texts) - 1)
            return pa.DictionaryArray.from_arrays(pa.array(codes, field.type.index_type), pa.array(texts))
        if name == "kept":
            return pa.array(rng.random(rows) > 0.01)
        if name == "shard":
            return pa.array(np.arange(rows) // 256, field.type)
        if name == "offset":
            return pa.array(np.arange(rows) % 256 * 90_000, field.type)
        if pa.types.is_uint64(field.type):
            return pa.array(rng.integers(0, 2**64, rows, dtype=np.uint64))
        if name in ("width", "height"):
            return pa.array(rng.choice([480, 640, 1280], rows), field.type)
        if pa.types.is_uint32(field.type):
            return pa.array(rng.integers(20_000, 60_000, rows), field.type)
        return pa.array(rng.random(rows, dtype=np.float32))

    fields = schema(MEASURES)
    return pa.table([column(field) for field in fields], schema=fields)


def use_arrow(path: Path) -> dict[str, float]:
    """Open, look for kept frames by source, fetch rows."""
    return _timed(lambda: Columns(read_table(path), path), lambda c: (c["kept"], c.coded("source")[0]), _rows)


def _rows(columns: Columns, numbers: np.ndarray) -> None:
    shard, offset = columns["shard"], columns["offset"]
    for number in numbers:
        _ = int(shard[number]), int(offset[number]), columns.text("name", int(number))


def use_parquet(path: Path) -> dict[str, float]:
    """The same; to fetch rows it has to decode the columns that hold them."""

    def kept(file: pq.ParquetFile) -> tuple[np.ndarray, np.ndarray]:
        table = file.read(["kept", "source"]).combine_chunks()
        return table["kept"].to_numpy(), table["source"].chunk(0).indices.to_numpy()

    def rows(file: pq.ParquetFile, numbers: np.ndarray) -> None:
        table = file.read(["shard", "offset", "name"])
        shard, offset = table["shard"].to_numpy(), table["offset"].to_numpy()
        for number in numbers:
            _ = int(shard[number]), int(offset[number]), table["name"][int(number)].as_py()

    return _timed(lambda: pq.ParquetFile(path, memory_map=True), kept, rows)


def _timed(open_index, find_kept, fetch) -> dict[str, float]:  # type: ignore[no-untyped-def]
    before, result = time.perf_counter(), {}

    def lap(name: str) -> None:
        result[f"{name}_s"] = round(time.perf_counter() - before, 3)
        result[f"{name}_MB"] = _megabytes("status", "VmHWM")  # getrusage would give the peak of the parent too

    index = open_index()
    lap("open")
    kept, _codes = find_kept(index)
    numbers = np.random.default_rng(1).choice(np.flatnonzero(kept), 1000)
    lap("kept")
    fetch(index, numbers)
    lap("fetched")
    result["private_MB"] = _megabytes("smaps_rollup", "Private_Dirty")
    return result


def _megabytes(file: str, key: str) -> int:
    lines = Path(f"/proc/self/{file}").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) >> 10


def main() -> None:
    """Write both files, then measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--use", choices=["arrow", "parquet"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    files = {"arrow": args.folder / "index.arrow", "parquet": args.folder / "index.parquet"}
    if args.use:
        use = {"arrow": use_arrow, "parquet": use_parquet}[args.use]
        print(json.dumps(use(files[args.use])))
        return
    args.folder.mkdir(parents=True, exist_ok=True)
    if not files["parquet"].exists():
        table = make(args.rows)
        write_table(files["arrow"], table)
        pq.write_table(table, files["parquet"], compression="zstd")
        del table
    results = {}
    for kind, file in files.items():
        command = [sys.executable, __file__, "--folder", args.folder, "--use", kind]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[kind] = {"bytes_per_row": round(file.stat().st_size / args.rows, 1), **json.loads(output)}
        print(kind, json.dumps(results[kind]))
    ratio = results["parquet"]["fetched_s"] / results["arrow"]["fetched_s"]
    print(f"Parquet takes {ratio:.0f} times as long as Arrow")


if __name__ == "__main__":
    main()
