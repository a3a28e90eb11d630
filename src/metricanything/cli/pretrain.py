"""`metricanything pretrain`: run a training recipe, print what it would cost, or measure where its steps spend time."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.data.prompts import PromptMixture
    from metricanything.training.recipe import Recipe


def resolve(arguments: list[str]) -> Callable[..., int]:
    """The verb for these arguments: with the fields of the recipe that comes first, where one does."""
    name = arguments[0] if arguments else "-"
    if name.startswith("-"):
        return _list  # in no time: nothing heavy is needed to explain the verb
    from metricanything.training.recipes import PRETRAIN

    return _command(PRETRAIN[name]) if name in PRETRAIN else _list


def _list(recipe: tyro.conf.Positional[str] = "") -> int:
    """Pretrain a teacher; without a recipe, list them. `metricanything pretrain RECIPE --help` lists its options.

    Args:
        recipe: Name of a recipe.
    """
    from metricanything.cli.console import console
    from metricanything.training.recipes import PRETRAIN

    if recipe:
        raise InputError(f"recipe {recipe!r} is unknown; use one of {', '.join(PRETRAIN)}")
    for name, function in PRETRAIN.items():
        console.print(f"[bold]{name}[/]  {(function.__doc__ or '').strip()}\n", highlight=False, soft_wrap=True)
    return 0


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
    first = os.environ.get("RANK", "0") == "0"  # of several processes, the one that speaks
    if plan:
        from metricanything.training.plan import plan as make_plan

        console.print(make_plan(recipe, utilisation).text(), highlight=False, soft_wrap=True)
        return 0
    if profile:
        from metricanything.training.profile import profile as measure

        table = measure(recipe, profile)
        if first:
            console.print(table, highlight=False, soft_wrap=True)
        return 0
    if output is None:
        raise InputError("no --output folder given; add -o RUN")
    from metricanything.training.pretrain import run

    if not first:
        run(recipe, output)
        return 0
    with progress_bar() as bar:
        task = bar.add_task(f"pretrain {recipe.model}", total=recipe.steps, unit="step", detail="")
        trained = run(
            recipe, output, lambda done, loss, terms: bar.update(task, completed=done, detail=f"loss {loss:.4f}")
        )
    console.print(f"{trained.model}", highlight=False, soft_wrap=True)
    return 0


def registry() -> tyro.constructors.ConstructorRegistry:
    """How the command line states a mixture of prompts: PATTERN=WEIGHT …, with dropout=P among them."""
    rules = tyro.constructors.ConstructorRegistry()

    @rules.primitive_rule
    def prompts(kind: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if getattr(kind.type, "__name__", "") != "PromptMixture":  # by name: the class would bring torch
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="PATTERN=WEIGHT",
            instance_from_str=_read_prompts,
            is_instance=lambda value: type(value) is kind.type,
            str_from_instance=lambda value: [f"{type(pattern).__name__}={w:g}" for w, pattern in value.patterns],
        )

    return rules


def _read_prompts(words: list[str]) -> PromptMixture:
    from metricanything.data.prompts import PromptMixture

    values: dict[str, float] = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            values[name] = float(weight or 1)
        except ValueError:
            raise ValueError(f"{word}: a pattern's weight is a number, as in lidar-8=0.5") from None
    dropout = values.pop("dropout", PromptMixture().dropout)
    try:
        return PromptMixture.of(values, dropout)
    except InputError as error:
        raise ValueError(str(error)) from None
