"""Runs of `metricanything evaluate`: the same whatever happens on the way, whole in what they say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_fixtures import run, six_frames, small_teacher

from metricanything.core.frame import Frame
from metricanything.curate.writing import write_shards
from metricanything.evaluation import running, subjects
from metricanything.evaluation.datasets import Item
from metricanything.evaluation.measuring import make_case, measure
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.subjects import Answer, BaselineSubject
from metricanything.inference.baselines import BASELINES

MakeFrame = Callable[..., Frame]
LINEAR = ("evaluate", "--model", "baseline:linear")


@pytest.fixture
def data(tmp_path: Path, make_frame: MakeFrame) -> Path:
    return six_frames(tmp_path / "data", make_frame)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_teacher(tmp_path_factory.mktemp("model") / "small.safetensors")


def grid_16(data: Path, output: Path) -> tuple[Any, ...]:
    """A quick evaluation; the last argument is the folder that it writes."""
    return (*LINEAR, "--data", data, "--protocol", "ma-grid-16", "-o", output)


def measured(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the page, whose text is compared by itself."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_numbers_do_not_depend_on_the_number_of_workers(data: Path, teacher: Path, tmp_path: Path) -> None:
    common = ("--model", teacher, "baseline:idw", "--data", data, "--protocol", "ma-uniform-100", "--batch-size", 2)
    assert run("evaluate", *common, "-o", tmp_path / "one") == 0
    assert run("evaluate", *common, "-o", tmp_path / "two", "--workers", 2) == 0
    assert measured(tmp_path / "one") == measured(tmp_path / "two")


def test_a_killed_run_goes_on_and_ends_the_same(data: Path, tmp_path: Path) -> None:
    """The process is killed for good while it works; what it had measured is not measured again."""
    common = ["evaluate", "--model", "baseline:linear", "--data", str(data), "--protocol", "ma-uniform-100", "-o"]
    assert run(*common, tmp_path / "whole") == 0
    slow = (
        "import sys, time\nfrom metricanything import cli\nfrom metricanything.evaluation import running\n"
        "plain = running.measure_batch\n"
        "def measure(job, batch):\n    time.sleep(0.3)\n    return plain(job, batch)\n"
        "running.measure_batch = measure\ncli.main(sys.argv[1:])"
    )
    file = tmp_path / "cut" / "frames" / "baseline_linear" / "ma-uniform-100.jsonl"
    process = subprocess.Popen([sys.executable, "-c", slow, *common, str(tmp_path / "cut")], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while (not file.is_file() or file.read_bytes().count(b"\n") < 2) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = file.read_text().splitlines()
    assert 2 <= len(done) < 6
    with open(file, "a") as lines:
        lines.write(done[0][:20])  # the line that was being written
    computed = count_batches(lambda: run(*common, tmp_path / "cut"))
    assert computed == 6 - len(done)
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")


def count_batches(action: Callable[[], object]) -> int:
    """How many batches are measured while `action` runs."""
    counted, plain = [], running.measure_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "measure_batch", lambda job, batch: counted.append(batch) or plain(job, batch))
        action()
    return len(counted)


def test_a_finished_run_computes_nothing_again(data: Path, tmp_path: Path) -> None:
    arguments = (
        "evaluate",
        "--model",
        "baseline:linear",
        "--data",
        data,
        "--protocol",
        "ma-sift",
        "-o",
        tmp_path / "o",
    )
    assert count_batches(lambda: run(*arguments)) == 6
    before = measured(tmp_path / "o")
    assert count_batches(lambda: run(*arguments)) == 0
    assert measured(tmp_path / "o") == before
    assert count_batches(lambda: run(*arguments, "--fresh")) == 6
    assert measured(tmp_path / "o") == before


def test_failed_frames_are_named_and_tried_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (data / "images" / "3.png").read_bytes()
    (data / "images" / "3.png").write_bytes(good[:200])
    arguments = grid_16(data, tmp_path / "o")
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if line.startswith("failed 3: images/3.png: ")]
    assert "5 measurements" in captured.out
    (result,) = json.loads((tmp_path / "o" / "results.json").read_text())["results"]
    assert list(result["failed"]) == ["3"]
    assert str(data) not in (tmp_path / "o" / "results.json").read_text()
    assert "Not measured, 1:" in (tmp_path / "o" / "results.md").read_text()
    assert "could not be measured" in (tmp_path / "o" / "report.html").read_text()
    (data / "images" / "3.png").write_bytes(good)
    assert run(*arguments) == 0
    assert run(*arguments[:-1], tmp_path / "whole") == 0
    assert measured(tmp_path / "o") == measured(tmp_path / "whole")


def test_a_failure_of_ours_has_exit_code_1_and_costs_one_frame(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = BaselineSubject.answer

    def fails(self: BaselineSubject, queries: Any) -> list[Answer]:
        if queries[0].image.shape[1] == 72:
            raise RuntimeError("out of luck")
        return plain(self, queries)

    monkeypatch.setattr(subjects.BaselineSubject, "answer", fails)
    running.subject_of.cache_clear()
    code = run(*grid_16(data, tmp_path / "o"))
    assert code == 1
    captured = capsys.readouterr()
    assert "failed 0: internal error (RuntimeError: out of luck)" in captured.err
    assert "3 measurements" in captured.out


def test_a_killed_worker_is_said_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(running, "measure_batch", _end_this_process)
    arguments = grid_16(data, tmp_path / "o")
    assert run(*arguments, "--workers", 2) == 2
    assert "a worker process was ended from outside" in capsys.readouterr().err


def _end_this_process(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_workers_end_with_a_killed_main_process() -> None:
    code = (
        "import os, time\nfrom metricanything.evaluation import running\n"
        "if __name__ == '__main__':\n"
        "    settings = running.Settings('d', ('m',), (), workers=2)\n"
        "    with running._pool(settings) as pool:\n"
        "        print(*{pool.submit(os.getpid).result() for _ in range(9)}, flush=True)\n"
        "        pool.submit(time.sleep, 60).result()"
    )
    main = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert main.stdout is not None
    workers = [int(number) for number in main.stdout.readline().split()]
    assert workers
    main.kill()
    main.wait()
    deadline = time.monotonic() + 30
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, workers))


def _alive(process: int) -> bool:
    """Whether a process runs; one that has ended and is not yet waited for by anyone does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_another_evaluation_in_the_folder_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("evaluate", "--data", data, "--protocol", "ma-grid-16", "-o", tmp_path / "o", "--model")
    assert run(*arguments, "baseline:linear") == 0
    before = measured(tmp_path / "o")
    capsys.readouterr()
    assert run(*arguments, "baseline:nearest") == 2
    assert "holds an evaluation with other models" in capsys.readouterr().err
    assert measured(tmp_path / "o") == before


def test_shards_are_measured_like_their_frames(make_frame: MakeFrame, tmp_path: Path) -> None:
    frames = [make_frame(i) for i in range(2)]
    write_shards(frames, tmp_path / "shards")
    assert run(*LINEAR, "--data", tmp_path / "shards", "--protocol", "ma-grid-16", "-o", tmp_path / "o") == 0
    rows = [
        json.loads(line) for line in (tmp_path / "o/frames/baseline_linear/ma-grid-16.jsonl").read_text().splitlines()
    ]
    protocol = PROTOCOLS["ma-grid-16"]
    for row, frame in zip(rows, frames, strict=True):
        case = make_case(protocol, Item(frame))
        assert case.prompt is not None
        depth = BASELINES["linear"].complete(case.prompt.uv, case.prompt.depth, frame.height, frame.width)
        expected = measure(protocol, case, Answer(depth))["regions"]["all"]["values"]["mae"]
        assert row["regions"]["all"]["values"]["mae"] == pytest.approx(
            expected, rel=1e-2
        )  # shards code depth in 16 bits
