"""Training runs that take seconds."""

from __future__ import annotations

import dataclasses
from typing import Any

from metricanything.training.recipe import Data, Hardware, Optimiser, Recipe, Record, Stage
from metricanything.training.recipes import COMPACT_PROMPTS, COMPACT_WEIGHTS


def short_recipe(steps: int, model: str = "compact-teacher", **changes: Any) -> Recipe:
    """A run of a few seconds on one CPU process; `changes` are fields of the recipe or of its optimiser and record."""

    def part(kind: Any, **defaults: Any) -> Any:
        names = {field.name for field in dataclasses.fields(kind)}
        return kind(**{**defaults, **{name: changes.pop(name) for name in names & set(changes)}})

    return Recipe(
        model,
        steps,
        batch=changes.pop("batch", 4),
        prompts=COMPACT_PROMPTS,
        optimiser=part(Optimiser, rate=4e-3, encoder_rate=4e-3, warmup=5),
        record=part(Record, checkpoint_seconds=1e9),
        data=part(Data, sizes=((64, 96),), workers=0),
        hardware=part(Hardware, device="cpu"),
        stages=changes.pop("stages", (Stage(weights=COMPACT_WEIGHTS),)),
        **changes,
    )
