"""How many images a second the procedural renderer makes.

    python benchmarks/bench_renderer.py                      two processes of one thread each, 160x120
    python benchmarks/bench_renderer.py --device cuda --batch 256 --images 4096

Wall time counts all processes together; the CPU-time rate, images per CPU-second, hardly depends on what else runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time

import torch


def work(
    first: int, images: int, batch: int, width: int, height: int, device: str, threads: int
) -> tuple[float, float]:
    """Seconds of wall and of CPU time for `images` images, after one batch to warm up."""
    from metricanything.sources.procedural import render

    torch.set_num_threads(threads)
    render(range(batch), width, height, device=device)
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(first, first + images, batch):
        render(range(start, start + batch), width, height, device=device)
        if device != "cpu":
            torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512, help="images of each process")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--height", type=int, default=120)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=None, help="default: 2 on the CPU, 1 on a GPU")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    args = parser.parse_args()
    processes = args.processes or (2 if args.device == "cpu" else 1)
    jobs = [
        (i * args.images, args.images, args.batch, args.width, args.height, args.device, args.threads)
        for i in range(processes)
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        times = pool.starmap(work, jobs, chunksize=1)
    total = processes * args.images
    print(
        json.dumps(
            {
                "device": args.device,
                "size": [args.width, args.height],
                "processes": processes,
                "threads": args.threads,
                "images_per_second": round(total / max(wall for wall, _ in times), 1),
                "images_per_cpu_second": round(total / sum(cpu for _, cpu in times), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
