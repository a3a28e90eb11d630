"""What tests of `metricanything evaluate` share: its command line in this process, frames on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metricanything import cli
from metricanything.core.codecs import write_depth_npy, write_image
from metricanything.core.frame import Frame


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
