"""The command line of `metricanything evaluate`: one line for every mistake; models and baselines by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from evaluate_fixtures import run, small_teacher, write_folder
from expectations import assert_refused

from metricanything.core.files import file_sha256
from metricanything.core.frame import Frame
from metricanything.evaluation.datasets import Item
from metricanything.evaluation.measuring import make_case
from metricanything.evaluation.protocols import GROUPS, PROTOCOLS
from metricanything.evaluation.subjects import Answer, FittedSubject, open_subject
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
        needs = "image"

        def complete(self, uv: Any, depth: Any, height: int, width: int, image: Any = None) -> Any:
            return np.asarray(image[..., 0], np.float32)

    monkeypatch.setitem(BASELINES, "red", Red())
    case = make_case(PROTOCOLS["ma-grid-16"], Item(make_frame(0)))
    (answer,) = open_subject("baseline:red").answer([case.query])
    np.testing.assert_array_equal(answer.depth, case.frame.image[..., 0])


class Fixed:
    """A model that sees no prompt and is off by a scale and a shift."""

    batch_size = 3
    record: ClassVar[dict[str, Any]] = {"name": "fixed", "what": "a test", "sha256": "abc"}

    def __init__(self, depth: np.ndarray) -> None:
        self.depth = depth

    def check(self, prompted: bool, protocol: str) -> None:
        assert not prompted

    def answer(self, queries: Any) -> list[Answer]:
        assert all(query.prompt is None for query in queries)
        return [Answer(self.depth) for _ in queries]


@pytest.mark.parametrize("fit", ["fitted", "fitted-scale", "fitted-disparity"])
def test_any_model_can_be_fitted_to_the_prompt(fit: str, make_frame: MakeFrame) -> None:
    case = make_case(PROTOCOLS["ma-grid-16"], Item(make_frame(0)))
    truth = np.where(case.counts, case.frame.depth, 3).astype(np.float32)
    off = {"fitted": 2 * truth + 1, "fitted-scale": 2 * truth, "fitted-disparity": 1 / (2 / truth + 0.1)}[fit]
    subject = FittedSubject(fit, Fixed(off))
    subject.check(True, "ma-grid-16")
    assert_refused(lambda: subject.check(False, "ma-image"), "needs a prompt and protocol ma-image gives none")
    (answer,) = subject.answer([case.query])
    np.testing.assert_allclose(answer.depth[case.counts], truth[case.counts], rtol=1e-3)
    assert subject.record["name"] == f"{fit}:fixed" and subject.record["fitted_model"] == Fixed.record
    assert subject.batch_size == 3


def test_fitted_models_are_named_on_the_command_line(data: Path, tmp_path: Path) -> None:
    teacher = small_teacher(tmp_path / "teacher.safetensors")
    arguments = ("--data", data, "--protocol", "ma-grid-16", "-o", tmp_path / "out")
    assert run("evaluate", "--model", f"fitted:{teacher}", *arguments) == 0
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert result["record"]["model"]["name"] == "fitted:teacher" and result["record"]["model"]["sha256"]
    for name in ("fitted:baseline:nearest", "fitted:", "fitted:fitted:x"):
        assert_refused(partial(open_subject, name), "takes a model that predicts depth without the prompt")
    assert_refused(lambda: open_subject("baseline:fitted"), "name that model, as in fitted:MODEL")
