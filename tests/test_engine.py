"""Training in processes of its own: killed anywhere it goes on bit by bit; many ranks compute what one computes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import TINY

from metricanything.core.frame import Frame
from metricanything.models.checkpoint import load_model

RANKS = Path(__file__).with_name("ranks.py")
STEPS = 8


@pytest.fixture(scope="module")
def shards(make_frame: Callable[..., Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from metricanything.curate.writing import write_shards

    folder = tmp_path_factory.mktemp("engine") / "shards"
    write_shards([make_frame(seed) for seed in range(5)], folder)
    return folder


def launch(folder: Path, specs: list[dict[str, Any]]) -> list[list[int]]:
    """Carry out the specs in a folder and return the exit codes of their ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "specs.json"
    path.write_text(json.dumps([{"folder": str(folder), "steps": STEPS, **spec} for spec in specs]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, str(RANKS), str(path)], env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    # A rank whose peer was killed may notice before it is ended itself, and fails then.
    assert all(set(run) <= ({-9, 0, 1} if -9 in run else {0}) for run in codes), done.stderr
    return codes


def train(shards: Path, ranks: int, **spec: Any) -> dict[str, Any]:
    return {"do": "train", "shards": str(shards), "ranks": ranks, **spec}


def curve(folder: Path) -> bytes:
    return (folder / "curve.jsonl").read_bytes()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "model.safetensors")[0].state_dict()


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of an uninterrupted run of so many ranks."""
    folders: dict[int, Path] = {}

    def run(ranks: int) -> Path:
        if ranks not in folders:
            folders[ranks] = tmp_path_factory.mktemp(f"whole-{ranks}")
            assert launch(folders[ranks], [train(shards, ranks)]) == [[0] * ranks]
        return folders[ranks]

    return run


def kills(seed: int) -> list[dict[str, Any]]:
    """Ten ways to die: at a random step before its checkpoint, or at a random moment, whatever is done then."""
    rng = random.Random(seed)
    by_time = [{"kill_seconds": rng.uniform(0.05, 0.3)} for _ in range(5)]
    # In order: a step that an earlier attempt has passed would kill nobody.
    by_step = [{"kill_step": step} for step in sorted(rng.sample(range(STEPS // 2, STEPS + 1), 5))]
    return by_time + by_step


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_training_goes_on_bit_by_bit(
    shards: Path, whole: Callable[[int], Path], tmp_path: Path, ranks: int
) -> None:
    """Network, optimiser, average, schedule, data order, augmentation and prompts: one bit off would show."""
    ways = [train(shards, ranks, **way) for way in kills(ranks)]
    codes = launch(tmp_path, [*ways, train(shards, ranks)])
    assert codes[-1] == [0] * ranks
    assert sum(-9 in run for run in codes) >= 5
    assert curve(tmp_path) == curve(whole(ranks))
    for name, value in weights(whole(ranks)).items():
        assert torch.equal(weights(tmp_path)[name], value), name
    assert not list((tmp_path / "checkpoints").glob(".step-*"))


def test_asked_to_end_it_writes_a_checkpoint(shards: Path, tmp_path: Path) -> None:
    """SIGTERM to the whole job, as schedulers send it, with a process that makes batches."""
    arguments = ["--data.shards", shards, "--steps", 10_000, "--batch", 2, "--data.sizes", 32, 64, "--config", TINY]
    process = subprocess.Popen(
        [sys.executable, "-m", "metricanything", "pretrain", "compact-teacher", "-o", tmp_path, *map(str, arguments)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (tmp_path / "curve.jsonl").exists() or len(curve(tmp_path).splitlines()) < 3:
        assert time.monotonic() < deadline, "no step in two minutes"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "the same command goes on where it was" in said
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{len(curve(tmp_path).splitlines()):08d}"


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_other_numbers_of_ranks_go_on(
    shards: Path, whole: Callable[[int], Path], tmp_path: Path, before: int, after: int
) -> None:
    """The same samples in the same order; losses differ by rounding alone."""
    codes = launch(tmp_path, [train(shards, before, kill_step=5), train(shards, after)])
    assert codes[-1] == [0] * after
    losses = [[json.loads(line)["loss"] for line in curve(folder).splitlines()] for folder in (tmp_path, whole(1))]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert len(losses[0]) == STEPS


@pytest.mark.parametrize(("parallel", "checkpoint_activations"), [("ddp", False), ("fsdp", False), ("fsdp", True)])
def test_two_ranks_compute_the_gradient_of_one(
    shards: Path, tmp_path: Path, parallel: str, checkpoint_activations: bool
) -> None:
    spec = {"do": "gradient", "shards": str(shards), "checkpoint_activations": checkpoint_activations}
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, ranks in ((one, 1), (two, 2)):
        launch(folder, [{**spec, "ranks": ranks, "parallel": parallel}])
    expected, found = (json.loads((folder / "gradient.json").read_text()) for folder in (one, two))
    assert found["norm"] == pytest.approx(expected["norm"], rel=1e-5)
    scale = max(np.abs(np.array(value)).max() for value in expected["gradient"].values())
    for name, value in expected["gradient"].items():
        np.testing.assert_allclose(found["gradient"][name], value, atol=1e-5 * scale, err_msg=name)


def test_sharded_training_ends_in_one_file(shards: Path, tmp_path: Path) -> None:
    """Killed once; losses and gathered weights are those of one process, up to rounding that Adam enlarges.

    Six steps: the two roundings part by ten times every two steps.
    """
    sharded, whole = tmp_path / "sharded", tmp_path / "whole"
    kills: list[dict[str, Any]] = [{"kill_step": 4}, {}]
    codes = launch(sharded, [train(shards, 2, parallel="fsdp", steps=6, **kill) for kill in kills])
    assert codes[-1] == [0, 0]
    assert launch(whole, [train(shards, 1, steps=6)]) == [[0]]
    losses = [[json.loads(line)["loss"] for line in curve(folder).splitlines()] for folder in (sharded, whole)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    found, expected = (torch.cat([v.flatten() for v in weights(f).values()]) for f in (sharded, whole))
    assert torch.linalg.norm(found - expected) < 0.01 * torch.linalg.norm(expected)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_half_precision_trains(shards: Path, whole: Callable[[int], Path], tmp_path: Path, parallel: str) -> None:
    codes = launch(tmp_path, [train(shards, 2, parallel=parallel, precision="bfloat16", steps=3)])
    assert codes == [[0, 0]]
    losses = [[json.loads(line)["loss"] for line in curve(folder).splitlines()[:3]] for folder in (tmp_path, whole(1))]
    np.testing.assert_allclose(*losses, rtol=0.05)


def test_one_bad_process_makes_all_skip(shards: Path, tmp_path: Path) -> None:
    """The first process says so, and names the samples of the bad one alone."""
    assert launch(tmp_path, [{"do": "poisoned", "shards": str(shards), "ranks": 2, "steps": 3}]) == [[0, 0]]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert first["steps"] == [0, 2]
    assert first["state"] == second["state"]
    assert np.isfinite(np.concatenate([np.ravel(value) for value in first["state"].values()])).all()
    assert first["said"] == [f"step 1 skipped: loss or gradient not finite; samples {', '.join(first['names'][1])}"]
    assert second["said"] == []


def test_measuring_changes_no_step(shards: Path, tmp_path: Path) -> None:
    """Neither with whole nor with sharded networks, whose average is swapped in for it."""
    for kind in ("ddp", "fsdp"):
        folders = [tmp_path / f"{kind}-{every}" for every in (1, 1000)]
        for folder, every in zip(folders, (1, 1000), strict=True):
            launch(folder, [train(shards, 2, parallel=kind, steps=4, validate_every=every, checkpoint_seconds=1e9)])
        losses = [[json.loads(line) for line in curve(folder).splitlines()] for folder in folders]
        often, seldom = ([row for row in rows if "loss" in row] for rows in losses)
        assert often == seldom, kind
        assert sum("validation" in row for row in losses[0]) == 4


def test_any_number_of_processes_measures_the_same(shards: Path, tmp_path: Path) -> None:
    """Three micro-batches of validation on one process and on two."""
    found = []
    for ranks in (1, 2):
        launch(tmp_path / str(ranks), [train(shards, ranks, steps=1, validate_every=1)])
        found.append(json.loads(curve(tmp_path / str(ranks)).splitlines()[-1])["validation"]["AbsRel"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_ranks_must_share_the_micro_batches(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "specs.json"
    path.write_text(json.dumps([train(shards, 3, folder=str(tmp_path), steps=2)]))
    done = subprocess.run([sys.executable, str(RANKS), str(path)], capture_output=True, text=True, timeout=200)
    assert (
        "2 micro-batches per step cannot be shared by 3 processes; set --micro-batches to a multiple of 3"
        in done.stderr
    )
