"""The examples run as they are."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from metricanything.core import codecs
from metricanything.models.checkpoint import save_model
from metricanything.models.registry import get_spec

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_lidar_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = get_spec("compact-teacher").build()
    torch.nn.init.ones_(network.anchor.raw_gain)
    save_model(tmp_path / "teacher.safetensors", network, "compact-teacher", {"input_side": 192})
    example = runpy.run_path(str(EXAMPLES / "lidar_prompt.py"))
    example["main"](str(tmp_path / "teacher.safetensors"), str(tmp_path / "out"))
    assert "points are seen by the camera" in capsys.readouterr().out
    assert codecs.read_depth(tmp_path / "out" / "depth.png").shape == (400, 640)
