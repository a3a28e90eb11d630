"""An image, a camera, a prompt, and stand-ins of the libraries that other models come with."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from metricanything.core.camera import Camera
from metricanything.core.prompt import SparsePrompt

H, W = 30, 40
IMAGE = np.stack([np.tile(np.linspace(20, 220, W), (H, 1))] * 3, axis=-1).astype(np.uint8)  # brighter to the right
CAMERA = Camera.pinhole(50, 52, 19, 16, W, H)
PROMPT = SparsePrompt.from_pixels(
    [[3.5, 4.5], [30.5, 20.5], [10.2, 9.9], [39.5, 29.5], [20.5, 2.5]], [2.0, 3.5, 2.5, 4.0, 3.0], (H, W)
)
SLANT = torch.linspace(1, 3, W).repeat(H, 1)  # metres


class Loaded:
    """Anything with `from_pretrained`, `.to` and `.eval` that is itself afterwards."""

    @classmethod
    def from_pretrained(cls, source: str, **_: Any) -> Loaded:
        made = cls()
        made.source = source  # type: ignore[attr-defined]
        return made

    def to(self, *_: Any, **__: Any) -> Loaded:
        return self

    eval = to


def module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    """Make `import name` give these contents."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), ModuleType(".".join(parts[:i])))
    for key, value in contents.items():
        setattr(sys.modules[name], key, value)
