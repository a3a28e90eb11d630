"""The whole method, small, end to end: aggregate, pretrain, distil, predict, report.

Every stage leaves its results in the run folder and a mark in `quickstart.json`. An interrupted run goes on with the
stage it was in, training from its last checkpoint.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from metricanything import __version__
from metricanything.core.errors import InputError
from metricanything.core.files import lock, read_json, write_json


@dataclass(frozen=True)
class Settings:
    """How big the run is."""

    scenes: int = 400
    """Rendered training scenes."""
    teacher_steps: int = 400
    """Optimiser steps of the teacher."""
    student_steps: int = 150
    """Optimiser steps of each student."""
    seed: int = 0
    """Seeds scenes, training and test prompts; between 0 and 2^32."""

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.teacher_steps < 1 or self.student_steps < 1:
            raise InputError("quickstart needs at least one scene, one teacher step and one student step")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must lie between 0 and 2^32, got {self.seed}")


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
        return self.folder / "shards-labels"

    def model(self, name: str) -> Path:
        """The checkpoint of a model."""
        return self.folder / "models" / f"{name}.safetensors"

    def curve(self, name: str) -> Path:
        """The loss curve of a model."""
        return self.folder / "curves" / f"{name}.json"

    @property
    def state(self) -> Path:
        """Settings, the stages that are done, and the seconds that each took."""
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
    """Do all stages that are not done yet and return the run; `fresh` replaces an earlier run of the folder.

    Raises InputError when the folder holds something that is not a quickstart run, one of another version or with other
    settings, or one that is under way.
    """
    from metricanything.quickstart import stages

    this = Run(folder, settings, open_bar)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a folder; give another --output")
    if folder.exists() and any(folder.iterdir()) and not this.state.exists():
        raise InputError(f"{folder}: is not empty and not a quickstart run; give another --output")
    if fresh and folder.exists():
        _remove(folder)
    wanted = {"version": __version__, **asdict(settings)}
    state: dict[str, Any] = {"settings": wanted, "done": [], "seconds": {}}
    if this.state.exists():
        state = read_json(this.state)
    if state.get("settings") != wanted:
        raise InputError(
            f"{folder}: holds a run of another version or with other settings; "
            "add --fresh to replace it, or give another --output"
        )
    write_json(this.state, state)
    with _alone(folder):
        for name, stage in stages.STAGES.items():
            if name in state["done"]:
                continue
            started = time.monotonic()
            try:
                stage(this)
                state["done"].append(name)
            finally:  # an interrupted attempt took its time as well
                state["seconds"][name] = round(state["seconds"].get(name, 0) + time.monotonic() - started, 1)
                write_json(this.state, state)
    return this


def _remove(folder: Path) -> None:
    """Delete a run: renamed first, so that a half-deleted one is never taken for something else."""
    doomed = folder.with_name(f".{folder.name}.{time.time_ns()}.deleted")
    folder.rename(doomed)
    shutil.rmtree(doomed)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    with open(folder / ".lock", "w") as file:
        lock(file, f"{folder}: another quickstart is running here; wait, or give another --output")
        yield
