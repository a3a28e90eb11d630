"""A plain training loop: one process, checkpoints that are written atomically, resume where it stopped."""

from __future__ import annotations

import dataclasses
import io
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.core.files import write_bytes
from metricanything.data.batches import Batch
from metricanything.data.loader import load
from metricanything.data.mixture import Mixture

Loss = Callable[[nn.Module, Batch, torch.Generator], dict[str, Tensor]]
"""network, batch, generator for the step's randomness -> named terms; their sum is minimised."""
Curve = list[tuple[int, float]]
"""Step and loss; steps that were skipped are left out."""

_MAX_BAD_STEPS = 20


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train."""

    steps: int
    """Optimiser steps."""
    batch_size: int = 16
    """Images per step."""
    sizes: tuple[tuple[int, int], ...] = ((128, 160), (96, 160), (160, 128))
    """(height, width) of the training views, one drawn per step; multiples of 32."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 50
    """Steps of linear warm-up."""
    decay: float = 0.5
    """Fraction of the steps, at the end, over which the rate falls linearly to zero."""
    weight_decay: float = 0.01
    """Of weight matrices and convolutions; not of biases, norms and gains."""
    clip: float = 1.0
    """Largest gradient norm."""
    seed: int = 0
    """Seeds data order, augmentation, prompts and initial weights."""
    checkpoint_seconds: float = 20.0
    """Time between checkpoints."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must lie between 0 and 2^32, got {self.seed}")


def learning_rate(config: TrainConfig, step: int) -> float:
    """Warm-up, constant, linear decay."""
    rise = (step + 1) / max(config.warmup, 1)
    fall = (config.steps - step) / max(config.decay * config.steps, 1)
    return config.learning_rate * min(1.0, rise, fall)


def train(
    network: nn.Module,
    loss: Loss,
    data: Mixture,
    config: TrainConfig,
    folder: str | Path,
    progress: Callable[[int, float], None] | None = None,
) -> Curve:
    """Train in place on the CPU and return the loss curve; `folder/state.pt` lets an interrupted run go on.

    Randomness of step k comes from (seed, k) alone. A step whose loss or gradient is not finite is skipped; too many
    in a row raise RuntimeError with the names of the samples.
    """
    state_path = Path(folder) / "state.pt"
    # Channels last and the fused optimiser: a quarter less time per step on a CPU, with the same numbers to rounding.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = _parameter_groups(network, config)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    start, curve = _resume(state_path, network, optimizer, config)
    network.train()
    bad, last_saved = 0, time.monotonic()
    for step, batch in load(data, start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        terms = loss(network, batch, torch.Generator().manual_seed(config.seed * 1_000_003 + step))
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), config.clip)
        if torch.isfinite(total) and torch.isfinite(norm):
            optimizer.step()
            curve.append((step, float(total.detach())))
            bad = 0
        else:
            bad += 1
            if bad >= _MAX_BAD_STEPS:
                raise RuntimeError(f"loss not finite {bad} steps in a row; last samples: {', '.join(batch.names)}")
        if progress is not None:
            progress(step + 1, float(total.detach()))
        if time.monotonic() - last_saved > config.checkpoint_seconds or step + 1 == config.steps:
            _save(state_path, network, optimizer, config, step + 1, curve)
            last_saved = time.monotonic()
    network.eval()
    return curve


def _parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict]:
    decayed = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    return [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, step: int, curve: Curve
) -> None:
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "settings": _settings(config),
        "step": step,
        "curve": curve,
    }
    # Through memory: written straight to a file, a full disk would come back as some other error.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def _settings(config: TrainConfig) -> str:
    """What must not change between a run and its continuation, which may be longer."""
    return repr(dataclasses.replace(config, steps=0, checkpoint_seconds=0))


def _resume(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> tuple[int, Curve]:
    if not path.exists():
        return 0, []
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["settings"] != _settings(config):
            raise ValueError("it was trained with other settings")
        if state["step"] > config.steps:
            raise ValueError(f"it has trained {state['step']} steps already, more than the {config.steps} asked for")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"]), [(int(s), float(v)) for s, v in state["curve"]]
    except (RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot go on from this checkpoint ({reason}); delete it to start again") from None
