"""The command line of `metricanything evaluate`: one line for every mistake; models and baselines by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_fixtures import run, write_folder
from expectations import assert_refused

from metricanything.core.frame import Frame
from metricanything.evaluation.datasets import Item
from metricanything.evaluation.measuring import make_case
from metricanything.evaluation.protocols import GROUPS, PROTOCOLS
from metricanything.evaluation.subjects import file_sha256, open_subject
from metricanything.inference.baselines import BASELINES
from metricanything.models.checkpoint import save_model
from metricanything.models.registry import COMPACT

MakeFrame = Callable[..., Frame]


@pytest.fixture
def data(tmp_path: Path, make_frame: MakeFrame) -> Path:
    """Six frames in the folder layout, of two sizes."""
    return write_folder(tmp_path / "data", [make_frame(i, 48, 64 if i % 2 else 72) for i in range(6)])


COMPLETE = ("--model", "baseline:linear", "--data", "DATA")
MISTAKES = {
    "nothing": ([], "no --model given"),
    "no data": (["--model", "baseline:linear"], "no --data given"),
    "no output": (["--model", "baseline:linear", "--data", "DATA"], "no --output given"),
    "missing data": (["--model", "baseline:linear", "--data", "nowhere", "-o", "OUT"], "no such folder"),
    "empty data": (["--model", "baseline:linear", "--data", "EMPTY", "-o", "OUT"], "no frames found"),
    "file as data": (["--model", "baseline:linear", "--data", "FILE", "-o", "OUT"], "is a file, not a folder"),
    "unknown baseline": (["--model", "baseline:best", "--data", "DATA", "-o", "OUT"], "baseline 'best' is unknown"),
    "unknown model": (["--model", "gpt", "--data", "DATA", "-o", "OUT"], "neither a model name"),
    "unknown protocol": ([*COMPLETE, "--protocol", "x", "-o", "OUT"], "'x' is unknown"),
    "no workers": ([*COMPLETE, "--workers", "0", "-o", "OUT"], "--workers must be"),
    "file as output": ([*COMPLETE, "-o", "FILE"], "is a file, not a folder"),
    "no prompt": (
        [*COMPLETE, "--protocol", "ma-image", "-o", "OUT"],
        "needs a prompt and protocol ma-image gives none",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_get_one_line(case: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = MISTAKES[case]
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    places = {"DATA": data, "OUT": tmp_path / "out", "FILE": tmp_path / "file", "EMPTY": tmp_path / "empty"}
    assert run("evaluate", *(places.get(a, a) for a in arguments)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert not (tmp_path / "out").exists()


def test_a_student_is_refused_where_prompts_are_given(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)  # of random networks, not every one shows points that a camera could see
    path = tmp_path / "student.safetensors"
    save_model(path, COMPACT["compact-pointmap"].build(), "compact-pointmap", {"input_side": 64})
    arguments = ("evaluate", "--model", path, "--data", data, "-o", tmp_path / "o", "--protocol")
    assert run(*arguments, "ma-lidar-8") == 2
    assert "student takes no prompt and protocol ma-lidar-8 gives one" in capsys.readouterr().err
    assert run(*arguments, "ma-image-only", "moge-fov") == 0
    results = json.loads((tmp_path / "o" / "results.json").read_text())["results"]
    assert results[0]["record"]["camera_given"] == "0 of 6 frames"
    assert results[1]["scores"]["all"]["fov_deg"] > 0


def test_the_list_names_every_protocol_and_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("evaluate", "--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line.strip()} == {*PROTOCOLS, *GROUPS, "Protocols", "Groups"}


def test_hashes_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abcd")
    assert file_sha256(path).startswith("88d4266fd4e6338d")


def test_a_baseline_that_needs_a_prediction_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Rescaled:
        description: str = "a prediction, rescaled"
        needs: str = "prediction"

    monkeypatch.setitem(BASELINES, "rescaled", Rescaled())
    assert_refused(lambda: open_subject("baseline:rescaled"), "baseline:rescaled rescales a model's prediction")


def test_a_baseline_may_look_at_the_image(monkeypatch: pytest.MonkeyPatch, make_frame: MakeFrame) -> None:
    class Red:
        description = "red channel"

        def complete(self, uv: Any, depth: Any, height: int, width: int, image: Any = None) -> Any:
            return np.asarray(image[..., 0], np.float32)

    monkeypatch.setitem(BASELINES, "red", Red())
    case = make_case(PROTOCOLS["ma-grid-16"], Item(make_frame(0)))
    (answer,) = open_subject("baseline:red").answer([case.query])
    np.testing.assert_array_equal(answer.depth, case.frame.image[..., 0])
