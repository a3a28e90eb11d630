"""Parameter groups, schedule and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from metricanything.training.recipe import Optimiser


def schedule(config: Optimiser, steps: int, step: int) -> float:
    """The factor of the learning rates at a step: linear warm-up, constant, linear decay to zero."""
    rise = (step + 1) / max(config.warmup, 1)
    fall = (steps - step) / max(config.decay * steps, 1)
    return min(1.0, rise, fall)


def build(network: nn.Module, config: Optimiser) -> torch.optim.AdamW:
    """Fused AdamW over four groups: encoder or not, with weight decay (matrices, convolutions) or without."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    encoder = {id(parameter) for parameter in encoder_of(network).parameters()}
    for parameter in network.parameters():
        if parameter.requires_grad:
            # Registers, class tokens and position tables are (1, N, D), yet no matrices.
            decays = parameter.ndim >= 2 and not (parameter.ndim == 3 and parameter.shape[0] == 1)
            groups.setdefault((id(parameter) in encoder, decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": config.encoder_rate if of_encoder else config.rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (of_encoder, decays), parameters in groups.items()
        ],
        lr=config.rate,
        betas=config.betas,
        fused=True,
    )


def encoder_of(network: nn.Module) -> nn.Module:
    """What learns at the encoder's rate: the transformer of a full-size network, the image encoder of a compact one."""
    found: nn.Module = getattr(network, "backbone", None) or getattr(network, "encoder", None) or nn.Identity()
    return found


def set_rates(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's peak rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


class Average:
    """Exponential moving average of the parameters; short runs are averaged over a tenth of their steps so far."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        self.decay = decay
        self.parameters = dict(parameters)
        self.values = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        values, parameters = list(self.values.values()), [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_([_local(v) for v in values], [_local(p) for p in parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their averages; a second call undoes it."""
        for name, parameter in self.parameters.items():
            own, value = _local(parameter.detach()), _local(self.values[name])
            kept = own.clone()
            own.copy_(value)
            value.copy_(kept)


def _local(value: Tensor) -> Tensor:
    """A sharded tensor's own part (a view); any other tensor as it is."""
    return value.to_local() if hasattr(value, "to_local") else value
