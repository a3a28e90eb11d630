"""`metricanything distill`: let a teacher label frames and train a student on the labels, or print what that means."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from metricanything.cli.recipes import is_first, registry, resolved
from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.training.distill import Distillation
    from metricanything.training.labels import Labelling
    from metricanything.training.recipe import Recipe

__all__ = ["registry", "resolve"]
_LIST = (
    "Distil a teacher into a student; without a recipe, list them. `metricanything distill RECIPE --help` lists its "
    "options."
)


def resolve(arguments: list[str]) -> Callable[..., int]:
    """The verb for these arguments: with the fields of the recipe that comes first, where one does."""
    return resolved(arguments, _recipes, _command, _LIST)


def _recipes() -> dict[str, Callable[[], Distillation]]:
    from metricanything.training.distill_recipes import DISTILL

    return DISTILL


def _command(function: Callable[[], Distillation]) -> Callable[..., int]:
    """The verb with the recipe's fields as options, explained by the recipe's own words."""
    default = function()

    def command(
        name: tyro.conf.Positional[str],
        recipe: Recipe = default.student,
        labels: Labelling = default.labels,
        real: float = default.real,
        exact: tuple[Path, ...] = default.exact,
        output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
        plan: bool = False,
        utilisation: float = 0.4,
    ) -> int:
        """Label frames with a teacher and train a student on the labels, or go on where an interruption left it.

        Args:
            name: The recipe.
            recipe: The student's training; --data.shards are the frames to label.
            labels: The teacher, and how it labels.
            real: Share of the training views with the original measurements instead of the teacher's labels.
            exact: Shard folders whose own depth is better than any label, such as rendered scenes: not labelled.
            output: Folder of the run: model.safetensors, curve.jsonl, checkpoints/, events/ for TensorBoard.
            plan: Print what would be done, with parameters, memory, FLOPs and GPU-hours, instead of doing it.
            utilisation: Share of a GPU's peak that the plan's hours assume.
        """
        return _run(replace(default, student=recipe, labels=labels, real=real, exact=exact), output, plan, utilisation)

    command.__doc__ = f"{inspect.getdoc(function)}\n\n{inspect.getdoc(command)}"
    # The types are imported late, so that their names mean nothing to whoever reads the annotations.
    command.__annotations__["recipe"] = Annotated[type(default.student), tyro.conf.arg(name="")]
    command.__annotations__["labels"] = type(default.labels)
    return command


def _run(distillation: Distillation, output: Path | None, plan: bool, utilisation: float) -> int:
    from metricanything.cli.console import console, one_line_warnings, progress_bar

    one_line_warnings()
    if plan:
        from metricanything.training.distill_plan import text

        console.print(text(distillation, utilisation), highlight=False, soft_wrap=True)
        return 0
    if output is None:
        raise InputError("no --output folder given; add -o RUN")
    from metricanything.training.distill import open_shards, run

    student = distillation.student
    if not is_first():
        run(distillation, output)
        return 0
    with progress_bar() as bar:
        frames = sum(len(shards.kept) for shards in open_shards(distillation))
        labelling = bar.add_task("label frames", total=frames, unit="frame", detail="")
        training = bar.add_task(f"train {student.model}", total=student.steps, unit="step", detail="")
        trained = run(
            distillation,
            output,
            lambda _, items, size: bar.update(labelling, advance=items),
            lambda done, loss, terms: bar.update(training, completed=done, detail=f"loss {loss:.4f}"),
        )
    console.print(f"{trained.model}", highlight=False, soft_wrap=True)
    return 0
