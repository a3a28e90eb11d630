"""Weights that stay in their file: mapped into memory, read when a layer needs them, and dropped after it.

A network of gigabytes then runs in a fraction of them: what is resident at any time is one block of weights and the
activations. The price is that every pass reads the file again, from the page cache where there is room for it.
"""

from __future__ import annotations

import json
import mmap
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metricanything.models.precision import leaves

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class MappedWeights:
    """The tensors of a safetensors file as views of one memory map, which must not be written to."""

    memory: mmap.mmap
    tensors: dict[str, Tensor]
    spans: dict[int, tuple[int, int]]
    """By address of a tensor: where its bytes start and end in the map."""

    @classmethod
    def open(cls, path: Path) -> MappedWeights:
        """Map a file whose header was checked before (format: u64 length, JSON, then the tensors' bytes)."""
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        tensors, spans = {}, {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            with warnings.catch_warnings():  # of a buffer that is not writable: nothing here writes to it
                warnings.simplefilter("ignore", UserWarning)
                flat = torch.frombuffer(memory, dtype=_TYPES[entry["dtype"]], count=_count(entry), offset=start)
            tensors[name] = flat.view(entry["shape"])
            spans[flat.data_ptr()] = (start, end)
        return cls(memory, tensors, spans)

    def drop(self, tensor: Tensor) -> None:
        """Give the memory of a tensor back to the system, if it is one of the map's; reading it again fetches it."""
        span = self.spans.get(tensor.data_ptr())
        if span is not None and hasattr(mmap, "MADV_DONTNEED"):
            start = -(-span[0] // mmap.PAGESIZE) * mmap.PAGESIZE
            length = span[1] // mmap.PAGESIZE * mmap.PAGESIZE - start
            if length > 0:
                self.memory.madvise(mmap.MADV_DONTNEED, start, length)

    def drop_after_use(self, network: nn.Module) -> None:
        """Let every layer of the network drop its weights as soon as it has run."""

        def drop(module: nn.Module, *_: Any) -> None:
            for parameter in module._parameters.values():
                if parameter is not None:
                    self.drop(parameter)

        for module in leaves(network):
            module.register_forward_hook(drop, always_call=True)


def _count(entry: dict[str, Any]) -> int:
    return int(torch.Size(entry["shape"]).numel())
