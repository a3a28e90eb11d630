"""The training loop: the same steps on a laptop's CPU and on many GPUs, resumable to the bit.

Step k computes micro-batches k M … k M + M - 1. Each is a pure function of its number and the recipe's seed (data
order, augmentation, prompt), and the gradient is the mean over all M, whichever process computes which: a run that
goes on with another number of processes sees the same samples, and its gradients differ by rounding alone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from metricanything.core.memory import keep_memory
from metricanything.data.batches import Batch
from metricanything.data.loader import load
from metricanything.data.mixture import Mixture
from metricanything.training import optimiser, parallel
from metricanything.training.checkpoints import Checkpoints, State
from metricanything.training.monitor import Monitor
from metricanything.training.parallel import World
from metricanything.training.recipe import Recipe
from metricanything.training.task import Prepare, Task, seed_of

Curve = list[tuple[int, float]]
"""Step and loss; steps that were skipped are left out."""
Progress = Callable[[int, float, dict[str, float]], None]
"""Called with steps done, loss and its terms."""
Validate = Callable[[nn.Module], dict[str, float]]
"""Named errors on held-out frames; the first is the one by which checkpoints are compared, lower is better."""

MAX_BAD_STEPS = 20


@dataclass(frozen=True)
class Step:
    """What one step found out, over all processes."""

    terms: dict[str, float]
    """Means over all micro-batches."""
    norm: float
    """Of the gradient, before clipping."""
    usable: bool
    """Whether loss and gradient were finite; otherwise nothing was changed."""
    wish: bool
    """Whether a process wished for a checkpoint."""
    stop: bool
    """Whether a process was asked to end; all have to end after the same step."""
    guilty: tuple[str, ...] = ()
    """Samples that may be at fault in a step that is not usable, of all processes."""

    @property
    def loss(self) -> float:
        """What was minimised."""
        return sum(self.terms.values())


class Engine:
    """One training run: a network, its task, the data of each stage of the recipe, and a folder."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        recipe: Recipe,
        mixtures: Sequence[Mixture],
        folder: Path,
        world: World,
        *,
        validate: Validate | None = None,
    ) -> None:
        self.recipe, self.task, self.mixtures, self.world = recipe, task, mixtures, world
        self.share = world.share(recipe.micro_batches)
        self.network = network
        self.wrapped = parallel.spread(network, recipe.hardware, world)
        self.optimiser = optimiser.build(network, recipe.optimiser)
        decay = recipe.optimiser.average
        self.average = optimiser.Average(network.named_parameters(), decay) if decay else None
        self.state = State(network, self.optimiser, self.average)
        self.checkpoints = Checkpoints(folder, recipe, world)
        self.monitor = Monitor(folder, recipe, world)
        self.validate = validate
        self.best: dict[str, float] | None = None
        self._bad = 0

    def run(self, progress: Progress | None = None) -> Curve:
        """Train to the end, from the newest checkpoint where there is one; the network is left with its average."""
        meta = self.checkpoints.load(self.state) or {"step": 0, "best": None, "bad": 0}
        if self.world.device.type == "cpu":
            keep_memory()
        start, self.best, self._bad = meta["step"], meta["best"], meta["bad"]
        with self.monitor.open(start), self.checkpoints, _stop_requests() as stop:
            self.network.train()
            saved, stopped = time.monotonic(), False
            for number, batches in self.batches(start):
                due = self.world.first and time.monotonic() - saved > self.recipe.record.checkpoint_seconds
                step = self.step(number, batches, wish=due, stop=stop.is_set())
                self._guard(number, step)
                self.monitor.step(number, step.loss, step.terms, step.norm, step.usable)
                if progress is not None:
                    progress(number + 1, step.loss, step.terms)
                last = number + 1 == self.recipe.steps
                if last or (number + 1) % self.recipe.record.validate_every == 0:
                    self._measure(number + 1)
                best = self.best is not None and self.best["step"] == number + 1
                if last or best or step.wish or step.stop:
                    meta = {"step": number + 1, "best": self.best, "bad": self._bad}
                    self.checkpoints.save(self.state, meta)
                    saved = time.monotonic()
                stopped = step.stop
                if stopped:
                    break
                self.checkpoints.settle()
            self.checkpoints.settle(wait=True)
            if stopped:
                raise KeyboardInterrupt
        if self.average is not None:
            self.average.swap()
        self.network.eval()
        return self.monitor.curve()

    def batches(self, start: int) -> Iterator[tuple[int, list[Batch]]]:
        """Steps from `start` on with this process's micro-batches, on its device, with their prompts."""
        starts = self.recipe.stage_starts()
        on_cpu = self.world.device.type == "cpu"
        for stage, mixture in enumerate(self.mixtures):
            first, end = max(start, starts[stage]), starts[stage + 1]
            prepare = Prepare(self.task, self.recipe.seed)
            arriving = load(
                mixture,
                first,
                end,
                workers=self.recipe.data.workers,
                rank=self.world.rank,
                ranks=self.world.size,
                # On a GPU prompts are drawn there, for the whole batch at once.
                prepare=prepare if on_cpu else None,
            )
            for number in range(first, end):
                batches = []
                for _ in range(self.share):
                    micro, batch = next(arriving)
                    batch = batch.to(self.world.device)
                    batches.append(batch if on_cpu else prepare(batch, micro))
                yield number, batches

    def step(self, number: int, batches: Sequence[Batch], *, wish: bool = False, stop: bool = False) -> Step:
        """One optimiser step; without effect where a loss or the gradient is not finite on any process."""
        terms = self.gradients(number, batches)
        norm = parallel.gradient_norm(self.network, self.recipe.optimiser.clip)
        local = torch.stack(list(terms.values())).double().cpu()
        means = local.mean(dim=1)
        bad = float(not (means.isfinite().all() and torch.isfinite(norm)))
        # NaN in a sum would leave nothing of the other processes' losses.
        flags = torch.tensor([bad, float(wish), float(stop)])
        sums = self.world.sum(torch.cat([means.nan_to_num(0, 0, 0), flags]))
        usable, wish, stop = not sums[-3], bool(sums[-2]), bool(sums[-1])
        guilty = () if usable else self._guilty(batches, local.sum(dim=0).isfinite().tolist())
        if usable:
            optimiser.set_rates(self.optimiser, optimiser.schedule(self.recipe.optimiser, self.recipe.steps, number))
            self.optimiser.step()
            if self.average is not None:
                self.average.update(number)
        values = means if self.world.size == 1 else sums[:-3] / self.world.size
        return Step(dict(zip(terms, values.tolist(), strict=True)), float(norm), usable, wish, stop, guilty)

    def gradients(self, number: int, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """The mean gradient over all processes' micro-batches, left in the parameters; this process's terms (A,)."""
        self.optimiser.zero_grad(set_to_none=True)
        weights = self.recipe.stages[self.stage(number)].weights
        found: dict[str, list[Tensor]] = {}
        for i, batch in enumerate(batches):
            # For networks that draw random numbers of their own.
            torch.manual_seed(seed_of(self.recipe.seed, self.micro(number, i)))
            with parallel.synchronised(self.wrapped, i + 1 == len(batches)):
                with parallel.autocast(self.recipe.hardware, self.world):
                    output = self.wrapped(*self.task.inputs(batch))
                terms = self.task.loss(output, batch, weights)
                (torch.stack(list(terms.values())).sum() / len(batches)).backward()
            for name, value in terms.items():
                found.setdefault(name, []).append(value.detach())
        return {name: torch.stack(values) for name, values in found.items()}

    def micro(self, number: int, i: int) -> int:
        """The number of this process's micro-batch i of a step (see `data.loader.load`)."""
        return number * self.recipe.micro_batches + i * self.world.size + self.world.rank

    def stage(self, number: int) -> int:
        """Which stage of the recipe a step belongs to."""
        return sum(number >= end for end in self.recipe.stage_starts()[1:-1])

    def _guilty(self, batches: Sequence[Batch], finite: Sequence[bool]) -> tuple[str, ...]:
        """Samples of the micro-batches, of all processes, whose loss is not finite; without any such, all samples."""
        mine = [(ok, batch.names) for ok, batch in zip(finite, batches, strict=True)]
        everyone = [pair for pairs in self.world.gather(mine) for pair in pairs]
        # With finite losses the gradient of any of them may be at fault.
        names = [names for ok, names in everyone if not ok] or [names for _, names in everyone]
        return tuple(name for group in names for name in group)

    def _guard(self, number: int, step: Step) -> None:
        """Report a skipped step with the samples in it; raise RuntimeError after too many in a row."""
        if step.usable:
            self._bad = 0
            return
        self._bad += 1
        names = ", ".join(step.guilty)
        self.monitor.skipped(number, names)
        if self._bad >= MAX_BAD_STEPS:
            raise RuntimeError(f"loss not finite {self._bad} steps in a row; last samples: {names}")

    def _measure(self, done: int) -> None:
        """Errors on held-out frames, with the averaged weights where there are any; remembers the best."""
        if self.validate is None:
            return
        if self.average is not None:
            self.average.swap()
        self.network.eval()
        errors = self.validate(self.wrapped)
        self.network.train()
        parallel.gather_again(self.network)
        if self.average is not None:
            self.average.swap()
        self.monitor.validation(done, errors)
        error = next(iter(errors.values()), None)
        if error is not None and (self.best is None or error < self.best["error"]):
            self.best = {"step": done, "error": error}


def train(
    network: nn.Module,
    task: Task,
    recipe: Recipe,
    mixtures: Sequence[Mixture],
    folder: str | Path,
    progress: Progress | None = None,
) -> Curve:
    """Train a network in place, or go on with it, and return the loss curve; a folder keeps what resuming needs."""
    with parallel.world(recipe.hardware) as world:
        return Engine(network, task, recipe, mixtures, Path(folder), world).run(progress)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Set when the process is asked to end (SIGTERM, as schedulers send it): a checkpoint is written first."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)
