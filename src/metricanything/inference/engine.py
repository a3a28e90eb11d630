"""What every family of networks needs to be run: a device, a precision, options, and the images of one input size."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.core.prediction import Prediction
from metricanything.inference.inputs import Prepared
from metricanything.models.mapped import leaves
from metricanything.models.registry import ModelSpec


@dataclass(frozen=True)
class Options:
    """What a caller may choose for a prediction; None is the model's default."""

    max_side: int | None = None
    """Longer side of a compact network's input in pixels."""
    num_tokens: int | None = None
    """Number of image patches that a point-map network looks at: more is finer and slower."""
    resolution_level: int | None = None
    """0 to 9, instead of a number: from the fewest to the most tokens the network was trained with."""


class Engine(ABC):
    """A network on its device, and how images enter it and predictions come out."""

    options: tuple[str, ...] = ()
    """Names of the `Options` it understands."""
    batch_size = 1
    """Images that go through the network together by default."""

    def __init__(
        self, network: nn.Module, spec: ModelSpec, record: dict[str, Any], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.spec, self.record, self.device = spec, record, device
        network = network.to(device=device, dtype=dtype).eval()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype
        if device.type == "cpu" and dtype != torch.float32:
            widen_for_computing(network)
            self.dtype = torch.float32
        self.network: Any = network

    def check(self, options: Options) -> Options:
        """The options; raises InputError for one that this model does not have."""
        for field in fields(options):
            if getattr(options, field.name) is not None and field.name not in self.options:
                known = f"; it takes {', '.join(self.options)}" if self.options else ""
                raise InputError(f"{self.spec.name} has no {field.name}{known}")
        return options

    @abstractmethod
    def input_size(self, height: int, width: int, options: Options) -> tuple[int, int]:
        """(height, width) in pixels at which an image of this size enters the network."""

    @abstractmethod
    def run(self, items: Sequence[Prepared]) -> list[Prediction]:
        """Predictions of images of one input size."""

    def tensor(self, item: Prepared) -> Tensor:
        """The image as float32 (1, 3, H, W) in [0, 1] on the device."""
        return torch.from_numpy(item.image).to(self.device).permute(2, 0, 1)[None].float().div_(255)


def widen_for_computing(network: nn.Module) -> None:
    """Let a network with half-precision weights compute in float32, one layer's weights widened at a time.

    Most processors have no fast half-precision arithmetic; what halved weights save on them is memory.
    """

    def widen(module: nn.Module, _: Any) -> None:
        module.__dict__["_narrow"] = dict(module._parameters)
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(value.float(), requires_grad=False)

    def narrow(module: nn.Module, *_: Any) -> None:
        module._parameters.update(module.__dict__.pop("_narrow"))

    for module in leaves(network):
        module.register_forward_pre_hook(widen)
        module.register_forward_hook(narrow, always_call=True)


def whole(value: Any, what: str) -> int:
    """The value as an int; raises InputError when it is no whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} must be a whole number, got {value!r}") from None
