"""What the verbs that run training recipes share: the list of recipes, and how options state what tyro cannot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import tyro

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.data.prompts import PromptMixture


T = TypeVar("T")


def is_first() -> bool:
    """Whether this is, of the processes that torchrun started, the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def resolved(
    arguments: list[str],
    load: Callable[[], Mapping[str, Callable[[], T]]],
    command: Callable[[Callable[[], T]], Callable[..., int]],
    sentence: str,
) -> Callable[..., int]:
    """The verb: `command` of the recipe that the arguments begin with, or else a list of all.

    `load` imports the recipes, which takes its time; the verb is explained without it, by `sentence`.
    """
    name = arguments[0] if arguments else "-"
    if not name.startswith("-") and name in (recipes := load()):
        return command(recipes[name])

    def listing(recipe: tyro.conf.Positional[str] = "") -> int:
        from metricanything.cli.console import console

        recipes = load()
        if recipe:
            raise InputError(f"recipe {recipe!r} is unknown; use one of {', '.join(recipes)}")
        for name, function in recipes.items():
            console.print(f"[bold]{name}[/]  {(function.__doc__ or '').strip()}\n", highlight=False, soft_wrap=True)
        return 0

    listing.__doc__ = f"{sentence}\n\nArgs:\n    recipe: Name of a recipe."
    return listing


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
