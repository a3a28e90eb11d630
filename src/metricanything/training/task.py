"""What a network is trained to do: what it is given, what it is charged for, how its errors are stated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from metricanything.data.batches import Batch


class Task(Protocol):
    """One for each kind of network; picklable, because batches are prepared in other processes."""

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Add what the network is given, such as a prompt; all randomness comes from the generator (on the CPU)."""
        ...

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the network is called with."""
        ...

    def loss(self, output: Any, batch: Batch, weights: Any) -> dict[str, Tensor]:
        """Named terms (), each a mean over the images of the batch; their sum is minimised.

        `weights` are those of the recipe's stage, of the kind that the task knows.
        """
        ...

    def errors(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Named errors (B,) of a validation batch, NaN where an image has none; the first one ranks checkpoints."""
        ...


def seed_of(seed: int, number: int) -> int:
    """The seed of micro-batch `number` of a run, whoever computes it."""
    return (seed * 1_000_003 + number) % 2**63


def generator(seed: int, number: int) -> torch.Generator:
    """The randomness of micro-batch `number` of a run."""
    return torch.Generator().manual_seed(seed_of(seed, number))


@dataclass(frozen=True)
class Prepare:
    """`task.prepare` with the randomness of the batch's number: what the loader's processes call."""

    task: Task
    seed: int

    def __call__(self, batch: Batch, number: int) -> Batch:
        """The prepared batch."""
        return self.task.prepare(batch, generator(self.seed, number))
