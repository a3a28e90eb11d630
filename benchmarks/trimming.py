"""What does trimming buy when a fifth of the labels is wrong? Trains small networks and measures them.

    python benchmarks/trimming.py [--steps 200] [--seeds 3] [--model compact-teacher]

Rendered scenes stand in for captured ones, because their truth is known: their labels are corrupted once, before
training, and the network is measured on other scenes against clean truth. Trained alike with the compact recipe's loss
on captured labels, but for the share of pixels kept: all, or the 80 % with the smallest error. Prints one markdown
table of AbsRel and delta1 in %, the mean over the seeds and their standard deviation. A seed draws initial weights, the
order of the data, prompts and the corruption. Needs no files. Results: docs/experiments/trimming.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metricanything import sources
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_shards
from metricanything.data.batches import canonical
from metricanything.evaluation.metrics import abs_rel, delta
from metricanything.models.compact.decoder import DecoderConfig
from metricanything.models.compact.encoder import EncoderConfig
from metricanything.models.compact.teacher import DepthConfig
from metricanything.models.registry import MODELS
from metricanything.patterns import draw_prompt
from metricanything.training.engine import train
from metricanything.training.pretrain import mixture, task_of
from metricanything.training.recipe import Data, Recipe, Stage
from metricanything.training.recipes import COMPACT_WEIGHTS, quickstart_teacher

HEIGHT, WIDTH = 96, 128
SHARE = 0.2  # of the known pixels of every corrupted label
KEEPS = (1.0, 0.8)
PATTERN = "uniform-100"  # the teacher's prompt in the test, drawn from clean truth
#: A ninth of the compact network's parameters and two thirds of its time per step.
SMALL = DepthConfig(
    EncoderConfig(widths=(16, 24, 48, 64), blocks=(1, 1, 2), token_width=96, token_blocks=2, heads=3),
    DecoderConfig(widths=(16, 24, 48, 64)),
)

Map = NDArray[np.float32]


def pixels(depth: Map, rng: np.random.Generator) -> Map:
    """Single pixels, each off by its own factor, log-uniform in 1/4 … 4."""
    wrong = rng.random(depth.shape) < SHARE
    return np.where(wrong, depth * _factor(rng, depth.shape), depth)


def blocks(depth: Map, rng: np.random.Generator, low: float = 0.25) -> Map:
    """Rectangles that cover the share, each off by one factor, log-uniform in low … 4."""
    known = np.isfinite(depth)
    result, wrong = depth.copy(), np.zeros(depth.shape, bool)
    while (wrong & known).sum() < SHARE * known.sum():
        h, w = rng.integers(8, 33, size=2)
        top, left = rng.integers(1 - h, HEIGHT), rng.integers(1 - w, WIDTH)
        window = np.s_[max(top, 0) : top + h, max(left, 0) : left + w]
        result[window] = depth[window] * _factor(rng, (), low)
        wrong[window] = True
    return result


def _factor(rng: np.random.Generator, shape: tuple[int, ...], low: float = 0.25) -> Map:
    return np.exp(rng.uniform(np.log(low), np.log(4), shape)).astype(np.float32)


#: What happens to the labels. "too far": one-sided, as where a sensor looks through glass or past thin things.
CORRUPTIONS: dict[str, Callable[[Map, np.random.Generator], Map]] = {
    "clean": lambda depth, rng: depth,
    "pixels": pixels,
    "blocks": blocks,
    "blocks, too far": partial(blocks, low=1.5),
}


def rendered(seed: int, rooms: bool) -> Iterator[Frame]:
    """Endless rendered scenes, all or rooms alone."""
    frames = sources.read("procedural", count=10**6, seed=seed, width=WIDTH, height=HEIGHT)
    return (frame for frame in frames if not rooms or frame.notes["scene"] == "room")


def training_set(scenes: list[Frame], seed: int, name: str, folder: Path) -> Shards:
    """Rendered scenes as a captured source, with corrupted labels."""

    def corrupted(number: int, frame: Frame) -> Frame:
        rng = np.random.default_rng((seed, number))
        return dataclasses.replace(frame, depth=CORRUPTIONS[name](frame.depth, rng), kind="captured", sensor="rgbd")

    write_shards((corrupted(i, frame) for i, frame in enumerate(scenes)), folder)
    return Shards(folder)


def errors(network: nn.Module, frames: list[Frame]) -> tuple[float, float]:
    """AbsRel and delta1 in %, means over the frames; prompted pixels are left out."""
    rows = []
    for seed, frame in enumerate(frames):
        image = torch.from_numpy(frame.image).permute(2, 0, 1)[None].float() / 255
        depth, unseen = torch.from_numpy(frame.depth)[None], np.isfinite(frame.depth)
        focal = torch.tensor([frame.camera.fx / frame.width])
        inputs = [image]
        if network.prompted:
            measured = draw_prompt(frame.depth, PATTERN, seed).rasterise(frame.height, frame.width)
            inputs.append(canonical(torch.from_numpy(measured)[None], focal))
            unseen &= np.isnan(measured)
        with torch.inference_mode():
            predicted = (focal / network(*inputs).log_c_B1HW.exp())[0, 0].numpy()
        truth = depth[0].numpy()
        rows.append((abs_rel(predicted, truth, unseen), delta(predicted, truth, mask=unseen)))
    return tuple(100 * np.mean(rows, axis=0))


def run(recipe: Recipe, shards: Shards, keep: float, frames: list[Frame]) -> tuple[float, float]:
    """Train one network and measure it."""
    weights = dataclasses.replace(COMPACT_WEIGHTS, keep=keep)
    recipe = dataclasses.replace(recipe, stages=(Stage(weights=weights),))
    torch.manual_seed(recipe.seed)
    network = MODELS[recipe.model].build(dataclasses.asdict(SMALL))
    with tempfile.TemporaryDirectory() as folder:
        train(network, task_of(recipe), recipe, [mixture(recipe, [shards], 0)], folder)
    return errors(network, frames)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--heldout", type=int, default=60)
    parser.add_argument("--model", choices=("compact-teacher", "compact-depthmap"), default="compact-teacher")
    parser.add_argument("--rooms", action="store_true", help="rooms alone, not all kinds of scenes")
    parser.add_argument("--labels", nargs="+", choices=list(CORRUPTIONS), default=list(CORRUPTIONS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenes, frames = (
        list(islice(rendered(seed, arguments.rooms), count))
        for seed, count in enumerate((arguments.scenes, arguments.heldout))
    )
    spec = MODELS[arguments.model]
    print(f"{spec.name}, {arguments.steps} steps, {arguments.seeds} seeds, {arguments.scenes} scenes", flush=True)
    print("| labels | kept | AbsRel % | delta1 % | AbsRel of each seed | s per run |\n|---|---|---|---|---|---|")
    for name in arguments.labels:
        results: dict[float, list[tuple[float, float]]] = {keep: [] for keep in KEEPS}
        started = time.monotonic()
        for seed in range(arguments.seeds):
            with tempfile.TemporaryDirectory() as folder:
                shards = training_set(scenes, seed, name, Path(folder))
                recipe = dataclasses.replace(
                    quickstart_teacher(arguments.steps, seed),
                    model=spec.name,
                    data=Data(sizes=((HEIGHT, WIDTH),), workers=0),
                )
                for keep in KEEPS:
                    results[keep].append(run(recipe, shards, keep, frames))
        seconds = (time.monotonic() - started) / (arguments.seeds * len(KEEPS))
        for keep, values in results.items():
            table = np.array(values)
            mean, spread = table.mean(axis=0), table.std(axis=0, ddof=1 if len(table) > 1 else 0)
            cells = " | ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, spread, strict=True))
            each = " ".join(f"{value:.2f}" for value in table[:, 0])
            print(f"| {name} | {keep:.0%} | {cells} | {each} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
