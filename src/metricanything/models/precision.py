"""Layers whose output is too sensitive for half precision: the last ones, whose numbers become metres."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

_EXACT = "computes_in_float32"


def exact(module: nn.Module) -> nn.Module:
    """Mark the layers of a module to keep float32 weights, and to be called by `exactly`."""
    for layer in module.modules():
        setattr(layer, _EXACT, True)
    return module


def exactly(module: nn.Module, x: Tensor) -> Tensor:
    """The output of an `exact` module in float32, whatever precision the rest of the network has."""
    if x.device.type == "meta":  # which knows no autocast
        return module(x.float())
    with torch.autocast(x.device.type, enabled=False):
        return module(x.float())


def leaves(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that hold parameters of their own and no other layers."""
    for module in network.modules():
        if any(value is not None for value in module._parameters.values()) and not list(module.children()):
            yield module


def narrow_matrices(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep matrices and convolution kernels in half precision, all else, and exact layers, in float32.

    These are nearly all of the weights, and the least sensitive to rounding.
    """
    narrow = {
        id(module._parameters["weight"])
        for module in leaves(network)
        if (weight := module._parameters.get("weight")) is not None
        and weight.dim() > 1
        and not getattr(module, _EXACT, False)
    }
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                kind = dtype if id(value) in narrow else torch.float32
                module._parameters[name] = nn.Parameter(value.to(kind), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_floating_point():
                module._buffers[name] = buffer.float()
