"""What tests of `metricanything evaluate` share: its command line in this process, frames on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metricanything import cli
from metricanything.core.codecs import write_depth_npy, write_image
from metricanything.core.frame import Frame
from metricanything.models.checkpoint import save_model
from metricanything.models.registry import COMPACT


def run(*arguments: object) -> int:
    """Exit code of the command line, in this process."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    return int(stopped.value.code or 0)


def write_folder(folder: Path, frames: list[Frame]) -> Path:
    for i, frame in enumerate(frames):
        write_image(folder / "images" / f"{i}.png", frame.image)
        write_depth_npy(folder / "depth" / f"{i}.npy", frame.depth)
        camera = folder / "cameras" / f"{i}.json"
        camera.parent.mkdir(exist_ok=True)
        camera.write_text(json.dumps({**frame.camera.to_dict(), "source": "ab"[i % 2]}))
    return folder


def six_frames(folder: Path, make_frame: Callable[..., Frame]) -> Path:
    """Six frames in the folder layout, of two sizes."""
    return write_folder(folder, [make_frame(i, 48, 64 if i % 2 else 72) for i in range(6)])


def small_teacher(path: Path) -> Path:
    """The checkpoint of an untrained compact teacher for small inputs."""
    torch.manual_seed(0)
    save_model(path, COMPACT["compact-teacher"].build(), "compact-teacher", {"input_side": 64})
    return path
