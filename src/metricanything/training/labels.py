"""Pseudo-labels: the teacher's dense depth of every kept frame, written as shards beside the originals.

A frame's own measurements prompt the teacher, all but a part that it never sees. Where teacher and held-out part
disagree, the frame is put aside with the reason `teacher_disagreement`: it stays in the labels, so that
`metricanything inspect` shows it, and is not trained on. Shards are written by the machinery of `curate.pieces`: a run
that is cut short goes on where it was, and the finished folder is the same in every byte.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.files import file_sha256, read_json, write_json
from metricanything.core.frame import Frame
from metricanything.core.prediction import Prediction
from metricanything.core.prompt import SparsePrompt
from metricanything.curate.codec import DEFAULT
from metricanything.curate.index import INDEX, QUALITY
from metricanything.curate.pieces import PLAN, begun, finish, write_planned
from metricanything.curate.plan import Plan
from metricanything.curate.rules import decide
from metricanything.curate.shards import Shards
from metricanything.curate.writing import FRAMES_PER_SHARD, Curation
from metricanything.inference.predictor import Model, find_checkpoint, load
from metricanything.patterns import draw_prompt, get_pattern
from metricanything.sources.common import Items, OnError
from metricanything.training.parallel import World

LABELS = "labels.json"
"""How the labels of a folder were made: the plan, and the teacher's record."""
REASON = "teacher_disagreement"
SOURCE_SUFFIX = "+teacher"
"""What is added to the names of sources whose frames carry labels."""
_CLOSE = 1.25  # ratio of depths that agree: that of delta1


@dataclass(frozen=True)
class Labelling:
    """How the teacher labels frames, and when its labels are trusted."""

    teacher: str = ""
    """The teacher: a checkpoint, a model's name or a Hub id."""
    folder: Path | None = None
    """Where the folders of labels go; by default each lies beside its originals, as SHARDS-labels."""
    prompts: tuple[str, ...] = ("uniform-2000",)
    """Patterns by name, of which every frame gets one at random: what the teacher is shown of its measurements."""
    held_out: float = 0.2
    """Part of a frame's measurements that is never shown, and that the teacher is checked with."""
    agreement: float = 0.8
    """Share of the held-out measurements that the teacher must meet within 25 %; a frame with less is put aside."""
    seed: int = 0
    """Seeds prompts and held-out parts."""
    batch: int = 16
    """Frames that are read and labelled together."""
    frames_per_shard: int = FRAMES_PER_SHARD
    """Frames in each tar file, after any of which an interrupted run can go on."""

    def __post_init__(self) -> None:
        for name in ("held_out", "agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"labels.{name} must lie between 0 and 1, got {getattr(self, name)}")
        for name in ("batch", "frames_per_shard"):
            if getattr(self, name) < 1:
                raise InputError(f"labels.{name} must be at least 1, got {getattr(self, name)}")
        if not self.prompts:
            raise InputError("labels.prompts is empty; name at least one pattern, such as uniform-2000")
        for name in self.prompts:
            get_pattern(name)

    def output(self, shards: Path) -> Path:
        """The folder of the labels of a shard folder."""
        whole = shards.resolve()
        return (self.folder or whole.parent) / f"{whole.name}-labels"


def label(
    shards: Shards, labelling: Labelling, world: World, progress: Callable[[int, int], None] = lambda items, size: None
) -> Shards:
    """The labels of a shard folder, made now as far as they are not there yet.

    All processes call it and share the work, shard by shard. `progress` is called with numbers of frames done and bytes
    written by this process. Raises InputError without a teacher, for one that takes no prompt, and for a folder that
    holds labels made in another way.
    """
    teacher, digest = open_teacher(labelling.teacher, world)
    items = Labelled(shards, teacher, labelling, digest)
    plan = make_plan(items, digest)
    # Every process takes part in one broadcast and one wait here, whatever there is to do.
    if not world.first:
        _write(plan, _told([], world), items, world, progress)
    elif is_done(plan):
        progress(len(items), 0)
        _write(plan, _told([], world), items, world, progress)
    else:
        with begun(plan) as missing:
            write_json(plan.output / LABELS, {"plan": plan.record(), "teacher": teacher.record})
            progress(len(items) - sum(len(plan.numbers(shard)) for shard in missing), 0)
            _write(plan, _told(missing, world), items, world, progress)
            finish(plan)
    world.wait()
    return Shards(plan.output)


def make_plan(items: Labelled, digest: str) -> Plan:
    """What is to be written; all that decides the labels is part of it."""
    settings = dataclasses.asdict(items.labelling)
    del settings["folder"], settings["teacher"]
    return Plan(
        "pseudo-labels",
        str(items.shards.folder.resolve()),
        {**settings, "teacher": digest, "index": file_sha256(items.shards.folder / INDEX)},
        items.labelling.output(items.shards.folder).absolute(),
        len(items),
        items.labelling.frames_per_shard,
        DEFAULT,
        Curation(_measure, Judge(items.labelling.agreement).decide),
    )


def is_done(plan: Plan) -> bool:
    """Whether the plan's labels are complete; InputError where the folder holds others."""
    if not (plan.output / INDEX).exists() or (plan.output / PLAN).exists():
        return False
    record = plan.output / LABELS
    if not record.exists() or read_json(record).get("plan") != plan.record():
        raise InputError(
            f"{plan.output}: holds labels of another teacher, other frames or other options; "
            "delete it, or give another --labels.folder"
        )
    return True


def open_teacher(name: str, world: World) -> tuple[Model, str]:
    """The teacher on this process's device, and the SHA-256 of its file."""
    if not name:
        raise InputError("no teacher to make labels; add --labels.teacher CHECKPOINT (`metricanything pretrain`)")
    path = find_checkpoint(name)
    teacher = load(path, device=world.device)
    if not teacher.takes_prompt:
        raise InputError(f"{name}: a {teacher.spec.name} takes no prompt; the teacher must be a prompted model")
    return teacher, file_sha256(path)


def _told(missing: list[int], world: World) -> list[int]:
    """The first process's list, in every process."""
    told: list[Any] = [missing]
    if world.size > 1:
        dist.broadcast_object_list(told)
    return told[0]  # type: ignore[no-any-return]


def _write(plan: Plan, missing: list[int], items: Labelled, world: World, progress: Callable[[int, int], None]) -> None:
    """This process's part of the missing shards, then wait for the others'."""
    for shard in missing[world.rank :: world.size]:
        write_planned(plan, shard, progress, items)
    world.wait()


# ---------------------------------------------------------------- one frame after the other


class Labelled(Items):
    """The kept frames of a shard folder with the teacher's labels, by number.

    depth: the prediction, +inf (sky) where the teacher's mask says so and nothing was measured. sigma: the depth times
    the relative error that the teacher expects of itself, NaN where it states none. source: with `+teacher` at its
    end, so that labels and originals can be mixed by weight. Frames without a measurement to prompt the teacher with,
    and those known up to scale and shift, are bad items.
    """

    def __init__(self, shards: Shards, teacher: Model, labelling: Labelling, digest: str) -> None:
        kept = shards.kept
        super().__init__(
            range(len(kept)), lambda number: shards.frame(int(kept[number])), path=shards.folder, expected="kept frames"
        )
        self.shards, self.teacher, self.labelling = shards, teacher, labelling
        self._made_by = {"model": teacher.spec.name, "sha256": digest}

    def read(self, numbers: range | None = None, on_error: OnError | None = None) -> Iterator[tuple[int, Frame]]:
        """As any data is read, a batch at a time."""
        numbers = range(len(self)) if numbers is None else numbers
        for start in range(0, len(numbers), self.labelling.batch):
            chosen = numbers[start : start + self.labelling.batch]
            cases: list[_Case] = []
            for number, frame in super().read(chosen, on_error):
                try:
                    cases.append(_case(number, frame, self.labelling))
                except InputError as error:
                    if on_error is None:
                        raise
                    on_error(f"{frame.name}: {error}")
            if cases:
                yield from self._label(cases)

    def _label(self, cases: list[_Case]) -> Iterator[tuple[int, Frame]]:
        frames = [case.frame for case in cases]
        predictions = self.teacher.predict(
            [frame.image for frame in frames],
            prompt=[case.prompt for case in cases],
            camera=[frame.camera for frame in frames],
        )
        for case, prediction in zip(cases, predictions, strict=True):
            yield case.number, _labelled(case, prediction, self._made_by)


@dataclass(frozen=True)
class _Case:
    """A frame, what the teacher is shown of it, and what it is checked with: flat indices (N,) of pixels."""

    number: int
    frame: Frame
    prompt: SparsePrompt
    held_out: NDArray[np.intp]
    recipe: dict[str, Any]


def _case(number: int, frame: Frame, labelling: Labelling) -> _Case:
    """Raises InputError for a frame that the teacher cannot be shown anything of."""
    if frame.scale == "affine":
        raise InputError("its depth is known up to scale and shift, which no prompt can state")
    known = np.flatnonzero(frame.valid)
    if not len(known):
        raise InputError("no measured depth to prompt the teacher with")
    rng = np.random.default_rng((labelling.seed, number))
    held_out = rng.permutation(known)[: int(labelling.held_out * len(known))]
    shown = frame.depth.copy()
    shown.ravel()[held_out] = np.nan
    pattern = labelling.prompts[rng.integers(len(labelling.prompts))]
    seed = int(rng.integers(2**31))
    prompt = draw_prompt(shown, pattern, seed, frame.image)
    recipe = {"pattern": pattern, "seed": seed, "points": len(prompt), "held_out": len(held_out)}
    return _Case(number, frame, prompt, held_out, recipe)


def _labelled(case: _Case, prediction: Prediction, made_by: Mapping[str, Any]) -> Frame:
    frame = case.frame
    depth = np.where(prediction.mask | frame.valid, prediction.depth, np.float32(np.inf))
    sigma = None
    if prediction.confidence is not None:
        sigma = np.where(np.isfinite(depth), prediction.depth / prediction.confidence, np.float32(np.nan))
    found = agreement(prediction.depth.ravel()[case.held_out], frame.depth.ravel()[case.held_out])
    notes = {**frame.notes, "pseudo_label": {"teacher": dict(made_by), "prompt": case.recipe, **found}}
    return dataclasses.replace(frame, depth=depth, sigma=sigma, source=frame.source + SOURCE_SUFFIX, notes=notes)


def agreement(predicted: NDArray[np.float32], measured: NDArray[np.float32]) -> dict[str, float | None]:
    """AbsRel and delta1 of predicted against measured depths (N,) in one unit; None without any."""
    if not len(measured):
        return {"abs_rel": None, "delta1": None}
    ratio = predicted.astype(np.float64) / measured
    close = np.maximum(ratio, 1 / ratio) < _CLOSE
    return {"abs_rel": float(np.abs(ratio - 1).mean()), "delta1": float(close.mean())}


# ---------------------------------------------------------------- what is put aside


@dataclass(frozen=True)
class _Agreement:
    abs_rel: float
    delta1: float

    def to_dict(self) -> dict[str, Any]:
        return {"teacher_abs_rel": self.abs_rel, "teacher_delta1": self.delta1}


def _measure(frame: Frame, neighbour: Frame | None) -> _Agreement:
    """What the label says of its own agreement with the measurements; NaN where there were too few to hold any out."""
    found = frame.notes["pseudo_label"]
    return _Agreement(*(np.nan if found[name] is None else found[name] for name in ("abs_rel", "delta1")))


@dataclass(frozen=True)
class Judge:
    """Puts frames aside whose teacher met too few of the held-out measurements."""

    agreement: float

    def decide(self, columns: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.bool_], Any]:
        """The rule `teacher_disagreement`."""
        return decide(
            columns, {REASON: {"test": "range", "column": f"{QUALITY}teacher_delta1", "below": self.agreement}}
        )
