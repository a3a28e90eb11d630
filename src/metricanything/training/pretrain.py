"""From a recipe to a trained model: data, network, task, engine, and the file that everything else reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metricanything.core.errors import InputError
from metricanything.core.files import lock, write_json
from metricanything.curate.shards import Shards
from metricanything.data.mixture import Mixture
from metricanything.models.checkpoint import read_state, save_model
from metricanything.models.hub import find_weights, is_repo
from metricanything.models.registry import config_dict, get_spec
from metricanything.training import parallel, validation
from metricanything.training.engine import Curve, Engine, Progress
from metricanything.training.parallel import World
from metricanything.training.recipe import Data, Recipe
from metricanything.training.students import DepthMapTask, InverseDepthTask, PointMapTask, RawPointsTask
from metricanything.training.task import Task
from metricanything.training.teacher import TeacherTask

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Trained:
    """What a run gave: the model's file and the loss curve."""

    model: Path
    curve: Curve


def run(recipe: Recipe, folder: Path, progress: Progress | None = None) -> Trained:
    """Train a recipe in a folder, or go on with it, and write `model.safetensors` there.

    Called by every process that torchrun started; all return the same. Raises InputError for shards that are
    not there, a checkpoint of other settings, numbers of processes that do not fit, and a folder in which another run
    is going on.
    """
    with parallel.world(recipe.hardware) as world:
        return run_in(world, recipe, folder, progress)


def run_in(world: World, recipe: Recipe, folder: Path, progress: Progress | None = None) -> Trained:
    """`run` by processes that have joined already."""
    with _alone(folder) if world.first else nullcontext():
        engine = assemble(recipe, folder, world)
        curve = engine.run(progress)
        export(engine, folder / MODEL)
        if world.first:
            write_json(folder / "run.json", summary(engine))
    return Trained(folder / MODEL, curve)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the run's folder and hold its lock."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: cannot be a folder, a file is in its way; give another --output") from None
    with open(folder / ".lock", "w") as file:
        lock(file, f"{folder}: another run is training here; wait, or give another --output")
        yield


def assemble(recipe: Recipe, folder: Path, world: World) -> Engine:
    """The engine of a recipe, ready to run."""
    if not recipe.data.shards:
        raise InputError("no shards to train on; add --data.shards FOLDER (`metricanything ingest` writes them)")
    shards = [Shards(path) for path in recipe.data.shards]
    mixtures = [mixture(recipe, shards, stage) for stage in range(len(recipe.stages))]
    network, task = new_network(recipe), task_of(recipe)
    engine = Engine(network, task, recipe, mixtures, folder, world)
    held_out = validation.held_out(recipe, [Shards(path) for path in recipe.data.validation])
    if held_out is not None:
        engine.validate = partial(
            validation.measure, task=task, mixture=held_out, recipe=recipe, world=world, show=engine.monitor.picture
        )
    return engine


def mixture(recipe: Recipe, shards: Sequence[Shards], stage: int) -> Mixture:
    """The data of a stage: the recipe's weights, limited to frames of the stage's kinds."""
    data = recipe.data
    return Mixture(
        shards,
        sizes=data.sizes,
        batch_size=recipe.batch,
        seed=recipe.seed + stage,
        weights=data.weights,
        temperature=data.temperature,
        micro_batches=recipe.micro_batches,
        augmentation=data.augmentation,
        kinds=recipe.stages[stage].kinds,
        pairs=data.pairs,
    )


def task_of(recipe: Recipe) -> Task:
    """What the recipe's model is trained to do."""
    spec = get_spec(recipe.model)
    if spec.task == "prompted-depth":
        return TeacherTask(recipe.prompts)
    if spec.family == "native":
        return DepthMapTask() if spec.task == "depth" else PointMapTask()
    config = spec.read_config(recipe.changes)
    if spec.task == "depth":
        return InverseDepthTask(config.mean, config.std)
    return RawPointsTask(config.encoder.backbone.patch_size, config.remap_output)


def new_network(recipe: Recipe) -> nn.Module:
    """The network, freshly initialised with the recipe's seed, then with its starting weights where it names some."""
    torch.manual_seed(recipe.seed)
    network = get_spec(recipe.model).build(recipe.changes)
    for parameter in (p for name, p in network.named_parameters() if name.endswith("mask_token")):
        parameter.requires_grad_(False)  # part of pretrained weights, used by nobody here
    if recipe.start is not None:
        start_from(network, recipe.start)
    return network


def start_from(network: nn.Module, source: str) -> None:
    """Take what fits from a checkpoint, a file or Hub id, in place; anything else fills the network's transformer.

    From a teacher a student gets encoder and decoder that way, not prompt path and head. Raises InputError when nothing
    fits.
    """
    from metricanything.models.backbones import load_backbone

    path, own = Path(source), network.state_dict()
    if is_repo(source) and not path.exists():
        path = find_weights(source)
    if path.is_file():
        state = read_state(path)
        shared = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        if shared:
            network.load_state_dict(shared, strict=False)
            return
    if not hasattr(network, "backbone"):
        raise InputError(f"{source}: no tensor of it fits this model; give one of its own or its teacher's checkpoints")
    load_backbone(network.backbone, path)  # type: ignore[arg-type]


def export(engine: Engine, path: Path) -> None:
    """Write the model as one safetensors file, by the first process; of a sharded model the parts are gathered."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    recipe, network = engine.recipe, engine.network
    if engine.world.size > 1 and recipe.hardware.parallel == "fsdp":
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(network, options=options)
        if engine.world.first:
            network = get_spec(recipe.model).build(config_dict(network))
            network.load_state_dict(state)
    if engine.world.first:
        save_model(path, network, recipe.model, record(recipe, engine.mixtures))
    engine.world.wait()


def record(recipe: Recipe, mixtures: Sequence[Mixture]) -> dict[str, Any]:
    """How a model was made, for its file."""
    plain = recipe.to_dict()
    plain["data"].update(_names(recipe.data))
    if recipe.start is not None and Path(recipe.start).exists():  # what is shared tells no folder of its maker
        plain["start"] = "/".join(Path(recipe.start).resolve().parts[-2:])
    return {
        "input_side": recipe.input_side,
        "steps": recipe.steps,
        "images": recipe.images,
        "pairs": max(one.pairs for one in mixtures),
        "seed": recipe.seed,
        "data": sorted({source for one in mixtures for source, share in one.shares.items() if share > 0}),
        "recipe": plain,
    }


def summary(engine: Engine) -> dict[str, Any]:
    """What `metricanything scaling` wants to know of a run: pairs, parameters, errors on the validation shards."""
    return {
        "name": engine.recipe.model,
        "pairs": max(one.pairs for one in engine.mixtures),
        "images": engine.recipe.images,
        "parameters": sum(p.numel() for p in engine.network.parameters()),
        "seed": engine.recipe.seed,
        "metrics": engine.monitor.last_validation(),
    }


def _names(data: Data) -> dict[str, list[str]]:
    """Folder names without the paths of the machine that trained."""
    return {"shards": [path.name for path in data.shards], "validation": [path.name for path in data.validation]}
