"""The whole method, small, end to end: aggregate, pretrain, distil, predict, report.

Every stage leaves its results in the run folder and a mark in `quickstart.json`. An interrupted run goes on with the
stage it was in, training from its last checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from metricanything.core.errors import InputError
from metricanything.core.files import read_json, write_json


@dataclass(frozen=True)
class Settings:
    """How big the run is."""

    scenes: int = 400
    """Rendered training scenes."""
    teacher_steps: int = 260
    """Optimiser steps of the teacher."""
    student_steps: int = 100
    """Optimiser steps of each student."""
    seed: int = 0
    """Seeds scenes, training and test prompts."""

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.teacher_steps < 1 or self.student_steps < 1:
            raise InputError("quickstart needs at least one scene, one teacher step and one student step")


class Bar(Protocol):
    """A stage's progress display."""

    def __call__(self, done: int, detail: str = "", total: int | None = None) -> None:
        """`done` of the stage's items are finished; `total` states how many there are once that is known."""
        ...


#: Opens a progress display: (description, total or None, unit) -> context manager that gives a `Bar`.
OpenBar = Callable[[str, int | None, str], AbstractContextManager[Bar]]


@dataclass(frozen=True)
class Run:
    """A run folder and what all stages need."""

    folder: Path
    settings: Settings
    open_bar: OpenBar

    @property
    def shards(self) -> Path:
        """Training shards."""
        return self.folder / "shards"

    @property
    def labels(self) -> Path:
        """The same frames with the teacher's labels."""
        return self.folder / "labels"

    def model(self, name: str) -> Path:
        """The checkpoint of a model."""
        return self.folder / "models" / f"{name}.safetensors"

    def curve(self, name: str) -> Path:
        """The loss curve of a model."""
        return self.folder / "curves" / f"{name}.json"

    @property
    def state(self) -> Path:
        """Settings, and the seconds of every stage that is done."""
        return self.folder / "quickstart.json"

    def prediction(self, frame: str, method: str) -> Path:
        """The folder of one prediction."""
        return self.folder / "predictions" / frame / method

    @property
    def results(self) -> Path:
        """The measured numbers."""
        return self.folder / "results.json"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.folder / "report.html"


def run(folder: Path, settings: Settings, open_bar: OpenBar, *, fresh: bool = False) -> Run:
    """Do all stages that are not done yet and return the run; `fresh` deletes an earlier run of the folder first.

    Raises InputError when the folder holds something that is not a quickstart run, or one with other settings.
    """
    from metricanything.quickstart import stages

    this = Run(folder, settings, open_bar)
    marker = this.state
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise InputError(f"{folder}: is not empty and not a quickstart run; give another --output")
    if fresh and folder.exists():
        shutil.rmtree(folder)
    done: dict[str, Any] = read_json(marker) if marker.exists() else {"settings": asdict(settings), "seconds": {}}
    if done["settings"] != asdict(settings):
        raise InputError(f"{folder}: holds a run with other settings; add --fresh to replace it, or another --output")
    write_json(marker, done)
    for name, stage in stages.STAGES.items():
        if name in done["seconds"]:
            continue
        started = time.monotonic()
        stage(this)
        done["seconds"][name] = round(time.monotonic() - started, 1)
        write_json(marker, done)
    return this
