"""Is the plan's memory right? Trains a few steps in a fresh process and compares its peak with `plan`.

    python benchmarks/bench_plan.py [RECIPE …] [--batch 4]

Prints, for each recipe in float32 on one CPU process: the planned bytes (weights, gradients, optimiser, average,
activations) and the growth of the process's resident memory from before the network was built to its peak; once with
an allocator that gives freed tensors back at once (MALLOC_MMAP_THRESHOLD_), and once with the C library's defaults,
which keep some of what was freed. Goal: the first within 15 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import torch

from metricanything.data.batches import Batch
from metricanything.training import recipes
from metricanything.training.plan import empty_batch, plan
from metricanything.training.recipe import Hardware, Recipe

TINY = """{"encoder": {"widths": [8, 8, 16, 16], "blocks": [1, 1, 1], "token_width": 32, "token_blocks": 1, "heads": 2},
 "decoder": {"widths": [8, 8, 16, 16], "fusion_width": 8}}"""


def chosen(name: str, batch: int) -> Recipe:
    """The recipe as one CPU process can run it: float32, nothing computed twice, no pretrained weights."""
    recipe = recipes.PRETRAIN[name]()
    data = dataclasses.replace(recipe.data, sizes=(max(recipe.data.sizes, key=lambda s: s[0] * s[1]),))
    return dataclasses.replace(
        recipe, batch=batch, micro_batches=1, start=None, hardware=Hardware(device="cpu"), data=data
    )


def resident() -> int:
    """Bytes of this process in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    """The most bytes of this process that were in memory; getrusage would count the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def random_batch(images: int, height: int, width: int) -> Batch:
    """A batch with contents."""
    empty = empty_batch(images, height, width)
    return dataclasses.replace(
        empty,
        image_B3HW=torch.rand(empty.image_B3HW.shape).to(memory_format=torch.channels_last),
        depth_BHW=torch.rand(empty.depth_BHW.shape) + 1,
        focal_B=torch.ones(images),
        plane_BHW2=torch.rand(empty.plane_BHW2.shape),
        trusted_B=torch.ones(images, dtype=torch.bool),
        metric_B=torch.ones(images, dtype=torch.bool),
        prompt_BHW=torch.where(torch.rand(empty.depth_BHW.shape) < 0.01, 2.0, torch.nan),
    )


def measure(recipe: Recipe) -> int:
    """Growth of resident memory over three steps."""
    from tempfile import TemporaryDirectory

    from metricanything.training.engine import Engine
    from metricanything.training.parallel import world
    from metricanything.training.pretrain import new_network, task_of

    def train(recipe: Recipe, steps: int) -> None:
        with TemporaryDirectory() as folder, world(recipe.hardware) as one:
            engine = Engine(new_network(recipe), task_of(recipe), recipe, [], Path(folder), one)
            engine.network.train()
            for number in range(steps):
                engine.step(number, [random_batch(recipe.batch, *recipe.data.sizes[0])])

    torch.set_num_threads(1)
    # A first step of a tiny model brings in the libraries, which are not the recipe's.
    tiny = dataclasses.replace(recipe.data, sizes=((64, 64),))
    train(dataclasses.replace(recipes.compact_teacher(), batch=1, hardware=recipe.hardware, data=tiny, config=TINY), 2)
    before = resident()
    train(recipe, 3)
    return peak() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["compact-teacher", "small-teacher"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--measure", action="store_true", help="used by the benchmark itself")
    arguments = parser.parse_args()
    if arguments.measure:
        print(measure(chosen(arguments.recipes[0], arguments.batch)))
        return
    print("| recipe | batch | planned MiB | measured MiB | ratio | with the default allocator | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.recipes:
        planned = plan(chosen(name, arguments.batch)).memory
        command = [sys.executable, __file__, name, "--batch", str(arguments.batch), "--measure"]
        cells = ""
        for environment in ({"MALLOC_MMAP_THRESHOLD_": "131072"}, {}):
            result = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, **environment}
            )
            measured = int(result.stdout.split()[-1])
            cells += f" | {measured / 2**20:.0f} | {measured / planned:.3f}"
        print(f"| {name} | {arguments.batch} | {planned / 2**20:.0f}{cells} |", flush=True)


if __name__ == "__main__":
    main()
