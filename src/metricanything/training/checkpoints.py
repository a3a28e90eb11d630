"""Checkpoints of a run: written beside the training, whole or absent, readable by any number of processes.

`RUN/checkpoints/step-00000500/` holds what `torch.distributed.checkpoint` writes and `meta.json`. A folder that is
still being written has another name, so that what can be seen is complete.
"""

from __future__ import annotations

import errno
import shutil
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer

from metricanything.core.errors import InputError
from metricanything.core.files import read_json, write_json
from metricanything.training.optimiser import Average
from metricanything.training.parallel import World
from metricanything.training.recipe import Recipe

META = "meta.json"
# Said of every run of one process, which is as it should be.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
VERSION = 1


@dataclass
class State:
    """Everything that a step changes."""

    network: nn.Module
    optimiser: Optimizer
    average: Average | None

    def tensors(self) -> dict[str, Any]:
        """By names that do not depend on the number of processes."""
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimiser": get_optimizer_state_dict(self.network, self.optimiser),
        }
        if self.average is not None:
            state["average"] = dict(self.average.values)
        return state


@dataclass
class _Writing:
    future: Future
    folder: Path
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run. All methods are called by all processes alike."""

    def __init__(self, folder: Path, recipe: Recipe, world: World) -> None:
        self.folder, self.recipe, self.world = folder / "checkpoints", recipe, world
        self._writing: _Writing | None = None
        # The writing thread must not exchange messages through the channel that gradients use.
        self._group = dist.new_group(backend="gloo") if world.size > 1 else None
        if world.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self.folder.glob(".step-*"):
                shutil.rmtree(unfinished)
        world.wait()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        """A checkpoint that is being written when a run is interrupted is finished; of many processes some are gone."""
        if self.world.size == 1:
            self.settle(wait=True)

    def steps(self) -> list[int]:
        """Steps after which there is a complete checkpoint."""
        return sorted(int(path.name[5:]) for path in self.folder.glob("step-*") if (path / META).is_file())

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is."""
        return self.folder / f"step-{step:08d}"

    def load(self, state: State) -> dict[str, Any] | None:
        """Continue from the newest checkpoint: fill `state` and return its meta record; None without a checkpoint.

        Raises InputError for one of other settings, of a longer run than asked for, and for a damaged one.
        """
        steps = self.steps()
        if not steps:
            return None
        path = self.path(steps[-1])
        meta = read_json(path / META)
        try:
            if meta["version"] != VERSION:
                raise ValueError("it was written by another version")
            if meta["step"] > self.recipe.steps:
                raise ValueError(f"it has trained {meta['step']} steps, more than the {self.recipe.steps} asked for")
            if changed := _changes(meta["recipe"], self.recipe.identity()):
                raise ValueError(f"it was trained with another {changed}")
            tensors = state.tensors()
            dcp.load(tensors, checkpoint_id=path, no_dist=self.world.size == 1)
            state.network.load_state_dict(tensors["network"])
            set_optimizer_state_dict(state.network, state.optimiser, tensors["optimiser"])
            if state.average is not None:
                for name, value in state.average.values.items():
                    value.copy_(tensors["average"][name])
        except (dcp.CheckpointException, RuntimeError, LookupError, TypeError, ValueError, OSError, EOFError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: cannot go on from it ({reason}); delete it, or give another folder") from None
        return meta

    def save(self, state: State, meta: dict[str, Any]) -> None:
        """Begin to write the checkpoint after `meta["step"]` steps; the training goes on meanwhile."""
        self.settle(wait=True)
        folder = self.folder / f".step-{meta['step']:08d}"
        # Copied before it returns: what training changes from now on is not written.
        alone = self.world.size == 1
        future = dcp.async_save(state.tensors(), checkpoint_id=folder, process_group=self._group, no_dist=alone)
        assert isinstance(future, Future)
        self._writing = _Writing(future, folder, {"version": VERSION, "recipe": self.recipe.identity(), **meta})

    def settle(self, *, wait: bool = False) -> None:
        """Make a checkpoint visible once it is written, and remove those that are no longer kept.

        The first process learns that all have written theirs, so none waits for another unless asked to.
        """
        if self._writing is not None and (wait or self._writing.future.done()):
            self._finish(self._writing)
        if wait:
            self.world.wait()

    def _finish(self, writing: _Writing) -> None:
        self._writing = None
        _result(writing)
        if self.world.first:
            write_json(writing.folder / META, writing.meta)
            final = self.path(writing.meta["step"])
            shutil.rmtree(final, ignore_errors=True)
            writing.folder.rename(final)
            self._prune(best=writing.meta.get("best"))

    def _prune(self, best: dict[str, Any] | None) -> None:
        steps = self.steps()
        keep = set(steps[-self.recipe.record.keep :]) | ({best["step"]} if best else set())
        for step in set(steps) - keep:
            shutil.rmtree(self.path(step), ignore_errors=True)


def _result(writing: _Writing) -> None:
    """Wait until a checkpoint is written. Raises OSError, where the disk is full with that as its reason."""
    try:
        writing.future.result()
    except dcp.CheckpointException as error:  # no Exception: nobody else would catch it
        causes = [cause for cause, _ in error.failures.values()]
        code = next((c.errno for c in causes if isinstance(c, OSError) and c.errno), errno.EIO)
        if shutil.disk_usage(writing.folder.parent).free < 2**20:
            code = errno.ENOSPC  # PyTorch's own writer reports that as a bare RuntimeError
        raise OSError(code, "; ".join(dict.fromkeys(map(str, causes)))[:200], str(writing.folder)) from error


def _changes(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    """The first setting that differs, as it is called on the command line; empty where all are equal."""
    for name in sorted(set(then) | set(now)):
        old, new = then.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if inner := _changes(old, new, f"{prefix}{name}."):
                return inner
        elif old != new:
            return f"{prefix}{name} ({old}, now {new})"
    return ""
