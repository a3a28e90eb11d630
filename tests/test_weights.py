"""What is promised of the bundled weights besides their golden numbers: size, card, terms, and never to be harmful."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_golden_evaluation import bundled

import metricanything
from metricanything import samples
from metricanything.cli import main
from metricanything.evaluation.metrics import abs_rel
from metricanything.inference.predictor import load
from metricanything.models.checkpoint import describe
from metricanything.models.registry import COMPACT, get_spec
from metricanything.patterns import draw_prompt
from metricanything.sources import read

every_bundled = pytest.mark.parametrize("name", bundled())


def test_all_compact_models_are_bundled() -> None:
    assert bundled() == sorted(COMPACT)


@every_bundled
def test_weights_are_small_and_say_where_they_come_from(name: str) -> None:
    path = get_spec(name).weights_path()
    description = describe(path)
    record = description["record"]
    assert path.stat().st_size <= 16e6
    assert description["model"] == name
    assert "research" in record["licence"]
    assert record["steps"] > 1000
    assert len(record["data"]) >= 6
    assert not re.search(r'"/|\.\./', json.dumps(record))  # no path of the machine that trained it


@every_bundled
def test_card_has_the_numbers_of_the_weights(name: str) -> None:
    path = get_spec(name).weights_path()
    card, errors = path.with_suffix(".md").read_text(encoding="utf-8"), describe(path)["record"]["abs_rel"]
    assert errors
    for protocol, value in errors.items():
        row = next(line for line in card.splitlines() if line.startswith(f"| `{protocol}` |"))
        assert f"| {100 * value:.2f} |" in row
    for heading in ("## Data", "## Training", "## Limits", "**Terms of the weights: non-commercial research alone**"):
        assert heading in card


def test_models_lists_size_terms_numbers_and_card(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["models"])
    printed = capsys.readouterr().out
    for name in bundled():
        path = get_spec(name).weights_path()
        assert f"weights: {path.stat().st_size / 1e6:.1f} MB; non-commercial research" in printed
        assert f"card: {path.with_suffix('.md')}" in printed
    assert printed.count("AbsRel: ") == len(bundled())


def test_the_package_contains_weights_and_cards() -> None:
    """What hatch packs is what lies in the folder and git does not ignore."""
    folder = Path(metricanything.__file__).parent / "weights"
    assert {file.suffix for file in folder.iterdir()} == {".safetensors", ".md"}


def test_more_points_never_hurt() -> None:
    """Mean over the dense held-out photographs: 100, 500 and 2,000 points, each with less error than before."""
    model = load("compact-teacher", device="cpu")
    frames = [frame for frame in read("folder", samples.path("heldout")) if frame.sensor != "tof"]
    means = []
    for points in (100, 500, 2000):
        errors = []
        for seed, frame in enumerate(frames):
            prompt = draw_prompt(frame.depth, f"uniform-{points}", seed)
            depth = model.predict(frame.image, prompt=prompt, camera=frame.camera).depth
            errors.append(abs_rel(depth, frame.depth, np.isnan(prompt.rasterise(frame.height, frame.width))))
        means.append(np.mean(errors))
    assert means[0] > means[1] > means[2]
