"""Prompt-free distillation: the teacher labels frames densely, a student learns from images and these labels alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from metricanything.core.errors import InputError
from metricanything.core.files import write_json
from metricanything.curate.shards import Shards
from metricanything.training import parallel, pretrain
from metricanything.training.engine import Progress
from metricanything.training.labels import SOURCE_SUFFIX, Labelling, label
from metricanything.training.pretrain import Trained
from metricanything.training.recipe import Data, Recipe

FROM_TEACHER = "teacher"
"""As a student's `start`: the teacher that made the labels, of which encoder and decoder fit."""


@dataclass(frozen=True)
class Distillation:
    """A student, the labels that it learns from, and what it gets beside them."""

    student: Recipe
    """Its training; `data.shards` are the frames to label, and `data.weights` names their sources."""
    labels: Labelling = field(default_factory=Labelling)
    real: float = 0.0
    """Share of the training views with the original measurements instead of the teacher's labels."""
    exact: tuple[Path, ...] = ()
    """Shard folders whose own depth is better than any label, such as rendered scenes: learned from as they are."""

    def __post_init__(self) -> None:
        if not 0 <= self.real < 1:
            raise InputError(f"real must be at least 0 and less than 1, got {self.real}")


def run(
    distillation: Distillation,
    folder: Path,
    labelled: Callable[[Path, int, int], None] = lambda shards, items, size: None,
    progress: Progress | None = None,
) -> Trained:
    """Label what is not labelled yet, then train the student, or go on with either where it was.

    Called by every process that torchrun started. `labelled` is called with a shard folder, a number of frames done and
    the bytes written for them. Raises InputError for what `label` and `pretrain.run` raise.
    """
    originals, exact = open_shards(distillation), [Shards(path) for path in distillation.exact]
    with parallel.world(distillation.student.hardware) as world:
        if world.first:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "labels.json", dataclasses.asdict(distillation.labels) | {"folder": None})

        def tell(one: Shards) -> Callable[[int, int], None]:
            return lambda items, size: labelled(one.folder, items, size)

        labels = [label(one, distillation.labels, world, tell(one)) for one in originals]
        return pretrain.run_in(world, student_recipe(distillation, originals, labels, exact), folder, progress)


def open_shards(distillation: Distillation) -> list[Shards]:
    """The frames to label; InputError without any, and where two folders would have their labels in one place."""
    paths = distillation.student.data.shards
    if not paths:
        raise InputError("no shards to label; add --data.shards FOLDER (`metricanything ingest` writes them)")
    places = [distillation.labels.output(path) for path in paths]
    if len(set(places)) < len(places):
        raise InputError(f"two shard folders would have their labels at {places[0]}; give one of them another name")
    return [Shards(path) for path in paths]


def student_recipe(
    distillation: Distillation, originals: Sequence[Shards], labels: Sequence[Shards], exact: Sequence[Shards]
) -> Recipe:
    """The student's training on finished labels, with its share of originals among them, and on exact depth."""
    student, real = distillation.student, distillation.real
    measured = originals if real else ()
    weights = shares(student.data, (*labels, *exact), measured, real)
    folders = tuple(one.folder for one in (*labels, *exact, *measured))
    start = distillation.labels.teacher if student.start == FROM_TEACHER else student.start
    return dataclasses.replace(
        student, start=start, data=dataclasses.replace(student.data, shards=folders, weights=weights)
    )


def shares(data: Data, dense: Sequence[Shards], originals: Sequence[Shards], real: float) -> dict[str, float]:
    """The share of every source, of dense depth (labels and exact frames) or original; by the rule of the data."""
    result: dict[str, float] = {}
    for share, shards in ((1 - real, dense), (real, originals)):
        weights = {name: n**data.temperature for name, n in source_counts(shards).items()}
        if data.weights is not None:
            given = {name: data.weights.get(name.removesuffix(SOURCE_SUFFIX)) for name in weights}
            weights = {name: weight for name, weight in given.items() if weight is not None}
        total = sum(weights.values())
        if share and not total:
            what = "label" if shards is dense else "frame"
            raise InputError(f"no {what} is left to train on; see `metricanything inspect` for what was put aside")
        for name, weight in weights.items():
            result[name] = result.get(name, 0.0) + share * weight / total
    return result


def source_counts(shards: Sequence[Shards]) -> dict[str, int]:
    """Kept frames of each source."""
    counts: dict[str, int] = {}
    for one in shards:
        codes, texts = one.coded("source")
        for source, n in zip(texts, np.bincount(codes[one.kept], minlength=len(texts)).tolist(), strict=True):
            counts[source] = counts.get(source, 0) + n
    return {source: n for source, n in counts.items() if n}
