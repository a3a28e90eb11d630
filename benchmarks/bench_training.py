"""How much faster is the engine than a plain loop? The same network, frames, views, prompts and loss, side by side.

    python benchmarks/bench_training.py SHARDS… [--steps 12] [--rounds 4] [--size 192 256]

The plain loop is what one would write first: a PyTorch DataLoader with one worker over single samples, collated by
default; NCHW tensors; prompts drawn between the steps; eager float32; unfused AdamW over one group. Rounds alternate,
so that other work on the machine meets both alike. Prints images/s of each round, the median ratio (goal: 1.3) and,
one by one, what each of the engine's choices is worth.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing as mp
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from metricanything.curate.shards import Shards
from metricanything.data.batches import Batch
from metricanything.data.mixture import Mixture
from metricanything.training import parallel, recipes
from metricanything.training.engine import Engine
from metricanything.training.pretrain import mixture, new_network, task_of
from metricanything.training.recipe import Hardware, Recipe
from metricanything.training.task import generator


class Samples(Dataset[dict[str, Any]]):
    """One view at a time, as the mixture makes them."""

    def __init__(self, data: Mixture) -> None:
        self.data = data

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, number: int) -> dict[str, Any]:
        batch = self.data.batch(number)
        tensors = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
        return {name: value[0].contiguous() for name, value in tensors.items() if isinstance(value, torch.Tensor)}


def plain(recipe: Recipe, shards: list[Shards], *, workers: int = 1) -> Iterator[None]:
    """A plain training loop; every `next` is a step."""
    network, task = new_network(recipe), task_of(recipe)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, foreach=False, fused=False)
    data = mixture(dataclasses.replace(recipe, batch=1), shards, 0)
    loader = DataLoader(Samples(data), batch_size=recipe.batch, num_workers=workers)
    network.train()
    for number, tensors in enumerate(loader):
        batch = task.prepare(Batch(**tensors, names=("",) * recipe.batch), generator(0, number))
        output = network(*task.inputs(batch))
        loss = torch.stack(list(task.loss(output, batch, recipe.stages[0].weights).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        loss.item()
        yield


def engine(recipe: Recipe, shards: list[Shards]) -> Iterator[None]:
    """The engine; every `next` is a step."""
    with tempfile.TemporaryDirectory() as folder, parallel.world(recipe.hardware) as world:
        data = mixture(recipe, shards, 0)
        run = Engine(new_network(recipe), task_of(recipe), recipe, [data], Path(folder), world)
        run.network.train()
        for number, batches in run.batches(0):
            run.step(number, batches)
            yield


def _rank(rank: int, ranks: int, port: int, recipe: Recipe, folders: list[str], orders: Any) -> None:
    """One of several processes, each with one thread: takes so many steps whenever it is told to."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    loop = engine(recipe, [Shards(folder) for folder in folders])
    while steps := orders.recv():
        for _ in range(steps):
            next(loop)
        orders.send(True)


class Processes:
    """The engine as torchrun starts it: one process for each core, each with its part of the same batch."""

    def __init__(self, recipe: Recipe, folders: list[str], ranks: int) -> None:
        context = mp.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = dataclasses.replace(recipe.data, workers=0)
        recipe = dataclasses.replace(recipe, batch=recipe.batch // ranks, micro_batches=ranks, data=data)
        self.orders = []
        for rank in range(ranks):
            here, there = context.Pipe()
            context.Process(target=_rank, args=(rank, ranks, port, recipe, folders, there), daemon=True).start()
            self.orders.append(here)

    def steps(self, count: int) -> None:
        """Take so many steps; with 0, end."""
        for order in self.orders:
            order.send(count)
        for order in self.orders:
            if count:
                order.recv()


def rate(loop: Iterator[None] | Processes, images: int, steps: int) -> float:
    """Images per second of so many steps."""
    started = time.perf_counter()
    if isinstance(loop, Processes):
        loop.steps(steps)
    else:
        for _ in range(steps):
            next(loop)
    return images * steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256))
    arguments = parser.parse_args()
    recipe = recipes.compact_teacher_fine()
    data = dataclasses.replace(recipe.data, sizes=(tuple(arguments.size),))
    as_it_is = dataclasses.replace(recipe, data=data)
    recipe = dataclasses.replace(as_it_is, hardware=Hardware())
    process = dataclasses.replace(recipe, data=dataclasses.replace(data, workers=1))
    shards = [Shards(folder) for folder in arguments.shards]
    loops: dict[str, Callable[[], Iterator[None]]] = {
        "plain": lambda: plain(recipe, shards),
        "engine, data by a process": lambda: engine(process, shards),
        "engine, data by a thread": lambda: engine(recipe, shards),
        "the same in bfloat16: the recipe": lambda: engine(as_it_is, shards),
    }
    running: dict[str, Iterator[None] | Processes] = {name: make() for name, make in loops.items()}
    running["the recipe, two processes"] = Processes(as_it_is, arguments.shards, 2)
    rates: dict[str, list[float]] = {name: [] for name in running}
    for loop in running.values():
        rate(loop, recipe.batch, 3)
    for _ in range(arguments.rounds):
        for name, loop in running.items():
            rates[name].append(rate(loop, recipe.batch, arguments.steps))
    for loop in running.values():
        if isinstance(loop, Processes):
            loop.steps(0)
    print(f"{torch.get_num_threads()} threads, {recipe.batch} images of {arguments.size} a step")
    print("| loop | images/s of each round | median ratio to plain |\n|---|---|---|")
    for name, values in rates.items():
        ratio = statistics.median(v / p for v, p in zip(values, rates["plain"], strict=True))
        print(f"| {name} | {' '.join(f'{v:.2f}' for v in values)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
