"""What `metricanything evaluate` writes: the full record of every number, tables, the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_fixtures import run, six_frames, small_teacher
from hypothesis import given, settings
from hypothesis import strategies as st

from metricanything import __version__
from metricanything.core.files import file_sha256
from metricanything.core.frame import Frame
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.scores import SCORES, Sample, pool
from metricanything.evaluation.summary import mean_ranks

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
    # And one of both protocols side by side.
    assert page.count("<img") == 2 * (1 + 5 * 3 * 2) + 1
    assert {p.name for p in (out / "plots").iterdir()} == {"ma-lidar-64.png", "priorda-x8.png", "overview-abs_rel.png"}
    assert "## Mean rank" in table and "Mean rank." in page
    assert "http" not in page.replace("http-equiv", "")


def test_best_and_worst_are_told_apart(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("evaluate", "--model", "baseline:nearest", "--data", data, "--protocol", "ma-lidar-64", "-o", out) == 0
    rows = [json.loads(line) for line in (out / "frames/baseline_nearest/ma-lidar-64.jsonl").read_text().splitlines()]
    errors = {row["name"]: row["regions"]["unprompted"]["values"]["abs_rel"] for row in rows}
    page = (out / "report.html").read_text()
    assert f"best: {min(errors, key=errors.__getitem__)}<" in page
    assert f"worst: {max(errors, key=errors.__getitem__)}<" in page


# ---------------------------------------------------------------- pooling and ranks


@pytest.mark.parametrize("name", [n for n, score in SCORES.items() if score.poolable and score.depth])
@given(seed=st.integers(0, 10**6), missing=st.floats(0, 1))
@settings(max_examples=10)
def test_pooled_is_what_one_large_image_would_have(name: str, seed: int, missing: float) -> None:
    """Missing predictions included: they are charged by one rule, whether images are pooled or not."""
    rng = np.random.default_rng(seed)
    gt = rng.uniform(1, 20, (12, 10)).astype(np.float32)
    pred = (gt * rng.lognormal(0.2, 0.5, gt.shape)).astype(np.float32)
    pred[rng.random(gt.shape) < missing] = np.nan
    image = np.zeros((*gt.shape, 3), np.uint8)
    parts = [Sample(pred[s], gt[s], image[s]) for s in (np.s_[:5], np.s_[5:])]
    score = SCORES[name]
    whole = score.finish(score.terms(Sample(pred, gt, image)))
    assert pool(name, [score.terms(part) for part in parts], [50, 70]) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("name", ["silog", "silog_half"])
def test_silence_does_not_lower_silog_pooled_or_not(name: str) -> None:
    gt = np.full((4, 4), 2.0, np.float32)
    good, none = gt * np.float32(1.5), np.full_like(gt, np.nan)
    image = np.zeros((4, 4, 3), np.uint8)
    terms = [SCORES[name].terms(Sample(pred, gt, image)) for pred in (good, none)]
    alone = [SCORES[name].finish(t) for t in terms]
    pooled = pool(name, terms, [16, 16])
    assert alone[0] < pooled < alone[1]
    # Half of the pixels are a decade off the mean of the others.
    variance = np.log(10) ** 2 / 2
    expected = 100 * np.sqrt(variance) if name == "silog" else np.sqrt(variance + np.log(1.5) ** 2 / 2)
    assert pooled == pytest.approx(expected, rel=1e-6)


def _result(model: str, protocol: str, scores: dict[str, float | None], frames: int = 3) -> dict[str, Any]:
    record = {"model": {"name": model}, "protocol": {"name": protocol, "metrics": ["abs_rel", "delta1", "coverage"]}}
    return {"record": record, "scores": {"all": {**scores, "frames": frames}}}


def test_mean_ranks_by_hand() -> None:
    results = [
        _result("a", "p", {"abs_rel": 0.1, "delta1": 0.9, "coverage": 1.0}),
        _result("b", "p", {"abs_rel": 0.2, "delta1": 0.95, "coverage": 1.0}),
        _result("c", "p", {"abs_rel": 0.2, "delta1": 0.8, "coverage": 1.0}),
        _result("a", "q", {"abs_rel": 0.3, "delta1": 0.5, "coverage": 1.0}),
        _result("b", "q", {"abs_rel": 0.1, "delta1": None, "coverage": 1.0}),
        _result("c", "q", {"abs_rel": 0.2, "delta1": 0.6, "coverage": 1.0}),
        _result("a", "other-frames", {"abs_rel": 0.1, "delta1": 0.9}),
        _result("b", "other-frames", {"abs_rel": 0.2, "delta1": 0.9}, frames=2),
        _result("c", "other-frames", {"abs_rel": 0.3, "delta1": 0.9}),
        _result("a", "only-one", {"abs_rel": 0.1, "delta1": 0.9}),
    ]
    # p: abs_rel 1, 2.5, 2.5 and delta1 2, 1, 3; q: abs_rel 3, 1, 2, and b has no delta1.
    assert mean_ranks(results) == [
        ("b", pytest.approx(1.75), pytest.approx((1.75 + 1) / 2), 2),
        ("a", pytest.approx(2.0), pytest.approx((1.5 + 3) / 2), 2),
        ("c", pytest.approx(2.25), pytest.approx((2.75 + 2) / 2), 2),
    ]
    assert mean_ranks(results[:1]) == [] and mean_ranks(results[6:]) == []
