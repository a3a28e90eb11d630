"""How long a prompt takes to draw: uniform masking beside listing all known pixels and shuffling them.

    OMP_NUM_THREADS=1 python benchmarks/bench_patterns.py
    python benchmarks/bench_patterns.py --device cuda --batch 16

Both draw POINTS points per image from the same maps: fully known, half known at random, and 4 % known like a LiDAR's.
A prompt is a map of its own, and the first writing to fresh memory costs the system's page faults, whatever is drawn.
"Fresh" keeps every result, so that none reuses the memory of another; beside it the time of filling such a map with
NaN and nothing else. With --all, also every named pattern on the fully known map. Medians, milliseconds per image: of
this process's own CPU time on a CPU, which other load hardly touches, of wall time on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from metricanything.patterns import get_pattern
from metricanything.patterns.registry import FAMILIES, NOISES, REGIONS
from metricanything.patterns.uniform import Uniform


def straightforward(depth_BHW: Tensor, points: int, generator: torch.Generator) -> Tensor:
    """What one would write first: nonzero, randperm, copy; image by image."""
    prompt = torch.full_like(depth_BHW, float("nan"))
    for source, target in zip(depth_BHW.flatten(1), prompt.flatten(1), strict=True):
        index = (torch.isfinite(source) & (source > 0)).nonzero()[:, 0]
        chosen = index[torch.randperm(len(index), generator=generator)[:points].to(index.device)]
        target[chosen] = source[chosen]
    return prompt


def median(call: Callable[[], Tensor], repeats: int, device: str, *, fresh: bool = False) -> float:
    """Milliseconds per image after three calls to warm up; `fresh` keeps all results until the end."""
    times, kept = [], []
    clock = time.process_time if device == "cpu" else time.perf_counter
    for _ in range(repeats + 3):
        started = clock()
        result = call()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(1000 * (clock() - started) / len(result))
        kept.append(result if fresh else None)
        del result
    return float(np.median(times[3:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1536)
    parser.add_argument("--points", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--all", action="store_true", help="time every named pattern too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.side, args.side)
    full = torch.rand(shape, generator=generator) * 9 + 1
    keys = torch.rand(shape, generator=generator)
    uniform = Uniform(points=(args.points, args.points), max_fraction=1.0)
    print(
        f"{args.points} points of {args.side}x{args.side}, batch {args.batch}, {args.device}, {args.threads} thread(s)"
    )
    print(
        "| known | ours | nonzero + randperm | ratio | ours, fresh | filling alone, fresh |\n|---|---|---|---|---|---|"
    )
    for share in (1.0, 0.5, 0.04):
        depth = torch.where(keys < share, full, torch.nan).to(args.device)

        def ours(depth: Tensor = depth) -> Tensor:
            return uniform.draw(depth, generator)

        def theirs(depth: Tensor = depth) -> Tensor:
            return straightforward(depth, args.points, generator)

        def filling(depth: Tensor = depth) -> Tensor:
            return torch.full_like(depth, float("nan"))

        mine, naive = (median(call, args.repeats, args.device) for call in (ours, theirs))
        fresh, alone = (median(call, args.repeats, args.device, fresh=True) for call in (ours, filling))
        row = f"{mine:.2f} | {naive:.2f} | {naive / mine:.1f}x | {fresh:.2f} | {alone:.2f}"
        print(f"| {100 * share:.0f} % | {row} |", flush=True)
    if args.all:
        every(full.to(args.device), generator, args.device)


def every(depth: Tensor, generator: torch.Generator, device: str) -> None:
    """One row for each named pattern."""
    image = torch.rand(len(depth), 3, *depth.shape[1:])
    print("\n| pattern | points | time |\n|---|---|---|")
    for name in [f.example for table in (FAMILIES, REGIONS, NOISES) for f in table.values()]:
        pattern = get_pattern(name)

        def draw(pattern=pattern) -> Tensor:
            return pattern.draw(depth, generator, image)

        points = int(torch.isfinite(draw()).sum()) // len(depth)
        print(f"| {name} | {points} | {median(draw, 3, device):.1f} |", flush=True)


if __name__ == "__main__":
    main()
