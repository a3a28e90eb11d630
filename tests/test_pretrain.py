"""`metricanything pretrain`: recipes with every field an option, one obvious folder, clear words for bad input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import TINY
from runs import short_recipe

import metricanything as ma
from metricanything.cli import main
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.models.checkpoint import load_model
from metricanything.training import parallel, pretrain
from metricanything.training.recipe import Recipe, Stage
from metricanything.training.recipes import PRETRAIN

MakeFrame = Callable[..., Frame]


@pytest.fixture(scope="module")
def shards(make_frame: MakeFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from metricanything.curate.writing import write_shards

    folder = tmp_path_factory.mktemp("pretrain") / "shards"
    real = {"kind": "captured", "sensor": "rgbd", "source": "camera"}
    frames = [make_frame(0), make_frame(1), make_frame(2, name="camera/0", **real)]
    write_shards(frames, folder)
    return folder


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", *map(str, arguments)])
    return int(ended.value.code or 0)


def small(*more: object) -> list[object]:
    return ["compact-teacher", "--config", TINY, "--data.sizes", 32, 64, "--batch", 2, "--data.workers", 0, *more]


def test_from_shards_to_a_model(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--data.shards", shards, "--data.validation", shards, "--steps", 4, "--record.validate-every", 2]
    prompts = ["--prompts", "uniform-20=3", "lidar-8", "dropout=0", "--optimiser.rate", "1e-3"]
    assert call(*small(*options, *prompts, "-o", tmp_path / "run")) == 0
    assert "model.safetensors" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run/curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [0, 1, 2, 3]
    assert [set(row["validation"]) for row in rows if "validation" in row] == [{"AbsRel", "LogError"}] * 2
    assert list((tmp_path / "run/events").iterdir())
    recipe = json.loads((tmp_path / "run/recipe.json").read_text())
    assert recipe["optimiser"]["rate"] == 1e-3
    assert recipe["prompts"]["dropout"] == 0
    assert [weight for weight, _ in recipe["prompts"]["patterns"]] == [3, 1]
    record = load_model(tmp_path / "run/model.safetensors")[2]["record"]
    assert record["data"] == ["camera", "planes"]
    assert (record["steps"], record["images"], record["recipe"]["data"]["shards"]) == (4, 16, ["shards"])
    frame = Shards(shards).frame(0)
    assert np.isfinite(
        ma.load(tmp_path / "run/model.safetensors").predict(frame.image, camera=frame.camera).depth
    ).any()
    summary = json.loads((tmp_path / "run/run.json").read_text())
    assert summary["pairs"] == record["pairs"] == 3
    assert summary["metrics"] == rows[-1]["validation"]
    # Done already: the same command has nothing to do.
    assert call(*small(*options, *prompts, "-o", tmp_path / "run")) == 0


def test_pictures_reach_tensorboard(shards: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = short_recipe(
        2,
        config=TINY,
        batch=2,
        shards=(shards,),
        validation=(shards,),
        sizes=((32, 64),),
        validate_every=1,
        log_every=1,
    )
    pretrain.run(recipe, tmp_path)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert {"train/loss", "train/gradient norm", "terms/value", "validation/AbsRel"} <= set(events.Tags()["scalars"])
    (name,) = events.Tags()["images"]
    image = events.Images(name)[-1]
    assert (image.width, image.height) == (4 * 64, 2 * 32)


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0
    said = capsys.readouterr().out
    for name in PRETRAIN:
        assert name in said
    assert said.count("Command:") == len(PRETRAIN)
    assert said.count("Hardware") == len(PRETRAIN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mega-teacher"], "recipe 'mega-teacher' is unknown; use one of compact-teacher"),
        (["compact-teacher"], "no --output folder given; add -o RUN"),
        (["compact-teacher", "-o", "run"], "no shards to train on; add --data.shards FOLDER"),
        (["compact-teacher", "-o", "run", "--data.shards", "nowhere"], "nowhere"),
        (["compact-teacher", "--steps", "0"], "steps must be at least 1"),
        (["compact-teacher", "--data.sizes", "30", "64"], "multiples of 32"),
        (["compact-teacher", "--prompts", "lidr-8"], "lidr-8"),
        (["compact-teacher", "--prompts", "lidar-8=much"], "is a number, as in"),
        (["compact-teacher", "-o", "run", "--config", "{", "--data.shards", "SHARDS"], "not valid JSON"),
        (
            ["compact-teacher", "-o", "run", "--start", "gone.safetensors", "--data.shards", "SHARDS"],
            "gone.safetensors",
        ),
        (["compact-teacher", "--plan", "--utilisation", "0"], "between 0 and 1"),
        (["compact-teacher", "--stages.0.share", "0.5"], "sum to 1"),
        (["compact-teacher", "--plan", "--config", "{"], "not valid JSON"),
        (["compact-teacher", "--plan", "--config", "[]"], "must be a JSON object"),
        (["compact-teacher", "--data.sizes", "0", "0"], "multiples of 32"),
        (["compact-teacher", "--data.workers", "-1"], "data.workers must be at least 0"),
        (["compact-teacher", "--record.log-every", "0"], "record.log_every must be at least 1"),
        (["compact-teacher", "--record.keep", "0"], "record.keep must be at least 1"),
        (["compact-teacher", "--optimiser.betas", "0.9", "1.5"], "optimiser.betas must lie between 0 and 1"),
        (["compact-teacher", "--optimiser.clip", "nan"], "optimiser.clip must be at least 0"),
        (["compact-teacher", "-o", "run", "--data.shards", "SHARDS", "--data.weights", "mars", "1"], "camera, planes"),
        (["compact-teacher", "-o", "run", "--data.shards", "SHARDS", "--stages.0.kinds", "reconstructed"], "kinds rec"),
        (["compact-teacher", "-o", "taken", "--data.shards", "SHARDS"], "a file is in its way"),
        (["compact-teacher", "-o", "taken/run", "--data.shards", "SHARDS"], "a file is in its way"),
        (["compact-teacher", "--hardware.device", "cuda", "-o", "run", "--data.shards", "SHARDS"], "no CUDA device"),
    ],
)
def test_bad_input_has_one_clear_line(
    arguments: list[str],
    message: str,
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "no CUDA" in message and torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert call(*(a.replace("SHARDS", str(shards)) for a in arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_one_run_at_a_time(shards: Path, tmp_path: Path) -> None:
    recipe = short_recipe(1, config=TINY, batch=2, shards=(shards,), sizes=((32, 64),))
    with pretrain._alone(tmp_path), pytest.raises(InputError, match="another run is training here"):
        pretrain.run(recipe, tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    assert pretrain.run(recipe, tmp_path).model.is_file()


def test_a_refused_run_leaves_the_record_of_the_first(shards: Path, tmp_path: Path) -> None:
    recipe = short_recipe(1, config=TINY, batch=2, shards=(shards,), sizes=((32, 64),))
    pretrain.run(recipe, tmp_path)
    before = (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(InputError, match="another seed"):
        pretrain.run(dataclasses.replace(recipe, seed=1), tmp_path)
    assert (tmp_path / "recipe.json").read_bytes() == before


def test_weights_and_biases_are_asked_for_by_name(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metricanything.training import monitor

    monkeypatch.setattr(monitor, "find_spec", lambda name: None if name == "wandb" else object())
    recipe = short_recipe(1, config=TINY, batch=2, shards=(shards,), sizes=((32, 64),), wandb="project")
    with pytest.raises(InputError, match=r"--record\.wandb needs wandb; pip install wandb"):
        pretrain.run(recipe, tmp_path)


def test_every_weight_of_a_stage_counts(shards: Path, tmp_path: Path) -> None:
    """Normals get the rays that they need, the confidence what the network says of itself."""
    from metricanything.losses.combination import DepthWeights

    stages = (Stage(weights=DepthWeights(normals=0.1, confidence=1.0)),)
    recipe = short_recipe(1, config=TINY, batch=2, shards=(shards,), sizes=((32, 64),), stages=stages)
    pretrain.run(recipe, tmp_path)
    row = json.loads((tmp_path / "curve.jsonl").read_text())
    assert row["normals"] > 0
    assert "confidence" in row


def test_stages_take_their_kinds_and_weights(shards: Path, tmp_path: Path) -> None:
    """Two stages: all kinds, then rendered frames alone with gradient losses."""
    from metricanything.losses.combination import DepthWeights

    stages = (
        Stage(share=0.5, weights=DepthWeights(value=1.0)),
        Stage(share=0.5, kinds=("rendered",), weights=DepthWeights(value=1.0, mage=1.0, msge=1.0)),
    )
    recipe = short_recipe(4, config=TINY, batch=4, shards=(shards,), sizes=((32, 64),), stages=stages)
    assert recipe.stage_starts() == [0, 2, 4]
    with parallel.world(recipe.hardware) as world:
        engine = pretrain.assemble(recipe, tmp_path, world)
        seen = [(number, {s for batch in batches for s in batch.sources}) for number, batches in engine.batches(0)]
    assert [number for number, _ in seen] == [0, 1, 2, 3]
    assert "camera" in seen[0][1] | seen[1][1]
    assert seen[2][1] == seen[3][1] == {"planes"}
    pretrain.run(recipe, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert ["mage" in row for row in rows] == [False, False, True, True]


def test_starting_weights(shards: Path, tmp_path: Path) -> None:
    """A student takes what it shares with its teacher; a teacher of its own kind everything."""
    recipe = short_recipe(2, config=TINY, batch=2, shards=(shards,), sizes=((32, 64),))
    teacher = load_model(pretrain.run(recipe, tmp_path).model)[0].state_dict()
    start = str(tmp_path / "model.safetensors")
    same = pretrain.new_network(dataclasses.replace(recipe, start=start)).state_dict()
    assert all(torch.equal(same[name], value) for name, value in teacher.items())
    student = pretrain.new_network(dataclasses.replace(recipe, model="compact-depthmap", start=start))
    fresh = pretrain.new_network(dataclasses.replace(recipe, model="compact-depthmap"))
    assert torch.equal(student.encoder.stem.weight, teacher["encoder.stem.weight"])
    assert not torch.equal(student.encoder.stem.weight, fresh.encoder.stem.weight)


def test_every_field_is_explained() -> None:
    """Each is an option, whose help is the line under it."""
    import ast
    import inspect

    from metricanything.training import recipe as module

    tree = ast.parse(inspect.getsource(module))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name != "Recipe":
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                if isinstance(field, ast.AnnAssign):
                    assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)} has no explanation"


def test_recipes_are_plain_values() -> None:
    for name, function in PRETRAIN.items():
        plain = function().to_dict()
        assert json.loads(json.dumps(plain)) == plain
        assert name.startswith(plain["model"])
        identity = function().identity()
        assert "steps" not in identity
        assert "hardware" not in identity


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(InputError, match="sum to 1"):
        Recipe("compact-teacher", 10, stages=(Stage(share=0.6), Stage(share=0.6)))
