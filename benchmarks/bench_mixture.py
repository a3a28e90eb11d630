"""The order of training at 20 million rows beside 20 thousand: opening, memory, time per sample, resume.

    OMP_NUM_THREADS=1 python benchmarks/bench_mixture.py

Simulated indices of 24 sources, whose sizes fall as 1 / rank, rows of all sources mixed, every fiftieth row put aside;
no pixels. Each size runs in a process of its own, which first makes its columns, as a shard folder maps them from its
index, and then times the mixture alone. Medians of CPU time; memory is what the mixture adds to the process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from metricanything.curate.shards import Shards
from metricanything.data.mixture import Mixture

SOURCES = 24


class Simulated:
    """What a mixture asks of a shard folder before it reads pixels."""

    folder = Path("simulated")

    def __init__(self, rows: int) -> None:
        rng = np.random.default_rng(0)
        share = 1 / np.arange(1, SOURCES + 1)
        self._code = rng.choice(SOURCES, size=rows, p=share / share.sum()).astype(np.int8)
        self._kept = np.arange(rows) % 50 != 49

    def __len__(self) -> int:
        return len(self._code)

    def coded(self, name: str) -> tuple[NDArray[np.integer], list[str]]:
        return self._code, [f"{name}-{number:02d}" for number in range(SOURCES)]

    @cached_property
    def kept(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._kept)


def resident() -> float:
    """Megabytes of this process at present."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(rows: int, batch: int, repeats: int) -> dict[str, float]:
    shards = cast(Shards, Simulated(rows))
    before, started = resident(), time.process_time()
    mixture = Mixture(shards, sizes=((384, 384),), batch_size=batch, seed=0)
    opening = time.process_time() - started
    after = resident()
    rng = np.random.default_rng(1)

    def median(numbers: NDArray[np.int64]) -> float:
        times = []
        for number in numbers.tolist():
            started = time.process_time()
            mixture.samples(number)
            times.append(time.process_time() - started)
        return float(np.median(times)) / batch * 1e6

    mixture.samples(0)
    return {
        "opening, s": opening,
        "memory, MB": after - before,
        "in order, us per sample": median(np.arange(repeats)),
        # Every number is a resume: there is no state to restore. Up to a thousand epochs of 20 million.
        "from a random step, us per sample": median(rng.integers(0, 2 * 10**10 // batch, repeats)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs=2, default=(20_000, 20_000_000))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2000)
    args = parser.parse_args()
    results = []
    for rows in args.rows:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(measure, (rows, args.batch, args.repeats)))
    small, large = results
    print(f"| {SOURCES} sources, batches of {args.batch} | {args.rows[0]} rows | {args.rows[1]} rows | ratio |")
    print("|---|---|---|---|")
    for name, value in small.items():
        print(f"| {name} | {value:.4g} | {large[name]:.4g} | {large[name] / max(value, 1e-9):.2f} |")


if __name__ == "__main__":
    main()
