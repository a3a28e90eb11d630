"""How many planted faults the curation rules find on real frames, and how many good frames they cost.

    python benchmarks/bench_curation.py DATA [--limit 0] [--processes 2] [--json OUT.json]

DATA holds one folder of frames per source (the layout of the `folder` reader). Every frame is measured as it is and
with each fault of `planted.py`. Two scenarios are judged: one frame in ten of a source is faulty (ten rounds, so that
every frame is faulty once; the rest is as it was), and all frames of a source are. Nothing is fitted here: the rules
are the default ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from planted import FAULTS

from metricanything.core.frame import Frame
from metricanything.curate.index import HASHES, QUALITY, describe
from metricanything.curate.quality import measure
from metricanything.curate.rules import decide
from metricanything.sources.folder import listing

Row = dict[str, Any]
ROUNDS = 10
GOOD = "as it is"
#: Faults that a whole source has in common: every frame alike.
COMMON = ("misaligned by 8 px", "focal length 20 % off")
#: Faults in the harder variant, in which no equal bits give them away: which hash to forget.
UNEQUAL = {
    "frozen depth": ("depth_hash", "frozen depth, other bits"),
    "image of another frame": ("hash", "image from elsewhere"),
}


def row(frame: Frame) -> Row:
    """What the index would hold of a frame."""
    measured = measure(frame).to_dict()
    return {**describe(frame), **{name if name in HASHES else QUALITY + name: v for name, v in measured.items()}}


@lru_cache(maxsize=1)
def items(folder: Path) -> list[tuple[str, Callable[[], Frame]]]:
    """The frames of a source, listed once."""
    return listing(folder)


def measured(folder: Path, source: str, number: int) -> dict[str, Row]:
    """The rows of a frame, good and with every fault; the other frame is the one before or from half the set away."""
    count = len(items(folder))
    before, frame, elsewhere = (
        replace(items(folder)[i % count][1](), source=source) for i in (number - 1, number, number + max(1, count // 2))
    )
    rows = {GOOD: row(frame)}
    for name, fault in FAULTS.items():
        partner = before if name == "frozen depth" else elsewhere
        rows[name] = row(fault(frame, partner, np.random.default_rng([number, len(name)])))
        if name in COMMON:
            rows[f"{name}, all alike"] = row(fault(frame, partner, np.random.default_rng(7)))
    return rows


def columns(rows: list[Row]) -> dict[str, NDArray[Any]]:
    """Rows as columns."""
    return {name: np.array([r[name] for r in rows], dtype=np.uint64 if name in HASHES else None) for name in rows[0]}


def forget(rows: list[Row], name: str) -> list[Row]:
    """The rows with a hash that is like no other."""
    hashes = np.random.default_rng(len(rows)).integers(1, 2**64, len(rows), dtype=np.uint64)
    return [{**r, name: int(h)} for r, h in zip(rows, hashes, strict=True)]


def one_in_ten(good: list[Row], bad: list[Row], skip_first: bool) -> tuple[NDArray[np.bool_], float]:
    """Which frames are put aside when they are the faulty ones (N,), and the share of good frames lost meanwhile."""
    order = np.random.default_rng(0).permutation(len(good))
    caught, lost, healthy = np.zeros(len(good), dtype=bool), 0, 0
    for turn in range(ROUNDS):
        faulty = np.zeros(len(good), dtype=bool)
        faulty[order[turn::ROUNDS]] = True
        faulty[0] &= not skip_first
        kept, _ = decide(columns([bad[i] if faulty[i] else good[i] for i in range(len(good))]))
        caught |= faulty & ~kept
        lost, healthy = lost + int((~kept & ~faulty).sum()), healthy + int((~faulty).sum())
    return caught, lost / max(healthy, 1)


def judge(rows: list[dict[str, Row]]) -> dict[str, Any]:
    """Numbers of one source: frames, good ones lost, and for every fault how many were caught."""
    good = [r[GOOD] for r in rows]
    kept, reasons = decide(columns(good))
    named = [name for text in reasons for name in text.split(";") if name]
    result: dict[str, Any] = {
        "frames": len(good),
        "lost": int((~kept).sum()),
        "reasons": {name: named.count(name) for name in sorted(set(named))},
        "one in ten": {},
        "all": {},
    }
    for name in FAULTS:
        if name in UNEQUAL and len(rows) < 2:
            continue  # there is no other frame
        bad = [r[name] for r in rows]
        variants: list[tuple[str, Callable[[list[Row]], list[Row]]]] = [(name, lambda rows: rows)]
        if name in UNEQUAL:
            variants.append((UNEQUAL[name][1], partial(forget, name=UNEQUAL[name][0])))
        for label, change in variants:
            skip = name == "frozen depth"  # the first frame has no earlier one
            caught, lost = one_in_ten(change(good), change(bad), skip)
            result["one in ten"][label] = [int(caught.sum()), len(good) - skip, lost]
        whole = [r.get(f"{name}, all alike", r[name]) for r in rows][name == "frozen depth" :]
        if name in UNEQUAL:
            whole = forget(whole, UNEQUAL[name][0])
        if whole:
            kept, _ = decide(columns(whole))
            result["all"][name] = [int((~kept).sum()), len(whole)]
    return result


def table(results: dict[str, Any], key: str) -> str:
    """Caught shares as a Markdown table, a row for every fault, a column for every source and one for all frames."""
    heads = ["fault", *(f"{s} ({r['frames']})" for s, r in results.items()), "all frames", "mean of sources"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    names = list(dict.fromkeys(name for r in results.values() for name in r[key]))
    for name in names:
        cells = [r[key].get(name, [0, 0]) for r in results.values()]
        shares = [100 * c[0] / c[1] for c in cells if c[1]]
        total = 100 * sum(c[0] for c in cells) / max(sum(c[1] for c in cells), 1)
        each = [f"{100 * c[0] / c[1]:.1f}" if c[1] else "–" for c in cells]
        lines.append(f"| {name} | {' | '.join(each)} | {total:.1f} | {np.mean(shares):.1f} |")
    lost = [100 * r["lost"] / r["frames"] for r in results.values()]
    total = 100 * sum(r["lost"] for r in results.values()) / sum(r["frames"] for r in results.values())
    lines.append(f"| good frames lost | {' | '.join(f'{x:.1f}' for x in lost)} | {total:.1f} | {np.mean(lost):.1f} |")
    return "\n".join(lines)


def milliseconds(folder: Path, count: int = 20) -> float:
    """Processor time of `measure` for a frame of a source, in this process."""
    frames = [load() for _, load in items(folder)[:count]]
    measure(frames[0])
    start = time.process_time()
    for frame in frames:
        measure(frame)
    return 1e3 * (time.process_time() - start) / len(frames)


def main() -> None:
    """Measure, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="frames of each source, evenly spaced; 0 = all")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with get_context("fork").Pool(args.processes) as pool:
        for folder in sorted(p for p in args.data.iterdir() if p.is_dir()):
            count = len(items(folder))
            chosen = np.linspace(0, count - 1, min(args.limit or count, count)).round().astype(int)
            try:
                rows = pool.map(partial(measured, folder, folder.name), map(int, chosen), chunksize=4)
            except ValueError as error:  # InputError: frames without a camera
                print(f"{folder.name}: left out, {error}")
                continue
            results[folder.name] = {**judge(rows), "ms": milliseconds(folder)}
            print(f"{folder.name}: {results[folder.name]}", flush=True)
    for key, title in (("one in ten", "One frame in ten is faulty"), ("all", "All frames of the source are faulty")):
        print(f"\n{title}: % of the faulty frames put aside\n\n{table(results, key)}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
