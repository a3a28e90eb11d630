"""Training: resumes bit by bit, skips what is not finite, supervises what is known; pseudo-labels are dense."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.data.batches import Batch, canonical
from metricanything.data.mixture import Mixture
from metricanything.inference.predictor import Model
from metricanything.models.compact.pointmap import PointOutput
from metricanything.models.compact.teacher import CompactTeacher, DepthConfig
from metricanything.models.outputs import DepthOutput
from metricanything.models.registry import COMPACT, get_spec
from metricanything.training import loop
from metricanything.training.distill import LOSSES, depthmap_loss, pointmap_loss, pseudo_labels
from metricanything.training.loop import TrainConfig, learning_rate, train
from metricanything.training.teacher import COMPACT_PROMPTS, COMPACT_WEIGHTS, depth_terms, teacher_loss

MakeFrame = Callable[..., Frame]
Curve = list[tuple[int, float]]
CONFIG = TrainConfig(steps=8, batch_size=2, warmup=2, checkpoint_seconds=-1.0)  # a checkpoint after every step


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


class Interrupt(Exception):
    pass


def test_interrupted_training_goes_on_bit_by_bit(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    whole = fresh(tiny_config)
    curve = train(whole, teacher_loss, data, CONFIG, tmp_path / "whole")
    assert [step for step, _ in curve] == list(range(8))
    assert not whole.training

    for stop in (3, 6):

        def interrupt(step: int, loss: float, stop: int = stop) -> None:
            if step == stop:  # called before the step is saved: it is done again
                raise Interrupt

        with pytest.raises(Interrupt):
            train(fresh(tiny_config), teacher_loss, data, CONFIG, tmp_path / "parts", interrupt)
    steps: list[int] = []
    resumed = fresh(tiny_config)
    resumed_curve = train(
        resumed, teacher_loss, data, CONFIG, tmp_path / "parts", lambda step, loss: steps.append(step)
    )
    assert steps == [6, 7, 8]
    assert resumed_curve == curve
    assert same_weights(resumed, whole)


def test_finished_run_returns_at_once(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    network = fresh(tiny_config)
    config = dataclasses.replace(CONFIG, steps=3, checkpoint_seconds=1e9)  # saved at the end alone
    curve = train(network, teacher_loss, data, config, tmp_path)
    stamp = (tmp_path / "state.pt").stat().st_mtime_ns

    def forbidden(*_: object) -> dict[str, Tensor]:
        raise AssertionError("a step was taken")

    again = fresh(tiny_config)
    assert train(again, forbidden, data, config, tmp_path) == curve
    assert same_weights(again, network)
    assert (tmp_path / "state.pt").stat().st_mtime_ns == stamp


def test_finished_run_can_be_made_longer(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    short = dataclasses.replace(CONFIG, steps=2)
    curve = train(fresh(tiny_config), teacher_loss, data, short, tmp_path)
    longer = train(fresh(tiny_config), teacher_loss, data, dataclasses.replace(CONFIG, steps=4), tmp_path)
    assert longer[:2] == curve
    assert [step for step, _ in longer] == [0, 1, 2, 3]


@pytest.mark.parametrize("change", [{"seed": 1}, {"learning_rate": 9.0}, {"batch_size": 3}, {"steps": 2}])
def test_other_settings_are_not_continued(
    tiny_config: DepthConfig, data: Mixture, tmp_path: Path, change: dict[str, float]
) -> None:
    train(fresh(tiny_config), teacher_loss, data, dataclasses.replace(CONFIG, steps=3), tmp_path)
    other = dataclasses.replace(CONFIG, **{"steps": 3, **change})
    with pytest.raises(InputError, match="delete it to start again"):
        train(fresh(tiny_config), teacher_loss, data, other, tmp_path)


def test_same_seed_same_training(tiny_config: DepthConfig, data: Mixture, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=3)
    curves = [
        train(fresh(tiny_config), teacher_loss, data, dataclasses.replace(config, seed=seed), tmp_path / str(i))
        for i, seed in enumerate((0, 0, 1))
    ]
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.parametrize(
    "kind", ["garbage", "empty", "cut", "other object", "no step", "other network", "pickle", "folder"]
)
def test_bad_checkpoint(tiny_config: DepthConfig, data: Mixture, tmp_path: Path, kind: str) -> None:
    train(fresh(tiny_config), teacher_loss, data, dataclasses.replace(CONFIG, steps=1), tmp_path)
    path = tmp_path / "state.pt"
    content = path.read_bytes()
    state = torch.load(path, weights_only=True)
    if kind == "garbage":
        path.write_bytes(bytes(range(256)) * 30)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "other object":
        torch.save([1, 2, 3], path)
    elif kind == "no step":
        torch.save({key: value for key, value in state.items() if key != "step"}, path)
    elif kind == "other network":
        torch.save({**state, "network": {"a": torch.zeros(2)}}, path)
    elif kind == "pickle":
        torch.save({**state, "curve": Path("x")}, path)  # a class that weights_only refuses
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(InputError, match=r"state\.pt: cannot go on from this checkpoint") as caught:
        train(fresh(tiny_config), teacher_loss, data, CONFIG, tmp_path)
    assert "\n" not in str(caught.value)
    assert "delete it to start again" in str(caught.value)


# ---------------------------------------------------------------- steps


def test_learning_rate() -> None:
    """Warm-up over 10 steps, constant, and from half of the steps linearly towards zero."""
    config = TrainConfig(steps=100, learning_rate=2e-3, warmup=10, decay=0.5)
    rates = [learning_rate(config, step) for step in range(100)]
    np.testing.assert_allclose(rates[:10], 2e-3 * np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[9:51], 2e-3)
    np.testing.assert_allclose(rates[50:], 2e-3 * np.arange(50, 0, -1) / 50)
    assert learning_rate(TrainConfig(steps=4, learning_rate=1.0, warmup=0, decay=0.0), 3) == 1.0


class Line(nn.Module):
    """y = a x: a network small enough to follow by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(1, 1))


def test_steps_follow_adamw(data: Mixture, tmp_path: Path) -> None:
    """The loop's update is AdamW with the scheduled rate on the clipped gradient."""
    config = TrainConfig(steps=5, learning_rate=0.1, warmup=3, decay=0.5, weight_decay=0.2, clip=1.0)
    network = Line()
    train(network, lambda net, batch, generator: {"x": 5 * net.a.square().sum()}, data, config, tmp_path)
    a, mean, square = 1.0, 0.0, 0.0
    for step in range(5):
        rate = learning_rate(config, step)
        gradient = max(min(10 * a, 1.0), -1.0)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        a -= rate * 0.2 * a
        a -= rate * (mean / (1 - 0.9 ** (step + 1))) / (math.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-8)
    assert float(network.a.detach()) == pytest.approx(a, rel=1e-5)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped(data: Mixture, tmp_path: Path, kind: str) -> None:
    network, seen = Line(), []

    def loss(net: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        seen.append(float(net.a.detach()))
        value = net.a.square().sum()
        if len(seen) in (2, 3):
            value = value * math.nan if kind == "loss" else value + (net.a - net.a.detach()).square().sum().sqrt()
        return {"x": value}

    curve = train(network, loss, data, dataclasses.replace(CONFIG, steps=5), tmp_path)
    assert [step for step, _ in curve] == [0, 3, 4]  # what was skipped is not part of the curve, which has to be JSON
    assert seen[1] == seen[2] == seen[3]
    assert seen[0] > seen[1]
    assert seen[3] > seen[4]
    assert math.isfinite(float(network.a.detach()))


def test_too_many_bad_steps_name_the_samples(data: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_MAX_BAD_STEPS", 4)
    config = dataclasses.replace(CONFIG, steps=20)
    with pytest.raises(RuntimeError, match=r"not finite 4 steps in a row; last samples: planes/\d{3}, planes/\d{3}$"):
        train(Line(), lambda net, *_: {"x": net.a.sum() * math.nan}, data, config, tmp_path)


def test_weights_decay_but_biases_and_gains_do_not(tiny_config: DepthConfig) -> None:
    network = fresh(tiny_config)
    decayed, others = loop._parameter_groups(network, CONFIG)
    assert decayed["weight_decay"] == CONFIG.weight_decay
    assert others["weight_decay"] == 0
    assert len(decayed["params"]) + len(others["params"]) == len(list(network.parameters()))
    decays = {id(parameter) for parameter in decayed["params"]}
    assert id(network.encoder.stem.weight) in decays
    assert id(network.encoder.tokens[0].qkv.weight) in decays
    for parameter in (network.encoder.stem.bias, network.encoder.tokens[0].norm1.weight, network.anchor.raw_gain):
        assert id(parameter) not in decays


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


def test_depth_losses_vanish_for_the_truth(batch: Batch) -> None:
    for loss in (teacher_loss, depthmap_loss):
        assert sum(loss(Oracle(batch), batch, torch.Generator().manual_seed(0)).values()) < 1e-6
        wrong = loss(Oracle(batch, 1.1), batch, torch.Generator().manual_seed(0))
        assert float(wrong["value"]) == pytest.approx(math.log(1.1), rel=1e-3)  # about the relative error
        assert float(wrong["edges"]) < 1e-5


def test_teacher_is_prompted_with_the_label(batch: Batch) -> None:
    oracle = Oracle(batch)
    teacher_loss(oracle, batch, torch.Generator().manual_seed(1))
    (prompt,) = oracle.prompts
    drawn = COMPACT_PROMPTS.draw(batch.depth_BHW, batch.metric_B, torch.Generator().manual_seed(1))
    mask = torch.isfinite(drawn)
    assert mask.any()
    assert torch.equal(prompt > 0, mask[:, None])
    c = canonical(batch.depth_BHW, batch.focal_B)
    assert torch.equal(prompt[prompt > 0], c[prompt > 0])


def test_labels_up_to_scale_count_with_a_prompt_alone(batch: Batch) -> None:
    relative = dataclasses.replace(batch, metric_B=torch.zeros(4, dtype=torch.bool))
    wrong = Oracle(relative, 2.0)
    assert depthmap_loss(wrong, relative, torch.Generator())["value"] == 0
    assert depthmap_loss(wrong, relative, torch.Generator())["mask"] >= 0
    assert float(teacher_loss(wrong, relative, torch.Generator())["value"]) == pytest.approx(math.log(2), rel=1e-3)


def test_edges_of_rendered_labels_alone(batch: Batch) -> None:
    """The gradient term trusts rendered labels; real ones are trimmed to the best 80 % instead."""
    real = dataclasses.replace(batch, trusted_B=torch.zeros(4, dtype=torch.bool))
    output = Oracle(batch)(batch.image_B3HW)
    noisy = DepthOutput(output.log_c_B1HW + torch.randn(output.log_c_B1HW.shape), output.mask_logit_B1HW)
    everything = torch.ones(4, dtype=torch.bool)
    trusted, trimmed = depth_terms(noisy, batch, everything), depth_terms(noisy, real, everything)
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
    terms = depth_terms(Oracle(batch, 1.1)(batch.image_B3HW), partly, batch.metric_B)
    assert float(terms["value"]) == pytest.approx(math.log(1.1), rel=1e-3)


def test_point_loss_vanishes_for_the_truth_up_to_scale_and_shift(batch: Batch) -> None:
    depth = torch.where(torch.isfinite(batch.depth_BHW), batch.depth_BHW, 7.0)[:, None]
    target = torch.cat([batch.plane_BHW2.permute(0, 3, 1, 2) * depth, depth], dim=1)
    logit = torch.where(torch.isfinite(batch.depth_BHW), 20.0, -20.0)[:, None]
    points = 0.25 * target - torch.tensor([0.0, 0.0, 3.0]).view(3, 1, 1)

    def terms(log_scale: float) -> dict[str, float]:
        output = PointOutput(points, logit, torch.full((4,), log_scale))
        return {k: float(v) for k, v in pointmap_loss(lambda image: output, batch, torch.Generator()).items()}

    right = terms(math.log(4))
    assert right["points"] < 1e-4
    assert right["scale"] < 1e-6
    assert right["mask"] < 1e-6
    assert terms(0.0)["scale"] == pytest.approx(0.1 * math.log(4) ** 2, rel=1e-3)


@pytest.mark.parametrize("name", [name for name, spec in COMPACT.items() if spec.task != "prompted-depth"])
def test_every_student_trains(name: str, tiny_config: DepthConfig, shards: Shards, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = get_spec(name).build(dataclasses.asdict(tiny_config))
    data = Mixture(shards, sizes=((64, 96),), batch_size=3, seed=0)
    config = TrainConfig(steps=30, learning_rate=3e-3, warmup=5, checkpoint_seconds=1e9)
    values = [value for _, value in train(network, LOSSES[name], data, config, tmp_path)]
    assert np.isfinite(values).all()
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])


# ---------------------------------------------------------------- pseudo-labels


@pytest.fixture
def labelled(make_frame: MakeFrame, make_shards: Callable[..., Shards]) -> Shards:
    """Five frames of sparse depth of two sizes, the third without any known depth."""
    frames = []
    for seed, size in enumerate([(48, 64), (64, 48), (48, 64), (48, 64), (64, 48)]):
        frame = make_frame(seed, *size)
        rng = np.random.default_rng(seed)
        depth = np.where(rng.random(frame.depth.shape) < 0.1, frame.depth, np.float32(np.nan))
        depth = np.where(np.isfinite(depth) & (seed != 2), depth, np.float32(np.nan))
        sigma = np.full_like(depth, 0.1)
        frames.append(dataclasses.replace(frame, depth=depth, sigma=sigma, notes={"kept": seed}))
    return make_shards(frames)


def test_pseudo_labels_are_dense(tiny_config: DepthConfig, labelled: Shards) -> None:
    network = fresh(tiny_config)
    with torch.no_grad():
        network.anchor.raw_gain.fill_(1)
        network.decoder.head[1].bias[1] = 10  # everything has a finite depth
    teacher = Model(network, get_spec("compact-teacher"), {"model": "compact-teacher", "input_side": 96}, device="cpu")
    frames = list(pseudo_labels(teacher, labelled, max_points=100, batch_size=2))
    assert [frame.notes["kept"] for frame in frames] == [0, 1, 3, 4]  # nothing gives the scale of the empty one
    for frame in frames:
        original = labelled.frame(frame.notes["kept"])
        assert frame.depth.dtype == np.float32
        assert np.isfinite(frame.depth).all()
        assert frame.sigma is None
        np.testing.assert_array_equal(frame.image, original.image)
        for field in ("name", "camera", "kind", "sensor", "source", "licence", "scale"):
            assert getattr(frame, field) == getattr(original, field)
        label = frame.notes["pseudo_label"]
        assert label["prompt_points"] == min(100, int(original.valid.sum()))
        assert label["teacher"]["model"] == "compact-teacher"
        ratio = frame.depth[original.valid] / original.depth[original.valid]
        assert np.median(np.abs(np.log(ratio))) < 0.1  # anchored to the frame's own metres
    again = list(pseudo_labels(teacher, labelled, max_points=100, batch_size=5))
    for a, b in zip(frames, again, strict=True):
        np.testing.assert_allclose(a.depth, b.depth, rtol=1e-4)


def test_pseudo_labels_mark_the_sky(tiny_config: DepthConfig, labelled: Shards) -> None:
    network = fresh(tiny_config)
    with torch.no_grad():
        network.decoder.head[1].bias[1] = -10
    frames = list(pseudo_labels(Model(network, get_spec("compact-teacher"), device="cpu"), labelled))
    originals = {frame.name: frame for frame in map(labelled.frame, range(len(labelled)))}
    for frame in frames:
        original = originals[frame.name]
        assert np.isposinf(frame.depth[~original.valid]).all()
        assert np.isfinite(frame.depth[original.valid]).all()  # what was measured is not sky, whatever the teacher says
