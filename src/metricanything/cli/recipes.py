"""What the verbs that run training recipes share: the list of recipes, and how options state what tyro cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tyro

from metricanything.core.errors import InputError


def listing(load: Callable[[], Mapping[str, Callable[[], Any]]], sentence: str) -> Callable[..., int]:
    """The verb without a known recipe: prints all with their descriptions; InputError for an unknown name.

    `load` imports the recipes, which takes its time.
    """

    def command(recipe: tyro.conf.Positional[str] = "") -> int:
        from metricanything.cli.console import console

        recipes = load()
        if recipe:
            raise InputError(f"recipe {recipe!r} is unknown; use one of {', '.join(recipes)}")
        for name, function in recipes.items():
            console.print(f"[bold]{name}[/]  {(function.__doc__ or '').strip()}\n", highlight=False, soft_wrap=True)
        return 0

    command.__doc__ = f"{sentence}\n\nArgs:\n    recipe: Name of a recipe."
    return command


def registry() -> tyro.constructors.ConstructorRegistry:
    """How the command line states a mixture of prompts: PATTERN=WEIGHT …, with dropout=P among them."""
    from metricanything.data.prompts import PromptMixture

    rules = tyro.constructors.ConstructorRegistry()

    @rules.primitive_rule
    def prompts(kind: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
        if kind.type is not PromptMixture:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs="*",
            metavar="PATTERN=WEIGHT",
            instance_from_str=_read_prompts,
            is_instance=lambda value: isinstance(value, PromptMixture),
            str_from_instance=lambda value: [f"{type(pattern).__name__}={w:g}" for w, pattern in value.patterns],
        )

    return rules


def _read_prompts(words: list[str]) -> Any:
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
