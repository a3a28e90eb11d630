"""Training: resumes bit by bit, skips what is not finite, supervises what is known; pseudo-labels are dense."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import short_recipe
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.data.batches import Batch, canonical
from metricanything.data.mixture import Mixture
from metricanything.models.compact.pointmap import PointOutput
from metricanything.models.compact.teacher import CompactTeacher, DepthConfig
from metricanything.models.outputs import DepthOutput
from metricanything.models.registry import COMPACT, get_spec
from metricanything.training import engine, optimiser, parallel, validation
from metricanything.training.engine import Curve, train
from metricanything.training.pretrain import task_of
from metricanything.training.recipe import Optimiser, Recipe, Stage
from metricanything.training.recipes import COMPACT_POINTS, COMPACT_PROMPTS, COMPACT_WEIGHTS
from metricanything.training.students import DepthMapTask, PointMapTask
from metricanything.training.task import Task
from metricanything.training.teacher import TeacherTask, depth_terms

MakeFrame = Callable[..., Frame]


@pytest.fixture(scope="module")
def shards(make_frame: MakeFrame, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    from metricanything.curate.writing import write_shards

    folder = tmp_path_factory.mktemp("shards")
    write_shards([make_frame(seed) for seed in range(3)], folder)
    return Shards(folder)


@pytest.fixture
def data(shards: Shards) -> Mixture:
    return Mixture(shards, sizes=((32, 64), (64, 32)), batch_size=2, seed=0)


def fresh(config: DepthConfig) -> CompactTeacher:
    torch.manual_seed(0)
    return CompactTeacher(config)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# ---------------------------------------------------------------- resume


def saving(steps: int, **changes: Any) -> Recipe:
    """Two images a step, a checkpoint after every step."""
    return short_recipe(steps, **{"batch": 2, "warmup": 2, "checkpoint_seconds": -1.0, "keep": 3, **changes})


def fit(network: nn.Module, data: Mixture, folder: Path, recipe: Recipe, progress: Any = None) -> Curve:
    return train(network, task_of(recipe), recipe, [data], folder, progress)


class Interrupt(Exception):
    pass


def test_interrupted_training_goes_on_bit_by_bit(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    whole, recipe = fresh(tiny_config), saving(8, average=0.9)
    curve = fit(whole, data, tmp_path / "whole", recipe)
    assert [step for step, _ in curve] == list(range(8))
    assert not whole.training

    for stop in (3, 6):

        def interrupt(done: int, *_: object, stop: int = stop) -> None:
            if done == stop:  # called before the step is saved: it is done again
                raise Interrupt

        with pytest.raises(Interrupt):
            fit(fresh(tiny_config), data, tmp_path / "parts", recipe, interrupt)
    steps: list[int] = []
    resumed = fresh(tiny_config)
    resumed_curve = fit(resumed, data, tmp_path / "parts", recipe, lambda done, *_: steps.append(done))
    assert steps == [6, 7, 8]
    assert resumed_curve == curve
    assert same_weights(resumed, whole)
    assert (tmp_path / "parts/curve.jsonl").read_bytes() == (tmp_path / "whole/curve.jsonl").read_bytes()


def test_finished_run_returns_at_once(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    network, recipe = fresh(tiny_config), saving(3, checkpoint_seconds=1e9)  # saved at the end alone
    curve = fit(network, data, tmp_path, recipe)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]

    def forbidden(*_: object) -> None:
        raise AssertionError("a step was taken")

    again = fresh(tiny_config)
    assert fit(again, data, tmp_path, recipe, forbidden) == curve
    assert same_weights(again, network)


def test_finished_run_can_be_made_longer(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    curve = fit(fresh(tiny_config), data, tmp_path, saving(2))
    longer = fit(fresh(tiny_config), data, tmp_path, saving(4))
    assert longer[:2] == curve
    assert [step for step, _ in longer] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed"), ({"rate": 9.0}, "optimiser.rate"), ({"batch": 3}, "batch"), ({"steps": 2}, "more than")],
)
def test_other_settings_are_not_continued(
    tiny_config: DepthConfig, data: Mixture, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    fit(fresh(tiny_config), data, tmp_path, saving(3))
    with pytest.raises(InputError, match=named):
        fit(fresh(tiny_config), data, tmp_path, saving(change.pop("steps", 3), **change))


def test_same_seed_same_training(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    curves = [
        fit(fresh(tiny_config), data, tmp_path / str(i), saving(3, seed=seed)) for i, seed in enumerate((0, 0, 1))
    ]
    assert curves[0] == curves[1] != curves[2]


def test_a_few_checkpoints_are_kept_and_the_best(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    errors = iter([5.0, 1.0, 3.0, 4.0, 2.0, 6.0])
    recipe = saving(6, keep=2, validate_every=1)
    with parallel.world(recipe.hardware) as world:
        run = engine.Engine(fresh(tiny_config), task_of(recipe), recipe, [data], tmp_path, world)
        run.validate = lambda network: {"AbsRel": next(errors)}
        run.run()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000002", "step-00000005", "step-00000006"]
    assert run.best == {"step": 2, "error": 1.0}
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert [row["validation"]["AbsRel"] for row in rows if "validation" in row] == [5, 1, 3, 4, 2, 6]


def test_the_best_is_kept_between_checkpoints(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    """Also where no checkpoint was due when it was measured."""
    errors = iter([5.0, 1.0, 3.0])
    recipe = saving(6, keep=1, validate_every=2, checkpoint_seconds=1e9)
    with parallel.world(recipe.hardware) as world:
        run = engine.Engine(fresh(tiny_config), task_of(recipe), recipe, [data], tmp_path, world)
        run.validate = lambda network: {"AbsRel": next(errors)}
        run.run()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]


def test_nothing_measured_is_not_the_best(data: Mixture, tmp_path: Path) -> None:
    """Held-out frames whose labels are known up to scale alone have no AbsRel, which is not an AbsRel of zero."""
    recipe = saving(1)

    class UpToScale:
        def errors(self, output: Any, batch: Batch) -> dict[str, Tensor]:
            return {"AbsRel": torch.full((len(batch),), math.nan), "other": torch.ones(len(batch))}

        def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
            return batch

        def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
            return (batch.image_B3HW,)

    with parallel.world(recipe.hardware) as world:
        assert validation.measure(Line(), UpToScale(), data, recipe, world) == {"other": 1.0}  # type: ignore[arg-type]
        run = engine.Engine(Line(), Charge(lambda a: a.square().sum()), recipe, [data], tmp_path, world)
        run.validate = lambda network: {}
        run.run()
    assert run.best is None


def test_a_full_disk_says_so(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    """Files that may not grow stand for the disk: what writes checkpoints is neither silent nor an exotic error."""
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        with pytest.raises(OSError, match="checkpoints"):
            fit(fresh(tiny_config), data, tmp_path, saving(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list((tmp_path / "checkpoints").glob("step-*"))
    assert [step for step, _ in fit(fresh(tiny_config), data, tmp_path, saving(3))] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["garbage", "empty", "no meta", "no step", "tensor file gone", "other network"])
def test_bad_checkpoint(tiny_config: DepthConfig, data: Mixture, tmp_path: Path, kind: str) -> None:
    fit(fresh(tiny_config), data, tmp_path, saving(1))
    folder = tmp_path / "checkpoints/step-00000001"
    tensors, meta = folder / "__0_0.distcp", json.loads((folder / "meta.json").read_text())
    network: nn.Module = fresh(tiny_config)
    if kind == "garbage":
        tensors.write_bytes(bytes(range(256)) * 30)
    elif kind == "empty":
        tensors.write_bytes(b"")
    elif kind == "no meta":  # as good as absent: it was never finished
        (folder / "meta.json").unlink()
        assert [step for step, _ in fit(network, data, tmp_path, saving(2))] == [0, 1]
        return
    elif kind == "no step":
        (folder / "meta.json").write_text(json.dumps({k: v for k, v in meta.items() if k != "step"}))
    elif kind == "tensor file gone":
        tensors.unlink()
    else:
        network = Line()
    with pytest.raises(InputError, match="step-00000001: cannot go on from it") as caught:
        fit(network, data, tmp_path, saving(2))
    assert "\n" not in str(caught.value)
    assert "delete it, or give another folder" in str(caught.value)


# ---------------------------------------------------------------- steps


def test_schedule() -> None:
    """Warm-up over 10 steps, constant, and from half of the steps linearly towards zero."""
    config = Optimiser(warmup=10, decay=0.5)
    rates = [optimiser.schedule(config, 100, step) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[9:51], 1)
    np.testing.assert_allclose(rates[50:], np.arange(50, 0, -1) / 50)
    assert optimiser.schedule(Optimiser(warmup=0, decay=0.0), 4, 3) == 1.0


class Line(nn.Module):
    """y = a: a network small enough to follow by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.a


@dataclasses.dataclass
class Charge:
    """A task that charges `price(a)`."""

    price: Callable[[Tensor], Tensor]

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return (batch.image_B3HW,)

    def loss(self, output: Tensor, batch: Batch, weights: Any) -> dict[str, Tensor]:
        return {"x": self.price(output)}


def follow(task: Any, data: Mixture, folder: Path, steps: int, **changes: Any) -> tuple[Line, Curve]:
    network, recipe = Line(), saving(steps, checkpoint_seconds=1e9, **changes)
    return network, train(network, task, recipe, [data], folder)


def test_steps_follow_adamw(data: Mixture, tmp_path: Path) -> None:
    """The loop's update is AdamW with the scheduled rate on the clipped gradient; the average follows it."""
    config = Optimiser(rate=0.1, warmup=3, decay=0.5, weight_decay=0.2, clip=1.0, betas=(0.9, 0.99))
    fields = {k: v for k, v in dataclasses.asdict(config).items() if k not in ("average", "encoder_rate")}
    network, _ = follow(Charge(lambda a: 5 * a.square().sum()), data, tmp_path / "plain", 5, **fields)
    averaged, _ = follow(Charge(lambda a: 5 * a.square().sum()), data, tmp_path / "average", 5, average=0.5, **fields)
    a, mean, square, average = 1.0, 0.0, 0.0, 1.0
    for step in range(5):
        rate = 0.1 * optimiser.schedule(config, 5, step)
        gradient = max(min(10 * a, 1.0), -1.0)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        a -= rate * 0.2 * a
        a -= rate * (mean / (1 - 0.9 ** (step + 1))) / (math.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-8)
        average += (1 - min(0.5, (1 + step) / (10 + step))) * (a - average)
    assert float(network.a.detach()) == pytest.approx(a, rel=1e-5)
    assert float(averaged.a.detach()) == pytest.approx(average, rel=1e-5)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped(data: Mixture, tmp_path: Path, kind: str) -> None:
    seen: list[float] = []

    def price(a: Tensor) -> Tensor:
        seen.append(float(a.detach()))
        value = a.square().sum()
        if len(seen) in (2, 3):
            value = value * math.nan if kind == "loss" else value + (a - a.detach()).square().sum().sqrt()
        return value

    with pytest.warns(UserWarning, match=r"step 1 skipped: .* samples planes/\d{3}, planes/\d{3}"):
        network, curve = follow(Charge(price), data, tmp_path, 5)
    assert [step for step, _ in curve] == [0, 3, 4]  # what was skipped is not part of the curve, which has to be JSON
    assert seen[1] == seen[2] == seen[3]
    assert seen[0] > seen[1]
    assert seen[3] > seen[4]
    assert math.isfinite(float(network.a.detach()))


@pytest.mark.filterwarnings("ignore:step")
def test_too_many_bad_steps_name_the_samples(data: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_BAD_STEPS", 4)
    with pytest.raises(RuntimeError, match=r"not finite 4 steps in a row; last samples: planes/\d{3}, planes/\d{3}$"):
        follow(Charge(lambda a: a.sum() * math.nan), data, tmp_path, 20)


def test_micro_batches_add_up(tiny_config: DepthConfig, shards: Shards, tmp_path: Path) -> None:
    """The gradient of a step of three micro-batches is the mean of theirs."""
    recipe = saving(1, micro_batches=3)
    data = Mixture(shards, sizes=((32, 64), (64, 32)), batch_size=2, seed=0, micro_batches=3)
    with parallel.world(recipe.hardware) as world:
        run = engine.Engine(fresh(tiny_config), task_of(recipe), recipe, [data], tmp_path, world)
        ((number, batches),) = run.batches(0)

        def gradient(parts: list[Batch]) -> Tensor:
            run.gradients(number, parts)
            return torch.cat([p.grad.flatten() for p in run.network.parameters() if p.grad is not None])

        parts = torch.stack([gradient([batch]) for batch in batches])
        torch.testing.assert_close(gradient(batches), parts.mean(dim=0))
    assert len({batch.image_B3HW.shape for batch in batches}) == 1


def test_weights_decay_but_biases_and_gains_do_not(tiny_config: DepthConfig) -> None:
    network = fresh(tiny_config)
    built = optimiser.build(network, Optimiser(rate=1e-3, encoder_rate=1e-4, weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    peak = {id(p): group["peak"] for group in built.param_groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    assert decay[id(network.encoder.stem.weight)] == 0.3
    assert decay[id(network.encoder.tokens[0].qkv.weight)] == 0.3
    for parameter in (network.encoder.stem.bias, network.encoder.tokens[0].norm1.weight, network.anchor.raw_gain):
        assert decay[id(parameter)] == 0
    assert peak[id(network.encoder.stem.weight)] == 1e-4
    assert peak[id(network.anchor.raw_gain)] == 1e-3


# ---------------------------------------------------------------- losses of the recipes


@pytest.fixture
def batch(shards: Shards) -> Batch:
    return Mixture(shards, sizes=((64, 96),), batch_size=4, seed=0).batch(0)


class Oracle(nn.Module):
    """Says what the batch holds, times `factor` in depth."""

    def __init__(self, batch: Batch, factor: float = 1.0) -> None:
        super().__init__()
        self.batch, self.factor, self.prompts = batch, factor, []

    def forward(self, image: Tensor, prompt: Tensor | None = None) -> DepthOutput:
        self.prompts.append(prompt)
        c = canonical(self.factor * self.batch.depth_BHW, self.batch.focal_B)
        logit = torch.where(torch.isfinite(self.batch.depth_BHW), 20.0, -20.0)[:, None]
        return DepthOutput(torch.where(c > 0, c, 0.5).log(), logit)


def charge(task: Task, network: nn.Module, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    prepared = task.prepare(batch, torch.Generator().manual_seed(seed))
    return task.loss(network(*task.inputs(prepared)), prepared, COMPACT_WEIGHTS)


TEACHER = TeacherTask(COMPACT_PROMPTS)


def test_depth_losses_vanish_for_the_truth(batch: Batch) -> None:
    for task in (TEACHER, DepthMapTask()):
        assert sum(charge(task, Oracle(batch), batch).values()) < 1e-6
        wrong = charge(task, Oracle(batch, 1.1), batch)
        assert float(wrong["value"]) == pytest.approx(math.log(1.1), rel=1e-3)  # about the relative error
        assert float(wrong["edges"]) < 1e-5


def test_teacher_is_prompted_with_the_label(batch: Batch) -> None:
    oracle = Oracle(batch)
    charge(TEACHER, oracle, batch, seed=1)
    (prompt,) = oracle.prompts
    drawn = COMPACT_PROMPTS.draw(batch.depth_BHW, batch.metric_B, torch.Generator().manual_seed(1))
    mask = torch.isfinite(drawn)
    assert mask.any()
    assert torch.equal(prompt > 0, mask[:, None])
    c = canonical(batch.depth_BHW, batch.focal_B)
    # Of the label but where noise is drawn.
    assert torch.equal(prompt[prompt > 0], canonical(drawn, batch.focal_B)[mask[:, None]])
    clean = (drawn == batch.depth_BHW)[:, None]
    assert clean.any()
    assert torch.equal(prompt[clean], c[clean])


def test_labels_up_to_scale_count_with_a_prompt_alone(batch: Batch) -> None:
    relative = dataclasses.replace(batch, metric_B=torch.zeros(4, dtype=torch.bool))
    wrong = Oracle(relative, 2.0)
    assert charge(DepthMapTask(), wrong, relative)["value"] == 0
    assert charge(DepthMapTask(), wrong, relative)["mask"] >= 0
    assert float(charge(TEACHER, wrong, relative)["value"]) == pytest.approx(math.log(2), rel=1e-3)


def test_edges_of_rendered_labels_alone(batch: Batch) -> None:
    """The gradient term trusts rendered labels; real ones are trimmed to the best 80 % instead."""
    real = dataclasses.replace(batch, trusted_B=torch.zeros(4, dtype=torch.bool))
    output = Oracle(batch)(batch.image_B3HW)
    noisy = DepthOutput(output.log_c_B1HW + torch.randn(output.log_c_B1HW.shape), output.mask_logit_B1HW)
    everything = torch.ones(4, dtype=torch.bool)
    trusted, trimmed = (depth_terms(noisy, one, everything, COMPACT_WEIGHTS) for one in (batch, real))
    assert trusted["edges"] > 0
    assert trimmed["edges"] == 0
    assert 0 < trimmed["value"] < 0.8 * trusted["value"]
    whole = depth_terms(noisy, real, everything, dataclasses.replace(COMPACT_WEIGHTS, keep=1.0))
    torch.testing.assert_close(whole["value"], trusted["value"])
    torch.testing.assert_close(whole["mask"], trimmed["mask"])


def test_images_without_labels_do_not_dilute_the_others(batch: Batch) -> None:
    """Terms are means over the images that have them: the share of unlabelled frames does not change the gradient."""
    depth = batch.depth_BHW.clone()
    depth[2:] = math.nan
    partly = dataclasses.replace(batch, depth_BHW=depth)
    terms = depth_terms(Oracle(batch, 1.1)(batch.image_B3HW), partly, batch.metric_B, COMPACT_WEIGHTS)
    assert float(terms["value"]) == pytest.approx(math.log(1.1), rel=1e-3)


def test_point_loss_vanishes_for_the_truth_up_to_scale_and_shift(batch: Batch) -> None:
    depth = torch.where(torch.isfinite(batch.depth_BHW), batch.depth_BHW, 7.0)[:, None]
    target = torch.cat([batch.plane_BHW2.permute(0, 3, 1, 2) * depth, depth], dim=1)
    logit = torch.where(torch.isfinite(batch.depth_BHW), 20.0, -20.0)[:, None]
    points = 0.25 * target - torch.tensor([0.0, 0.0, 3.0]).view(3, 1, 1)

    def terms(log_scale: float) -> dict[str, float]:
        output = PointOutput(points, logit, torch.full((4,), log_scale))
        return {k: float(v) for k, v in PointMapTask().loss(output, batch, COMPACT_POINTS).items()}

    right = terms(math.log(4))
    assert right["whole"] < 1e-4
    assert right["scale"] < 1e-6
    assert right["mask"] < 1e-6
    assert terms(0.0)["scale"] == pytest.approx(COMPACT_POINTS.scale * math.log(4) ** 2, rel=1e-3)


@pytest.mark.parametrize("name", [name for name, spec in COMPACT.items() if spec.task != "prompted-depth"])
def test_every_student_trains(name: str, tiny_config: DepthConfig, shards: Shards, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = get_spec(name).build(dataclasses.asdict(tiny_config))
    data = Mixture(shards, sizes=((64, 96),), batch_size=3, seed=0)
    weights = COMPACT_POINTS if name == "compact-pointmap" else COMPACT_WEIGHTS
    recipe = short_recipe(40, name, batch=3, rate=3e-3, stages=(Stage(weights=weights),))
    values = [value for _, value in fit(network, data, tmp_path, recipe)]
    assert np.isfinite(values).all()
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])
