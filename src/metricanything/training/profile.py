"""Where the time of a step goes: data, prompt, forward, backward, optimiser, communication."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from metricanything.training import optimiser, parallel
from metricanything.training.engine import Engine
from metricanything.training.parallel import World
from metricanything.training.plan import PEAKS, plan
from metricanything.training.pretrain import assemble
from metricanything.training.recipe import Recipe
from metricanything.training.task import Prepare

PARTS = ("data", "prompt", "forward", "loss", "backward", "optimiser", "communication")
_WARM_UP = 2


def profile(recipe: Recipe, steps: int) -> str:
    """Take `steps` steps after a short warm-up and return a table; nothing of the run is kept.

    Every part waits for the device, so that their sum is a step without any overlap; the steps are then taken again
    as in training, where data, prompts (on a CPU) and communication run beside the rest. Communication is the time
    of the collectives alone, as the profiler sees them, with the wait for slower processes; backward and optimiser
    contain it.
    """
    with tempfile.TemporaryDirectory() as folder, parallel.world(recipe.hardware) as world:
        engine = assemble(dataclasses.replace(recipe, steps=steps + _WARM_UP), Path(folder), world)
        engine.network.train()
        apart = _apart(engine, steps)
        together, communication = _together(engine, steps)
    seconds = {**apart, "communication": communication}
    return _table(recipe, seconds, together, world)


def _apart(engine: Engine, steps: int) -> dict[str, float]:
    """Seconds per step of each part, one after the other."""
    seconds = dict.fromkeys(PARTS, 0.0)
    device, recipe = engine.world.device, engine.recipe
    prepare = Prepare(engine.task, recipe.seed)

    @contextmanager
    def timed(part: str, counts: bool) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds[part] += (time.perf_counter() - started) * counts

    for number in range(steps + _WARM_UP):
        counts = number >= _WARM_UP
        engine.optimiser.zero_grad(set_to_none=True)
        for i in range(engine.share):
            micro = engine.micro(number, i)
            with timed("data", counts):
                batch = engine.mixtures[0].batch(micro).to(device)
            with timed("prompt", counts):
                batch = prepare(batch, micro)
            with parallel.synchronised(engine.wrapped, i + 1 == engine.share):
                with timed("forward", counts), parallel.autocast(recipe.hardware, engine.world):
                    output = engine.wrapped(*engine.task.inputs(batch))
                with timed("loss", counts):
                    terms = engine.task.loss(output, batch, recipe.stages[0].weights)
                    loss = torch.stack(list(terms.values())).sum() / engine.share
                with timed("backward", counts):
                    loss.backward()
        with timed("optimiser", counts):
            parallel.gradient_norm(engine.network, recipe.optimiser.clip)
            optimiser.set_rates(engine.optimiser, optimiser.schedule(recipe.optimiser, recipe.steps, number))
            engine.optimiser.step()
            if engine.average is not None:
                engine.average.update(number)
    return {part: value / steps for part, value in seconds.items()}


def _together(engine: Engine, steps: int) -> tuple[float, float]:
    """Seconds per step as in training, and those that collectives take, which may hide behind computation."""
    started, marks = 0.0, []
    for number, batches in engine.batches(0):
        if number == _WARM_UP:
            started = time.perf_counter()
        engine.step(number, batches)
        marks.append(time.perf_counter())
    together = (marks[-1] - started) / steps
    if engine.world.size == 1:
        return together, 0.0
    activities = [torch.profiler.ProfilerActivity.CPU]
    if engine.world.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as recorded:
        for number, batches in engine.batches(steps):
            engine.step(number, batches)
    events = [e for e in recorded.key_averages() if e.key.startswith(("gloo:", "nccl:", "ncclDevKernel"))]
    microseconds = sum(max(e.cpu_time_total, e.device_time_total) for e in events)
    return together, microseconds / 1e6 / _WARM_UP


def _table(recipe: Recipe, seconds: dict[str, float], together: float, world: World) -> str:
    total = sum(value for part, value in seconds.items() if part != "communication")
    images = recipe.batch * recipe.micro_batches
    lines = [f"{part:<14} {1000 * seconds[part]:9.1f} ms {seconds[part] / total:6.1%}" for part in PARTS]
    lines += [
        f"{'sum':<14} {1000 * total:9.1f} ms  one part after the other",
        f"{'step':<14} {1000 * together:9.1f} ms  as in training: {images / together:.1f} images/s",
    ]
    flops = plan(recipe).step_flops * images / world.size
    lines.append(f"{flops / together / 1e12:.3g} TFLOP/s per process")
    if world.device.type == "cuda":
        peak = next(iter(PEAKS.values()))
        lines.append(f"MFU {flops / together / peak:.1%} of {peak / 1e12:.0f} TFLOP/s ({torch.cuda.get_device_name()})")
    return "\n".join(lines)
