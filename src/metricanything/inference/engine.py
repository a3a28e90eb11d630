"""What every family of networks needs to be run: a device, a precision, options, and the images of one input size."""

from __future__ import annotations

import operator
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.core.prediction import Prediction
from metricanything.inference.inputs import Prepared
from metricanything.models.precision import leaves, narrow_matrices
from metricanything.models.registry import ModelSpec

HALF = (torch.float16, torch.bfloat16)
_PAYS = 1.3  # times as fast: below it, rounding is not worth it


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
        network = network.to(device=device).eval()
        self.dtype = self._arithmetic = torch.float32
        if dtype in HALF:
            narrow_matrices(network, dtype)
            if device.type != "cpu" or fast_on_cpu(dtype):
                self._arithmetic = dtype
            else:
                widen_for_computing(network)
        else:
            self.dtype = dtype
            network.to(dtype)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: Any = network

    def precision(self) -> AbstractContextManager[Any]:
        """The context in which the network computes: half precision where it is asked for and pays."""
        half = self._arithmetic != torch.float32
        return torch.autocast(self.device.type, self._arithmetic) if half else nullcontext()

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
    """Let half-precision weights take part in float32 arithmetic, one layer's widened at a time.

    On a processor without fast half-precision arithmetic, what halved weights save is memory.
    """

    def widen(module: nn.Module, _: Any) -> None:
        module.__dict__["_narrow"] = module._parameters["weight"]
        module._parameters["weight"] = nn.Parameter(module.__dict__["_narrow"].float(), requires_grad=False)

    def narrow(module: nn.Module, *_: Any) -> None:
        module._parameters["weight"] = module.__dict__.pop("_narrow")

    for module in leaves(network):
        if (weight := module._parameters.get("weight")) is not None and weight.dtype in HALF:
            module.register_forward_pre_hook(widen)
            module.register_forward_hook(narrow, always_call=True)


@cache
def fast_on_cpu(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies matrices of a half-precision type clearly faster than float32.

    Tried once, in a hundredth of a second: processors with the instructions differ by a factor of four here (0.5 on one
    without AMX, 2.1 on a Zen 4), so the instruction set alone does not tell.
    """

    def seconds(kind: torch.dtype) -> float:
        a = torch.ones(768, 768, dtype=kind)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return seconds(dtype) * _PAYS < seconds(torch.float32)


def whole(value: Any, what: str) -> int:
    """The value as an int; raises InputError when it is no whole number."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} must be a whole number, got {value!r}") from None
