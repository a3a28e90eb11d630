"""How much memory tensors take at once: counted from the tensors themselves, so it is exact and repeatable."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakBytes(TorchDispatchMode):
    """Largest total of the storages made by operations while the mode is on; works on the meta device too."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.owners: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(out):
            if not isinstance(x, torch.Tensor):
                continue
            storage = x.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self.owners:
                if key in given:
                    continue  # a view of something that was there before
                self.owners[key] = 0
                self.now += size
                self.peak = max(self.peak, self.now)
            self.owners[key] += 1
            weakref.finalize(x, self._gone, key, size)
        return out

    def _gone(self, key: int, size: int) -> None:
        self.owners[key] -= 1
        if not self.owners[key]:
            del self.owners[key]
            self.now -= size


def peak_bytes(run: Callable[[], Any]) -> int:
    """Peak of the bytes that `run` holds in tensors of its own."""
    with PeakBytes() as mode:
        run()
    return mode.peak
