"""What `metricanything evaluate` writes: the full record of every number, tables, the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluate_fixtures import run, six_frames, small_teacher

from metricanything import __version__
from metricanything.core.frame import Frame
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.subjects import file_sha256

MakeFrame = Callable[..., Frame]


@pytest.fixture
def data(tmp_path: Path, make_frame: MakeFrame) -> Path:
    return six_frames(tmp_path / "data", make_frame)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_teacher(tmp_path_factory.mktemp("model") / "small.safetensors")


def test_results_hold_the_full_record(data: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (
        "--data",
        data,
        "--protocol",
        "ma-lidar-64",
        "--split",
        "test",
        "-o",
        out,
        "--batch-size",
        2,
        "--fov-x",
        60,
    )
    assert run("evaluate", "--model", teacher, "baseline:linear", *arguments) == 0
    results = json.loads((out / "results.json").read_text())["results"]
    assert [r["record"]["model"]["name"] for r in results] == ["small", "baseline:linear"]
    record = results[0]["record"]
    assert record["model"]["sha256"] == file_sha256(teacher)
    assert len(record["model"]["sha256"]) == 64
    assert record["code_version"] == __version__
    assert record["protocol"] == json.loads(json.dumps(PROTOCOLS["ma-lidar-64"].record()))
    assert (record["data"]["split"], record["data"]["measured"], record["data"]["format"]) == ("test", 6, "folder")
    assert (record["data"]["fov_x"], record["data"]["depth_scale"]) == (60, None)
    assert record["camera_given"] == "6 of 6 frames"
    for result in results:
        assert set(result["scores"]) == {"all", "unprompted"}
        assert set(PROTOCOLS["ma-lidar-64"].metrics) < set(result["scores"]["all"])
        assert set(result["by_source"]) == {"a", "b"}
    halves = [results[1]["by_source"][s]["all"]["mae"] for s in "ab"]
    assert results[1]["scores"]["all"]["mae"] == pytest.approx(np.mean(halves))  # three frames of each


def test_table_and_page(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--data", data, "--protocol", "ma-lidar-64", "priorda-x8", "-o", out)
    assert run("evaluate", "--model", "baseline:nearest", "baseline:linear", *arguments) == 0
    results = json.loads((out / "results.json").read_text())["results"]
    table, page = (out / "results.md").read_text(), (out / "report.html").read_text()
    value = min(r["scores"]["all"]["abs_rel"] for r in results if r["record"]["protocol"]["name"] == "ma-lidar-64")
    assert f"| **{value:.4g}** |" in table
    for text in ("## ma-lidar-64", "## priorda-x8", "abs_rel ↓", "rmse [m] ↓", "delta1 ↑", "Without prompted pixels"):
        assert text in table
    assert "arXiv 2505.10565" in table
    for text in ("best", "median", "worst"):
        assert page.count(f'<p class="row-title">baseline:nearest, {text}: ') == 2
    assert all(f">{head}</span>" in page for head in ("image", "prompt", "measured", "prediction", "relative error"))
    # Per protocol a histogram, and five pictures of three frames for two models.
    assert page.count("<img") == 2 * (1 + 5 * 3 * 2)
    assert {p.name for p in (out / "plots").iterdir()} == {"ma-lidar-64.png", "priorda-x8.png"}
    assert "http" not in page.replace("http-equiv", "")


def test_best_and_worst_are_told_apart(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("evaluate", "--model", "baseline:nearest", "--data", data, "--protocol", "ma-lidar-64", "-o", out) == 0
    rows = [json.loads(line) for line in (out / "frames/baseline_nearest/ma-lidar-64.jsonl").read_text().splitlines()]
    errors = {row["name"]: row["regions"]["unprompted"]["values"]["abs_rel"] for row in rows}
    page = (out / "report.html").read_text()
    assert f"best: {min(errors, key=errors.__getitem__)}<" in page
    assert f"worst: {max(errors, key=errors.__getitem__)}<" in page
