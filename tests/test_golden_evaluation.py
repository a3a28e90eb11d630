"""A small evaluation on the bundled real frames guards every headline number: 1 % of change is a failure.

Guarded are the fast baselines and every model whose weights are bundled, as soon as they are. After a change that is
meant to move numbers: `python tests/test_golden_evaluation.py` writes them anew; look at the difference before you
commit it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metricanything
from metricanything import samples
from metricanything.evaluation.datasets import open_data
from metricanything.evaluation.measuring import ALL, UNPROMPTED, answers, make_case, measure
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.subjects import Answer, open_subject
from metricanything.inference.baselines import BASELINES, nearest
from metricanything.models.registry import MODELS, ModelSpec

GOLDEN = Path(__file__).parent / "golden_evaluation.json"
PROMPTED = ("ma-uniform-500", "ma-uniform-100", "ma-lidar-8", "ma-grid-16", "ma-uniform-500+outliers-5")
PROMPTLESS = ("ma-image",)
HEADLINES = ("abs_rel", "rmse", "delta1")
FAST = ("baseline:nearest", "baseline:linear", "baseline:idw", "baseline:morphological")
TOLERANCE = 0.01

Numbers = dict[str, dict[str, float]]


def bundled(weights: Path = Path(metricanything.__file__).parent / "weights") -> list[str]:
    """The names of all models whose weights lie in the package."""
    return sorted(file.stem for file in weights.glob("*.safetensors"))


def protocols_of(name: str) -> tuple[str, ...]:
    prompted = name in FAST or MODELS[name].task == "prompted-depth"
    return PROMPTED if prompted else PROMPTLESS


def measured(name: str, protocols: tuple[str, ...]) -> Numbers:
    """Headline numbers of one subject by protocol, over the held-out samples, without prompted pixels."""
    subject, data = open_subject(name, device="cpu"), open_data(samples.path("heldout"), fov_x=60)
    found: Numbers = {}
    for protocol in (PROTOCOLS[p] for p in protocols):
        rows = []
        for number in range(len(data)):
            case = make_case(protocol, data.load(number))
            (answer,) = answers(subject, [case])
            assert isinstance(answer, Answer), answer
            rows.append(measure(protocol, case, answer)["regions"][UNPROMPTED if protocol.prompted else ALL]["values"])
        found[protocol.name] = {m: float(f"{np.mean([row[m] for row in rows]):.6g}") for m in HEADLINES}
    return found


def moved(old: Numbers, new: Numbers) -> list[str]:
    """Every headline number that changed by more than the tolerance, or is there only once, with both values."""
    lines = []
    for protocol in sorted({*old, *new}):
        for metric in HEADLINES:
            before, now = (numbers.get(protocol, {}).get(metric) for numbers in (old, new))
            if before is None or now is None or not abs(now - before) <= TOLERANCE * abs(before):
                lines.append(f"{protocol} {metric}: {before} -> {now}")
    return lines


def guard(name: str, golden: dict[str, Any], new: Numbers) -> None:
    assert name in golden, f"{name} is bundled but has no golden numbers; run python tests/{Path(__file__).name}"
    lines = moved(golden[name], new)
    assert not lines, f"{name} moved by more than {TOLERANCE:.0%}:\n" + "\n".join(lines)


@pytest.mark.parametrize("name", [*FAST, *bundled()])
def test_headline_numbers_are_what_they_were(name: str) -> None:
    guard(name, json.loads(GOLDEN.read_text()), measured(name, protocols_of(name)))


def test_golden_numbers_are_of_what_is_there() -> None:
    assert set(json.loads(GOLDEN.read_text())) == {*FAST, *bundled()}


# ---------------------------------------------------------------- the guard itself


def test_a_change_of_more_than_a_percent_is_said_with_both_values() -> None:
    old: Numbers = {"p": {"abs_rel": 0.1, "rmse": 2.0, "delta1": 0.9}}
    guard("m", {"m": old}, {"p": {"abs_rel": 0.10099, "rmse": 1.981, "delta1": 0.9}})
    for metric, value in (("abs_rel", 0.1011), ("rmse", 1.97), ("delta1", 0.92), ("delta1", float("nan"))):
        with pytest.raises(AssertionError, match=rf"p {metric}: {old['p'][metric]} -> {value}"):
            guard("m", {"m": old}, {"p": {**old["p"], metric: value}})
    with pytest.raises(AssertionError, match=r"p rmse: 2\.0 -> None"):
        guard("m", {"m": old}, {})


def test_a_planted_change_of_a_baseline_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = json.loads(GOLDEN.read_text())
    shrunk = replace(BASELINES["nearest"], function=lambda *points: np.float32(0.98) * nearest(*points))
    monkeypatch.setitem(BASELINES, "nearest", shrunk)
    new = measured("baseline:nearest", ("ma-grid-16",))
    value = golden["baseline:nearest"]["ma-grid-16"]["abs_rel"]
    with pytest.raises(AssertionError, match=rf"ma-grid-16 abs_rel: {value} -> 0\.0"):
        guard("baseline:nearest", golden, {**golden["baseline:nearest"], **new})


def test_a_bundled_model_is_guarded_from_its_first_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluate_fixtures import small_teacher

    monkeypatch.setattr(ModelSpec, "weights_path", lambda self: tmp_path / f"{self.name}.safetensors")
    small_teacher(tmp_path / "compact-teacher.safetensors")
    assert bundled(tmp_path) == ["compact-teacher"]
    new = measured("compact-teacher", ("ma-grid-16",))
    with pytest.raises(AssertionError, match="compact-teacher is bundled but has no golden numbers"):
        guard("compact-teacher", {}, new)
    guard("compact-teacher", {"compact-teacher": new}, measured("compact-teacher", ("ma-grid-16",)))


if __name__ == "__main__":
    everything = {name: measured(name, protocols_of(name)) for name in (*FAST, *bundled())}
    GOLDEN.write_text(json.dumps(everything, indent=2) + "\n")
