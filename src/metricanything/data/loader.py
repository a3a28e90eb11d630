"""The micro-batches of one rank, made ahead of time by a thread or by worker processes."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset

from metricanything.core.errors import InputError
from metricanything.core.memory import keep_memory
from metricanything.data.batches import Batch
from metricanything.data.mixture import Mixture

Prepare = Callable[[Batch, int], Batch]
"""What a worker does to micro-batch q before it hands it over, such as drawing prompts; a function of both alone."""


def load(
    mixture: Mixture,
    start: int,
    stop: int,
    *,
    workers: int = 0,
    rank: int = 0,
    ranks: int = 1,
    prepare: Prepare | None = None,
    pin_memory: bool = False,
) -> Iterator[tuple[int, Batch]]:
    """(q, micro-batch q) of a rank for training steps start … stop - 1, in order.

    Step k of M micro-batches uses q = k M … k M + M - 1; rank r of R has those with q % R = r, so that every R that
    divides M sees the same global batches. With `workers` 0 a thread makes one micro-batch ahead. Each frame that
    cannot be read is warned of once. Raises InputError when R does not divide M.
    """
    if ranks < 1 or not 0 <= rank < ranks or mixture.micro_batches % ranks:
        raise InputError(
            f"rank {rank} of {ranks}: the number of ranks must divide the {mixture.micro_batches} micro-batches of a "
            "step; change either"
        )
    numbers = range(start * mixture.micro_batches + rank, stop * mixture.micro_batches, ranks)
    task = _Task(mixture, prepare)
    batches = _by_workers(task, numbers, workers, pin_memory) if workers else _by_thread(task, numbers, pin_memory)
    warned: set[str] = set()
    for number, batch in zip(numbers, batches, strict=True):
        for message in set(batch.damaged) - warned:
            warnings.warn(f"{message}; another frame takes its place", stacklevel=2)
            warned.add(message)
        yield number, batch


@dataclass(frozen=True)
class _Task(Dataset[Batch]):
    mixture: Mixture
    prepare: Prepare | None

    def __getitem__(self, number: int) -> Batch:
        batch = self.mixture.batch(number)
        return batch if self.prepare is None else self.prepare(batch, number)


def _by_workers(task: _Task, numbers: Sequence[int], workers: int, pin_memory: bool) -> Iterator[Batch]:
    # No batch_size: a number gives a whole batch already.
    # A generator of its own: the loader would draw its seed, which nothing here uses, from torch's global one.
    loader = DataLoader(
        task,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        pin_memory=pin_memory,
        generator=torch.Generator(),
        worker_init_fn=_begin_worker,
    )
    return iter(loader)


def _begin_worker(worker: int) -> None:
    keep_memory()
    # Schedulers send SIGTERM to every process of a job; the training process writes a checkpoint then, and ends us.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _by_thread(task: _Task, numbers: Sequence[int], pin_memory: bool) -> Iterator[Batch]:
    def make(number: int) -> Batch:
        return task[number].pin_memory() if pin_memory else task[number]

    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = [pool.submit(make, number) for number in numbers[:1]]
        for following in numbers[1:]:
            batch = pending.pop().result()
            pending.append(pool.submit(make, following))
            yield batch
        for last in pending:
            yield last.result()
