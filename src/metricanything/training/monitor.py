"""What a run says of itself: the loss curve in a file, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.files import write_json, write_text
from metricanything.training.parallel import World
from metricanything.training.recipe import Recipe


class Monitor:
    """Writes `RUN/recipe.json`, `RUN/curve.jsonl`, a line per step, and `RUN/events/` for TensorBoard.

    In the first process alone.
    """

    def __init__(self, folder: Path, recipe: Recipe, world: World) -> None:
        self.folder, self.recipe, self.world = folder, recipe, world
        self._curve = folder / "curve.jsonl"
        self._board: Any = None
        self._file: Any = None
        self._last = 0
        self._since: tuple[int, float] | None = None

    @contextmanager
    def open(self, start: int) -> Iterator[None]:
        """Record from step `start` on; lines of later steps, from before an interruption, are dropped."""
        if not self.world.first:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = [line for line in self._lines() if json.loads(line)["step"] < start]
        write_text(self._curve, "".join(kept))
        # Not before the checkpoint was found to be of these settings.
        write_json(self.folder / "recipe.json", self.recipe.to_dict())
        self._board = _board(self.folder / "events", self.recipe, start)
        with open(self._curve, "a", encoding="utf-8") as self._file:
            try:
                yield
            finally:
                if self._board is not None:
                    self._board.close()

    def _lines(self) -> list[str]:
        """Whole lines of the curve; the last may be half of one after a power cut."""
        if not self._curve.exists():
            return []
        return [line for line in self._curve.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]

    def curve(self) -> list[tuple[int, float]]:
        """Step and loss of every step that counted."""
        rows = map(json.loads, self._lines())
        return [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]

    def last_validation(self) -> dict[str, float]:
        """The errors measured last; empty where nothing was measured."""
        rows = [row["validation"] for row in map(json.loads, self._lines()) if "validation" in row]
        return rows[-1] if rows else {}

    def step(self, number: int, loss: float, terms: dict[str, float], norm: float, usable: bool) -> None:
        """Record one step; steps without effect have no loss."""
        if not self.world.first:
            return
        self._last = number
        row = {"step": number, "loss": loss, **terms, "norm": norm} if usable else {"step": number, "loss": None}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is None or number % self.recipe.record.log_every or not usable:
            return
        for name, value in {"loss": loss, "gradient norm": norm}.items():
            self._board.add_scalar(f"train/{name}", value, number)
        for name, value in terms.items():
            self._board.add_scalar(f"terms/{name}", value, number)
        now = time.monotonic()
        if self._since is not None and number > self._since[0]:
            images = (number - self._since[0]) * self.recipe.batch * self.recipe.micro_batches
            self._board.add_scalar("train/images per second", images / (now - self._since[1]), number)
        self._since = number, now

    def skipped(self, number: int, names: str) -> None:
        """Say which samples were in a step that was skipped."""
        if self.world.first:
            warnings.warn(f"step {number} skipped: loss or gradient not finite; samples {names}", stacklevel=2)

    def validation(self, done: int, errors: dict[str, float]) -> None:
        """Record errors on held-out frames after `done` steps."""
        if not self.world.first:
            return
        self._file.write(json.dumps({"step": done - 1, "validation": errors}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in errors.items():
                self._board.add_scalar(f"validation/{name}", value, done - 1)  # a purge from `done` on leaves it

    def picture(self, name: str, image: NDArray[np.uint8]) -> None:
        """Show an image (H, W, 3) in TensorBoard, at the step recorded last."""
        if self._board is not None:
            self._board.add_image(name, image, self._last, dataformats="HWC")


def _board(folder: Path, recipe: Recipe, start: int) -> Any:
    """TensorBoard's writer, mirrored to Weights & Biases where the recipe names a project; None without it.

    Raises InputError for a project where Weights & Biases or TensorBoard, which it mirrors, is not installed.
    """
    if recipe.record.wandb is not None:
        for package in ("wandb", "tensorboard"):
            if find_spec(package) is None:
                raise InputError(f"--record.wandb needs {package}; pip install {package}, or leave the option out")
    if find_spec("tensorboard") is None:
        warnings.warn(
            "TensorBoard is not installed, so the run is recorded in curve.jsonl alone; "
            'for it, pip install "metricanything[train]"',
            stacklevel=2,
        )
        return None
    from torch.utils.tensorboard import SummaryWriter

    if recipe.record.wandb is not None:
        import wandb

        wandb.init(project=recipe.record.wandb, config=recipe.to_dict(), sync_tensorboard=True, resume="allow")
    return SummaryWriter(str(folder), purge_step=start)
