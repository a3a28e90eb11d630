"""Distillation: labels are the teacher's, checked and resumable; students train on them, of any layout."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published import TINY_DEPTHMAP, TINY_POINTMAP
from runs import short_recipe
from test_engine import launch

from metricanything.cli import main
from metricanything.core.errors import InputError
from metricanything.core.files import read_json
from metricanything.core.frame import Frame
from metricanything.curate.codec import Encoding
from metricanything.curate.deciding import decide_again
from metricanything.curate.inspection import write_inspection
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_shards
from metricanything.data.batches import canonical
from metricanything.data.mixture import Mixture
from metricanything.losses.point_combination import PointWeights
from metricanything.models.checkpoint import save_model
from metricanything.models.compact.teacher import CompactTeacher, DepthConfig
from metricanything.models.registry import get_spec
from metricanything.training import distill, optimiser, parallel, pretrain
from metricanything.training.distill import Distillation
from metricanything.training.distill_recipes import DISTILL
from metricanything.training.labels import Labelling, _case, agreement, label
from metricanything.training.plan import plan
from metricanything.training.recipe import Hardware, Recipe, Stage
from metricanything.training.recipes import COMPACT_POINTS, COMPACT_WEIGHTS
from metricanything.training.students import InverseDepthTask

MakeFrame = Callable[..., Frame]
MakeShards = Callable[..., Shards]


@pytest.fixture
def teacher(tiny_config: DepthConfig, tmp_path: Path) -> Path:
    """An untrained teacher that follows its prompt and sees no sky."""
    torch.manual_seed(0)
    network = CompactTeacher(tiny_config)
    with torch.no_grad():
        network.anchor.raw_gain.fill_(1)
        network.decoder.head[1].bias[1] = 10
    path = tmp_path / "teacher.safetensors"
    save_model(path, network, "compact-teacher", {"input_side": 96})
    return path


@pytest.fixture
def originals(make_frame: MakeFrame, make_shards: MakeShards) -> Shards:
    """Seven frames of sparse depth, of two sizes; the third has none, the fifth has half its points ten times off."""
    frames = []
    for seed in range(7):
        frame = make_frame(seed, *((64, 48) if seed % 3 == 1 else (48, 64)), kind="captured", sensor="rgbd")
        rng = np.random.default_rng(seed)
        known = (rng.random(frame.depth.shape) < 0.1) & np.isfinite(frame.depth) & (seed != 2)
        depth = np.where(known, frame.depth, np.float32(np.nan))
        if seed == 4:
            depth = np.where(rng.random(depth.shape) < 0.5, 10 * depth, depth)
        frames.append(dataclasses.replace(frame, depth=depth, notes={"number": seed}))
    return make_shards(frames)


def made(originals: Shards, teacher: Path, folder: Path, **changes: Any) -> Shards:
    options = {"prompts": ("uniform-100",), "batch": 2, "frames_per_shard": 2, **changes}
    with parallel.world(Hardware(device="cpu")) as world:
        return label(originals, Labelling(teacher=str(teacher), folder=folder, **options), world)


def read_curve(folder: Path) -> list[tuple[int, float]]:
    lines = map(json.loads, (folder / "curve.jsonl").read_text().splitlines())
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- labels


def test_labels_are_dense_and_say_how_they_were_made(originals: Shards, teacher: Path, tmp_path: Path) -> None:
    labels = made(originals, teacher, tmp_path / "labels")
    frames = [labels.frame(i) for i in range(len(labels))]
    assert [frame.notes["number"] for frame in frames] == [0, 1, 3, 4, 5, 6]  # nothing gives the scale of the empty one
    assert (labels.folder / "skipped.txt").read_text() == "planes/002: no measured depth to prompt the teacher with\n"
    for frame in frames:
        original = originals.frame(frame.notes["number"])
        assert np.isfinite(frame.depth).all()
        assert frame.sigma is not None
        assert (frame.sigma > 0).all()
        assert frame.source == "planes+teacher"
        for field in ("name", "camera", "kind", "sensor", "licence", "scale"):
            assert getattr(frame, field) == getattr(original, field)
        note, known = frame.notes["pseudo_label"], int(original.valid.sum())
        assert note["prompt"]["pattern"] == "uniform-100"
        assert note["prompt"]["held_out"] == int(0.2 * known)
        assert note["prompt"]["points"] == min(100, known - int(0.2 * known))
        assert note["teacher"]["model"] == "compact-teacher"
        ratio = frame.depth[original.valid] / original.depth[original.valid]
        assert np.median(np.abs(np.log(ratio))) < 0.15 or note["delta1"] < 0.8  # anchored to the frame's own metres
    assert read_json(labels.folder / "labels.json")["teacher"]["input_side"] == 96


def test_frames_where_the_teacher_disagrees_are_put_aside_and_shown(
    originals: Shards, teacher: Path, tmp_path: Path
) -> None:
    labels = made(originals, teacher, tmp_path / "labels")
    aside = sorted(set(range(len(labels))) - set(labels.kept.tolist()))
    assert [labels.frame(i).notes["number"] for i in aside] == [4]
    codes, texts = labels.coded("reasons")
    assert [texts[codes[i]] for i in aside] == ["teacher_disagreement"]
    write_inspection(tmp_path / "report.html", [labels.folder])
    page = (tmp_path / "report.html").read_text()
    assert "Put aside: teacher_disagreement." in page
    assert "teacher within 25 % of" in page
    # Another threshold needs no new labels.
    rule = {"test": "range", "column": "q_teacher_delta1", "below": 0.0}
    assert decide_again(labels.folder, {"teacher_disagreement": rule}).kept == len(labels)


def test_agreement() -> None:
    found = agreement(np.float32([1.0, 2.0, 3.0, 5.0]), np.float32([1.0, 2.4, 3.0, 4.0]))
    assert found["delta1"] == 0.75  # a ratio of 1.25 is no longer within
    assert found["abs_rel"] == pytest.approx((0.4 / 2.4 + 0.25) / 4, rel=1e-6)
    assert agreement(np.float32([]), np.float32([])) == {"abs_rel": None, "delta1": None}


def test_held_out_measurements_are_never_shown(originals: Shards, teacher: Path, tmp_path: Path) -> None:
    """Other values there change the agreement, not the label."""
    frames = [originals.frame(i) for i in (0, 1)]

    changed = []
    for number, frame in enumerate(frames):
        case = _case(number, frame, Labelling(prompts=("all",)))
        depth = frame.depth.copy()
        depth.ravel()[case.held_out] *= 2
        assert len(case.prompt) + len(case.held_out) == frame.valid.sum()
        changed.append(dataclasses.replace(frame, depth=depth))
    exact = Encoding(depth="exr")  # 16-bit codes would depend on the range of the values
    write_shards(frames, tmp_path / "a", encoding=exact)
    write_shards(changed, tmp_path / "b", encoding=exact)
    one, two = (made(Shards(tmp_path / n), teacher, tmp_path / "labels", prompts=("all",)) for n in "ab")
    for i in range(2):
        np.testing.assert_array_equal(one.frame(i).depth, two.frame(i).depth)
        assert one.column("q_teacher_delta1")[i] > two.column("q_teacher_delta1")[i]


def test_killed_labelling_goes_on_and_gives_the_same_bytes(originals: Shards, teacher: Path, tmp_path: Path) -> None:
    whole = content(made(originals, teacher, tmp_path / "whole").folder)
    folder = tmp_path / "killed"
    output = Labelling(folder=folder).output(originals.folder)
    child = os.fork()
    if not child:  # pragma: no cover
        with parallel.world(Hardware(device="cpu")) as world:

            def slow(items: int, size: int) -> None:
                time.sleep(1)

            options = {"prompts": ("uniform-100",), "batch": 2, "frames_per_shard": 2}
            label(originals, Labelling(teacher=str(teacher), folder=folder, **options), world, slow)
        os._exit(0)
    until = time.monotonic() + 60
    while not list(output.glob("unfinished/[0-9]*.arrow")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not (output / "index.arrow").exists()
    pieces = [p.stem for p in output.glob("unfinished/[0-9]*.arrow")]
    assert 0 < len(pieces) < 4
    done = {p: p.stat().st_mtime_ns for p in (output / f"shard-{number}.tar" for number in pieces)}
    assert content(made(originals, teacher, folder).folder) == whole
    assert all(p.stat().st_mtime_ns == then for p, then in done.items())  # what was there was not made again
    assert content(made(originals, teacher, folder).folder) == whole  # nor is a finished set


@pytest.mark.parametrize("change", ["seed", "teacher"])
def test_labels_made_in_another_way_are_refused(
    originals: Shards, teacher: Path, tmp_path: Path, change: str, tiny_config: DepthConfig
) -> None:
    made(originals, teacher, tmp_path / "labels")
    other = teacher
    if change == "teacher":
        other = tmp_path / "other.safetensors"
        save_model(other, CompactTeacher(tiny_config), "compact-teacher")
    with pytest.raises(InputError, match="holds labels of another teacher, other frames or other options"):
        made(originals, other, tmp_path / "labels", seed=int(change == "seed"))


# ---------------------------------------------------------------- students


def distillation(originals: Shards, teacher: Path, folder: Path, model: str, config: DepthConfig) -> Distillation:
    weights = COMPACT_POINTS if model == "compact-pointmap" else COMPACT_WEIGHTS
    recipe = short_recipe(
        4, model, batch=2, shards=(originals.folder,), start="teacher", checkpoint_seconds=-1.0,
        config=json.dumps(dataclasses.asdict(config)), stages=(Stage(weights=weights),),
    )  # fmt: skip
    labels = Labelling(teacher=str(teacher), folder=folder, prompts=("uniform-100",), frames_per_shard=2)
    return Distillation(recipe, labels, real=0.25)


@pytest.mark.parametrize("model", ["compact-depthmap", "compact-pointmap"])
def test_killed_distillation_goes_on_where_it_was(
    originals: Shards, teacher: Path, tmp_path: Path, model: str, tiny_config: DepthConfig
) -> None:
    task = distillation(originals, teacher, tmp_path / "labels", model, tiny_config)
    whole = distill.run(task, tmp_path / "whole")
    record = read_json(tmp_path / "whole/recipe.json")
    assert record["data"]["weights"] == {"planes+teacher": 0.75, "planes": 0.25}
    child = os.fork()
    if not child:  # pragma: no cover
        distill.run(task, tmp_path / "killed", progress=lambda done, *_: time.sleep(0.2))
        os._exit(0)
    until = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("checkpoints/step-*/meta.json")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not (tmp_path / "killed/model.safetensors").exists()
    steps: list[int] = []
    again = distill.run(task, tmp_path / "killed", progress=lambda done, *_: steps.append(done))
    assert 0 < len(steps) < 4
    assert again.curve == whole.curve
    assert again.model.read_bytes() == whole.model.read_bytes()


def test_two_ranks_distil_as_one_does(originals: Shards, teacher: Path, tmp_path: Path) -> None:
    """The same labels in every byte, the same training up to rounding; killed while labelling and while training."""
    spec = {"do": "distil", "shards": str(originals.folder), "teacher": str(teacher), "steps": 4}
    assert launch(tmp_path / "one", [spec]) == [[0]]
    ways = [{"kill_label": True}, {"kill_step": 2}, {}]
    codes = launch(tmp_path / "two", [{**spec, "ranks": 2, **way} for way in ways])
    assert [-9 in run for run in codes] == [True, True, False]
    one, two = (content(tmp_path / name / "labels") for name in ("one", "two"))
    assert one == two
    curves = [read_curve(tmp_path / name) for name in ("one", "two")]
    assert [step for step, _ in curves[0]] == [step for step, _ in curves[1]] == [0, 1, 2, 3]
    np.testing.assert_allclose([loss for _, loss in curves[1]], [loss for _, loss in curves[0]], rtol=1e-4)


def test_shares_follow_the_users_weights(originals: Shards, teacher: Path, tmp_path: Path) -> None:
    labels = made(originals, teacher, tmp_path / "labels")
    data = dataclasses.replace(short_recipe(1).data, weights={"planes": 3.0})
    assert distill.shares(data, [labels], [originals], 0.4) == pytest.approx({"planes+teacher": 0.6, "planes": 0.4})
    with pytest.raises(InputError, match="no label is left to train on"):
        distill.shares(dataclasses.replace(data, weights={"moons": 1.0}), [labels], [], 0.0)


def test_exact_frames_are_learned_from_as_they_are(
    originals: Shards, make_frame: MakeFrame, make_shards: MakeShards, teacher: Path, tmp_path: Path
) -> None:
    """Rendered scenes: no label is made, their share follows the rule of all sources."""
    rendered = make_shards([make_frame(seed, kind="rendered", source="rooms") for seed in range(16)])
    recipe = short_recipe(1)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, shards=(originals.folder,)))
    labelling = Labelling(teacher=str(teacher), folder=tmp_path / "labels", prompts=("uniform-100",))
    made = distill.run(Distillation(recipe, labelling, exact=(rendered.folder,)), tmp_path / "run")
    assert made.model.is_file()
    labels = Shards(tmp_path / "labels" / f"{originals.folder.name}-labels")
    assert [p.name for p in (tmp_path / "labels").iterdir()] == [labels.folder.name]
    kept = len(labels.kept)
    shares = distill.shares(recipe.data, [labels, rendered], [], 0.0)
    assert shares["rooms"] / shares["planes+teacher"] == pytest.approx((16 / kept) ** 0.5)


PUBLISHED = {"depthmap": TINY_DEPTHMAP, "pointmap": TINY_POINTMAP}


def published(name: str, size: tuple[int, int], **changes: Any) -> Recipe:
    """A published layout, small."""
    config = json.dumps(dataclasses.asdict(PUBLISHED[name]))
    return short_recipe(8, name, batch=2, sizes=(size,), config=config, rate=1e-2, **changes)


def test_published_point_map_trains(make_frame: MakeFrame, make_shards: MakeShards, tmp_path: Path) -> None:
    shards = make_shards([make_frame(seed, 96, 128) for seed in range(2)])
    stages = (Stage(weights=PointWeights(samples=12, patches=(8, 8, 8), patch_samples=(6, 6, 6))),)
    recipe = published("pointmap", (96, 128), shards=(shards.folder,), stages=stages)
    losses = [loss for _, loss in pretrain.run(recipe, tmp_path / "run").curve]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert plan(recipe).step_flops > 0  # the same losses, on tensors without content


def test_published_depth_map_learns_in_all_its_parts(make_frame: MakeFrame, make_shards: MakeShards) -> None:
    recipe = published("depthmap", (1536, 1536))
    batch = Mixture(make_shards([make_frame(0, 96, 128)]), sizes=recipe.data.sizes, batch_size=1, seed=0).batch(0)
    network, task = pretrain.new_network(recipe), pretrain.task_of(recipe)
    terms = task.loss(network(*task.inputs(batch)), batch, DISTILL["depthmap"]().student.stages[0].weights)
    assert set(terms) == {"value", "mage", "male", "msge"}
    torch.stack(list(terms.values())).sum().backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent


def test_inverse_depth_is_the_truth_at_no_loss(make_frame: MakeFrame, make_shards: MakeShards) -> None:
    """In the sky, which is supervised, C is 0."""
    batch = Mixture(make_shards([make_frame(0)]), sizes=((32, 64),), batch_size=2, seed=0).batch(0)
    truth, weights = canonical(batch.depth_BHW, batch.focal_B), DISTILL["depthmap"]().student.stages[0].weights
    task = InverseDepthTask()
    assert torch.isinf(batch.depth_BHW).any()
    assert sum(task.loss((truth, None), batch, weights).values()) == 0
    assert task.loss((truth + torch.isinf(batch.depth_BHW)[:, None], None), batch, weights)["value"] > 0
    errors = task.errors((truth / 1.25, None), batch)
    np.testing.assert_allclose(errors["AbsRel"], [0.25] * 2, rtol=1e-4)
    np.testing.assert_allclose(errors["LogError"], [np.log(1.25)] * 2, rtol=1e-4)


def test_encoders_have_their_own_rate() -> None:
    """The published transformer is the encoder, not the projections beside it."""

    for name in ("depthmap", "pointmap"):
        network = get_spec(name).build(dataclasses.asdict(PUBLISHED[name]))
        built = optimiser.build(network, dataclasses.replace(DISTILL[f"finetune-{name}"]().student.optimiser))
        peaks = {id(p): group["peak"] for group in built.param_groups for p in group["params"]}
        assert {peaks[id(p)] for p in network.backbone.parameters()} == {1e-6}
        others = [p for n, p in network.named_parameters() if "backbone" not in n and "patch_encoder" not in n]
        assert {peaks[id(p)] for p in others} == {1e-5}


def test_fine_tuning_is_gentle() -> None:
    for name in ("pointmap", "finetune-depthmap", "finetune-pointmap"):
        student = DISTILL[name]().student
        assert student.optimiser.rate <= 1e-5
        assert student.optimiser.encoder_rate <= 1e-6
        assert student.batch * student.micro_batches >= 32
        assert student.start is not None


# ---------------------------------------------------------------- command line


def run_verb(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["distill", *arguments])
    return int(ended.value.code or 0)


def test_plan_says_what_will_be_done(originals: Shards, teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("compact-depthmap", "--plan", "--labels.teacher", str(teacher), "--data.shards", str(originals.folder))
    assert run_verb(*arguments) == 0
    said = capsys.readouterr().out
    assert f"label 7 kept frames of {originals.folder} into {originals.folder}-labels: not begun" in said
    assert "teacher: compact-teacher" in said
    assert "compact-depthmap: 6.4 M parameters" in said
    assert not Path(f"{originals.folder}-labels").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("compact",), "recipe 'compact' is unknown"),
        (("compact-depthmap",), "no --output folder given"),
        (("compact-depthmap", "-o", "RUN"), "no shards to label; add --data.shards"),
        (("compact-depthmap", "-o", "RUN", "--data.shards", "SHARDS"), "no teacher to make labels"),
        (
            ("compact-depthmap", "-o", "RUN", "--data.shards", "SHARDS", "--labels.teacher", "STUDENT"),
            "takes no prompt",
        ),
        (("compact-depthmap", "--labels.prompts", "nonsense"), "prompt pattern 'nonsense' is unknown"),
        (("compact-depthmap", "--real", "1.5"), "real must be at least 0"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], problem: str, originals: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    student = tmp_path / "student.safetensors"
    if "STUDENT" in arguments:
        save_model(student, get_spec("compact-depthmap").build(), "compact-depthmap")
    places = {"RUN": tmp_path / "run", "SHARDS": originals.folder, "STUDENT": student}
    assert run_verb(*(str(places.get(word, word)) for word in arguments)) == 2
    said = capsys.readouterr().err
    assert problem in said
    assert len(said.strip().splitlines()) == 1


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb() == 0
    said = capsys.readouterr().out
    assert all(name in said for name in DISTILL)
