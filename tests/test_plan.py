"""What a recipe costs: counted by hand for small networks, and for every recipe at all; where a step's time goes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import short_recipe
from torch import nn

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.models.registry import get_spec
from metricanything.training import plan as planning
from metricanything.training.plan import peak_bytes, plan
from metricanything.training.profile import PARTS, profile
from metricanything.training.recipe import Hardware
from metricanything.training.recipes import PRETRAIN


def test_peak_of_tensors_that_live_together() -> None:
    kib = 1024

    def run() -> None:
        a = torch.zeros(256)  # 1 KiB
        b = a + 1  # 2
        c = b.view(16, 16)  # no new storage
        del a, b
        d = c * 2  # 2: a is gone, c keeps b alive
        e = torch.cat([d, d])  # 4
        del c, d, e
        torch.zeros(128)  # 0.5

    assert peak_bytes(run) == 4 * kib


def test_peak_of_a_backward_pass() -> None:
    """A chain of n tanh keeps n outputs for its gradient."""
    x = torch.zeros(1024, requires_grad=True)

    def run(depth: int) -> None:
        y = x
        for _ in range(depth):
            y = torch.tanh(y)
        y.sum().backward()
        x.grad = None

    growth = peak_bytes(lambda: run(12)) - peak_bytes(lambda: run(4))
    assert growth == 8 * 4096


@pytest.mark.parametrize("name", list(PRETRAIN))
def test_every_recipe_can_be_planned(name: str) -> None:
    recipe = PRETRAIN[name]()
    if name in ("large-teacher", "huge-teacher"):
        pytest.skip("takes ten seconds; the same code as base-teacher")
    result = plan(recipe)
    assert result.parameters == get_spec(recipe.model).parameters
    assert result.gradients == result.weights - frozen(recipe.model)
    assert result.optimiser == 2 * result.gradients
    assert 2.9 < result.step_flops / result.forward_flops < 4.1
    assert result.gpu_hours(recipe.images, 1e15) == pytest.approx(
        recipe.images * result.step_flops / 0.4e15 / 3600, rel=1e-9
    )
    text = result.text()
    for word in (f"{recipe.steps} steps", "20 M pairs", "GFLOPs per image", "40% of the peak"):
        assert word in text


def frozen(name: str) -> int:
    with torch.device("meta"):
        network = get_spec(name).build({})
    return sum(p.nbytes for p in network.parameters() if not p.requires_grad)


def test_flops_of_a_transformer() -> None:
    """The counter against the usual sum: 24 N D^2 + 4 N^2 D for each block of a ViT, multiply and add."""
    recipe = dataclasses.replace(PRETRAIN["small-teacher"](), hardware=Hardware())
    deep, shallow = (
        plan(dataclasses.replace(recipe, config=f'{{"vit": {{"depth": {depth}}}, "taps": [0, 1, 2, 3]}}'))
        for depth in (8, 4)
    )
    tokens, width = 1 + 24 * 32, 384
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    assert (deep.forward_flops - shallow.forward_flops) / 4 == pytest.approx(block, rel=1e-3)


def test_recomputing_saves_memory_and_costs_flops() -> None:
    recipe = PRETRAIN["small-teacher"]()
    whole, again = (
        plan(dataclasses.replace(recipe, hardware=Hardware(checkpoint_activations=flag))) for flag in (False, True)
    )
    assert again.activations < 0.8 * whole.activations
    assert whole.step_flops < again.step_flops < 1.4 * whole.step_flops


def test_memory_is_what_a_process_takes() -> None:
    """Within 15 % of the growth of its resident memory; the allocator is told to give back what is freed."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc, which this system has not")
    benchmark = Path(__file__).parents[1] / "benchmarks/bench_plan.py"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(benchmark), "compact-teacher-fine", "--batch", "4", "--measure"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=300)
    recipe = PRETRAIN["compact-teacher-fine"]()
    data = dataclasses.replace(recipe.data, sizes=((192, 256),))
    planned = plan(dataclasses.replace(recipe, batch=4, data=data, hardware=Hardware()))  # as measured: float32
    assert int(done.stdout) == pytest.approx(planned.memory, rel=0.15)


def test_bad_utilisation() -> None:
    with pytest.raises(InputError, match="between 0 and 1, got 40"):
        plan(PRETRAIN["compact-teacher"](), utilisation=40)


def test_nothing_computes_with_contents() -> None:
    """A plan of a huge batch is as quick as one of a small one: its tensors hold nothing."""
    recipe = dataclasses.replace(PRETRAIN["compact-teacher"](), batch=1_000_000)
    assert plan(recipe).activations > 2**42


def test_profile_tells_the_parts(make_frame: Callable[..., Frame], tmp_path: Path) -> None:
    from metricanything.curate.writing import write_shards

    write_shards([make_frame(seed) for seed in range(3)], tmp_path / "shards")
    recipe = short_recipe(100, shards=(tmp_path / "shards",), batch=2, sizes=((32, 64),))
    lines = profile(recipe, 2).splitlines()
    assert [line.split()[0] for line in lines[: len(PARTS)]] == list(PARTS)
    values = {line.split()[0]: float(line.split()[1]) for line in lines[: len(PARTS) + 2]}
    assert values["sum"] == pytest.approx(sum(values[part] for part in PARTS), abs=0.5)
    assert all(values[part] > 0 for part in ("data", "prompt", "forward", "loss", "backward", "optimiser", "step"))
    assert values["communication"] == 0


def test_networks_are_left_without_contents() -> None:
    with torch.device("meta"):
        network = nn.Linear(2, 2)
    planning._empty(network)
    assert network.weight.device.type == "cpu"
