"""The stages of the quickstart, in order. Each can be interrupted anywhere and started again."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from metricanything import samples, sources
from metricanything.core.files import write_json
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_shards
from metricanything.models.checkpoint import load_model, save_model
from metricanything.models.registry import get_spec
from metricanything.quickstart import Run
from metricanything.quickstart.measure import INPUT_SIDE, STUDENTS, measure, training_samples
from metricanything.quickstart.page import write_report
from metricanything.training import parallel
from metricanything.training import pretrain as training
from metricanything.training.engine import train
from metricanything.training.labels import Labelling
from metricanything.training.labels import label as label_shards
from metricanything.training.recipe import Hardware, Recipe
from metricanything.training.recipes import quickstart_student, quickstart_teacher

_CPU = Hardware(device="cpu")


def aggregate(run: Run) -> None:
    """Read all three families into shards: a COLMAP reconstruction, LiDAR and RGB-D captures, rendered scenes."""
    counter = itertools.count(1)
    with run.open_bar("1 aggregate", None, "frame") as bar:
        real = [frame for name, kind in training_samples().items() for frame in sources.read(kind, samples.path(name))]
        bar(0, total=len(real) + run.settings.scenes)
        rendered = sources.read("procedural", count=run.settings.scenes, seed=run.settings.seed)
        write_shards(
            itertools.chain(real, rendered), run.shards, progress=lambda frame: bar(next(counter), frame.source)
        )


def pretrain(run: Run) -> None:
    """Train the prompt-based teacher on prompts drawn from the frames' own depth."""
    recipe = quickstart_teacher(run.settings.teacher_steps, run.settings.seed)
    _train(run, recipe, new_network(run, recipe.model), run.shards, "2 pretrain teacher")


def label(run: Run) -> None:
    """Let the teacher label every frame densely."""
    # Of a teacher with a minute's training the agreement is recorded, but nothing is put aside.
    labelling = Labelling(
        teacher=str(run.model("compact-teacher")), seed=run.settings.seed, agreement=0.0, frames_per_shard=64
    )
    shards, done = Shards(run.shards), 0
    with run.open_bar("3 label with teacher", len(shards), "frame") as bar, parallel.world(_CPU) as world:

        def advance(items: int, size: int) -> None:
            nonlocal done
            done += items
            bar(done)

        label_shards(shards, labelling, world, advance)


def distil(run: Run) -> None:
    """Train both students on the teacher's labels, from the teacher's image encoder."""
    teacher, _, _ = load_model(run.model("compact-teacher"))
    for name in STUDENTS:
        recipe = quickstart_student(name, run.settings.student_steps, run.settings.seed)
        network = new_network(run, name)
        start_from(network, teacher)
        title = f"3 distil {name.removeprefix('compact-')} student"
        _train(run, recipe, network, run.labels, title)


def new_network(run: Run, name: str) -> nn.Module:
    """The network to train, freshly initialised; saved too, as `untrained-NAME`, to be measured beside the trained one.

    Never the bundled one, whose training a few hundred steps on a few hundred frames would spoil.
    """
    torch.manual_seed(run.settings.seed)
    network = get_spec(name).build()
    save_model(run.model(f"untrained-{name}"), network, name, {"input_side": INPUT_SIDE, "steps": 0})
    return network


def start_from(student: nn.Module, teacher: nn.Module) -> None:
    """Copy every parameter that both networks have in the same shape: encoder and decoder, not prompt path and head."""
    own = student.state_dict()
    shared = {k: v for k, v in teacher.state_dict().items() if k in own and own[k].shape == v.shape}
    student.load_state_dict(shared, strict=False)


def _train(run: Run, recipe: Recipe, network: nn.Module, folder: Path, title: str) -> None:
    """Train, then save the model and its curve."""
    recipe = replace(recipe, data=replace(recipe.data, shards=(folder,)), hardware=_CPU, input_side=INPUT_SIDE)
    data = training.mixture(recipe, [Shards(folder)], 0)
    kept = run.folder / "training" / recipe.model
    with run.open_bar(title, recipe.steps, "step") as bar:
        curve = train(
            network, training.task_of(recipe), recipe, [data], kept, lambda step, loss, _: bar(step, f"loss {loss:.3f}")
        )
    save_model(run.model(recipe.model), network, recipe.model, training.record(recipe, [data]))
    write_json(run.curve(recipe.model), curve)


def report(run: Run) -> None:
    """Write the page."""
    with run.open_bar("5 report", 1, "page") as bar:
        write_report(run)
        bar(1)


def clean(run: Run) -> None:
    """Delete the training checkpoints, which nothing needs any more."""
    shutil.rmtree(run.folder / "training", ignore_errors=True)


STAGES: dict[str, Callable[[Run], None]] = {
    "aggregate": aggregate,
    "pretrain": pretrain,
    "label": label,
    "distil": distil,
    "predict": measure,
    "report": report,
    "clean": clean,
}
