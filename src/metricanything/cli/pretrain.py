"""`metricanything pretrain`: run a training recipe, print what it would cost, or measure where its steps spend time."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from metricanything.cli.recipes import is_first, registry, resolved
from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.training.recipe import Recipe

__all__ = ["registry", "resolve"]
_LIST = "Pretrain a teacher; without a recipe, list them. `metricanything pretrain RECIPE --help` lists its options."


def resolve(arguments: list[str]) -> Callable[..., int]:
    """The verb for these arguments: with the fields of the recipe that comes first, where one does."""
    return resolved(arguments, _recipes, _command, _LIST)


def _recipes() -> dict[str, Callable[[], Recipe]]:
    from metricanything.training.recipes import PRETRAIN

    return PRETRAIN


def _command(function: Callable[[], Recipe]) -> Callable[..., int]:
    """The verb with the recipe's fields as options, explained by the recipe's own words."""
    default = function()

    def command(
        name: tyro.conf.Positional[str],
        recipe: Recipe = default,
        output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
        plan: bool = False,
        utilisation: float = 0.4,
        profile: int = 0,
    ) -> int:
        """Train a recipe, or go on with it where an interruption left it; every field of the recipe is an option.

        Args:
            name: The recipe.
            recipe: What to train.
            output: Folder of the run: model.safetensors, curve.jsonl, checkpoints/, events/ for TensorBoard.
            plan: Print parameters, memory, FLOPs and GPU-hours instead of training.
            utilisation: Share of a GPU's peak that the plan's hours assume.
            profile: Take this many steps, print where the time goes, and leave nothing behind.
        """
        return _run(recipe, output, plan, utilisation, profile)

    command.__doc__ = f"{inspect.getdoc(function)}\n\n{inspect.getdoc(command)}"
    # The type is imported late, so that its name means nothing to whoever reads the annotation.
    command.__annotations__["recipe"] = Annotated[type(default), tyro.conf.arg(name="")]
    return command


def _run(recipe: Recipe, output: Path | None, plan: bool, utilisation: float, profile: int) -> int:
    from metricanything.cli.console import console, one_line_warnings, progress_bar

    one_line_warnings()
    if plan:
        from metricanything.training.plan import plan as make_plan

        console.print(make_plan(recipe, utilisation).text(), highlight=False, soft_wrap=True)
        return 0
    if profile:
        from metricanything.training.profile import profile as measure

        table = measure(recipe, profile)
        if is_first():
            console.print(table, highlight=False, soft_wrap=True)
        return 0
    if output is None:
        raise InputError("no --output folder given; add -o RUN")
    from metricanything.training.pretrain import run

    if not is_first():
        run(recipe, output)
        return 0
    with progress_bar() as bar:
        task = bar.add_task(f"pretrain {recipe.model}", total=recipe.steps, unit="step", detail="")
        trained = run(
            recipe, output, lambda done, loss, terms: bar.update(task, completed=done, detail=f"loss {loss:.4f}")
        )
    console.print(f"{trained.model}", highlight=False, soft_wrap=True)
    return 0
