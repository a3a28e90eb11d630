"""Errors on held-out frames while training: always the same views with the same prompts, shared by all processes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metricanything.core.colour import colourise_depth
from metricanything.data.batches import Batch
from metricanything.data.mixture import Mixture
from metricanything.models.outputs import DepthOutput
from metricanything.training import parallel
from metricanything.training.parallel import World
from metricanything.training.recipe import Recipe
from metricanything.training.task import Prepare, Task

Show = Callable[[str, NDArray[np.uint8]], None]
"""Called with a name and an image (H, W, 3)."""
_SEED = 2**31  # of views and prompts: not one that trains


def measure(
    network: nn.Module, task: Task, mixture: Mixture, recipe: Recipe, world: World, show: Show | None = None
) -> dict[str, float]:
    """Mean of `task.errors` over the first `validation_frames` views of the mixture.

    Every process measures a part of them, the same ones together whatever their number. Errors that no view has are
    left out. The first micro-batch is shown.
    """
    count = max(1, recipe.record.validation_frames // recipe.batch)
    prepare = Prepare(task, _SEED)
    names: list[str] = []
    sums: Tensor | None = None
    # All call the network equally often, as one that is sharded needs; what is beyond the count does not count.
    for number in range(world.rank, -(-count // world.size) * world.size, world.size):
        batch = prepare(mixture.batch(number), number).to(world.device)
        with torch.no_grad(), parallel.autocast(recipe.hardware, world):
            output = network(*task.inputs(batch))
            errors = task.errors(output, batch)
        names = list(errors)
        rows = torch.stack([torch.stack([e.nansum(), (~e.isnan()).sum()]) for e in errors.values()]).double()
        rows = rows if number < count else torch.zeros_like(rows)
        sums = rows if sums is None else sums + rows
        if number == 0 and show is not None and isinstance(output, DepthOutput):
            show("image, prompt, label, prediction", picture(batch, output))
    assert sums is not None
    total = world.sum(sums.flatten()).view(-1, 2)
    return {name: value / images for name, (value, images) in zip(names, total.tolist(), strict=True) if images}


def held_out(recipe: Recipe, shards: list) -> Mixture | None:
    """The validation views of a recipe: all sources alike; None without validation shards."""
    if not shards:
        return None
    return Mixture(
        shards, sizes=recipe.data.sizes[:1], batch_size=recipe.batch, seed=_SEED, temperature=0.0,
        augmentation=recipe.data.augmentation,
    )  # fmt: skip


def picture(batch: Batch, output: DepthOutput, rows: int = 4) -> NDArray[np.uint8]:
    """Image, prompt, label and prediction of the first frames side by side: uint8 (rows H, 4 W, 3)."""
    focal_B11 = batch.focal_B[:, None, None]
    predicted = (focal_B11 / output.log_c_B1HW[:, 0].float().exp()).cpu().numpy()
    images = (batch.image_B3HW.float().permute(0, 2, 3, 1).cpu().numpy() * 255).round().astype(np.uint8)
    label = batch.depth_BHW.cpu().numpy()
    prompt = np.full_like(label, np.nan) if batch.prompt_BHW is None else batch.prompt_BHW.cpu().numpy()
    strips = []
    for i in range(min(rows, len(images))):
        known = label[i][np.isfinite(label[i])]
        limits = (float(known.min()), float(known.max())) if known.size else (0.1, 10.0)
        maps = [colourise_depth(depth, *limits) for depth in (prompt[i], label[i], predicted[i])]
        strips.append(np.concatenate([images[i], *maps], axis=1))
    return np.concatenate(strips)
