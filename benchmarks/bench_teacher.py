"""How long the bundled teacher takes for a 640x480 photograph with 500 points, from the file to depth in metres.

    python benchmarks/bench_teacher.py [--sides 256 384 512] [--threads 2] [--model compact-teacher]

Prints the median and the fastest of the runs in milliseconds, in one process, side by side; and the peak of its memory.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import torch

from metricanything import samples
from metricanything.inference.predictor import load
from metricanything.patterns import draw_prompt
from metricanything.sources import read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 320, 384, 448, 512])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--model", default="compact-teacher")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = samples.path("heldout")
    frame = next(frame for frame in read("folder", folder) if (frame.height, frame.width) == (480, 640))
    image = next(path for path in folder.rglob("image.jpg") if path.parent.name in frame.name)
    prompt = draw_prompt(frame.depth, "uniform-500", 0)
    model = load(arguments.model, device="cpu")
    seconds: dict[int, list[float]] = {side: [] for side in arguments.sides}
    for _ in range(arguments.repeats + 2):
        for side in arguments.sides:
            started = time.perf_counter()
            model.predict(image, prompt=prompt, camera=frame.camera, max_side=side)
            seconds[side].append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{arguments.model}, {arguments.threads} threads, 640x480, 500 points; peak memory {peak:.2f} GiB")
    print("| longer side of the input | median ms | fastest ms | relative to the first |\n|---|---|---|---|")
    first = np.median(seconds[arguments.sides[0]][2:])
    for side, values in seconds.items():
        median = np.median(values[2:])
        print(f"| {side} | {1000 * median:.0f} | {1000 * min(values):.0f} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
