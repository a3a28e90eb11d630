"""The scaling law: known exponents come back inside their intervals, and what is no law is called so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from expectations import assert_refused

from metricanything import cli
from metricanything.core.codecs import read_image
from metricanything.evaluation.scaling import ScalingRun, fit_scaling, read_runs
from metricanything.evaluation.scaling_fit import fit_floor, fit_power
from metricanything.evaluation.scaling_report import scaling_markdown, write_scaling

SIZES = np.array([1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7])


def runs(
    b: float, c: float = 0.0, noise: float = 0.02, seed: int = 0, sizes: np.ndarray = SIZES, repeats: int = 1
) -> list[ScalingRun]:
    rng = np.random.default_rng(seed)
    pairs = np.repeat(sizes, repeats)
    errors = (0.3 * (pairs / 1e5) ** -b + c) * np.exp(noise * rng.standard_normal(len(pairs)))
    return [ScalingRun(float(n), float(e)) for n, e in zip(pairs, errors, strict=True)]


def as_arrays(found: list[ScalingRun]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r.pairs for r in found]), np.array([r.error for r in found])


class TestCurves:
    def test_exact_data_come_back_exactly(self) -> None:
        power = fit_power(*as_arrays(runs(0.3, noise=0)))
        assert (power.b, power.a) == pytest.approx((0.3, 0.3 * 1e5**0.3))
        floor = fit_floor(*as_arrays(runs(0.7, 0.04, noise=0)))
        assert (floor.b, floor.c, floor.a) == pytest.approx((0.7, 0.04, 0.3 * 1e5**0.7), rel=1e-4)

    def test_the_floor_form_is_never_worse(self) -> None:
        for seed in range(5):
            data = as_arrays(runs(0.2, 0.05, 0.1, seed))
            power, floor = fit_power(*data), fit_floor(*data)
            assert floor.residuals @ floor.residuals <= power.residuals @ power.residuals + 1e-12
            assert min(floor.amplitude, floor.b, floor.c) >= 0

    def test_rising_errors_give_no_negative_exponent(self) -> None:
        assert fit_power(np.array([1.0, 10, 100]), np.array([0.1, 0.2, 0.3])).b == 0


class TestCoverage:
    @pytest.mark.parametrize(("b", "c", "repeats"), [(0.4, 0.0, 1), (0.15, 0.0, 3), (0.5, 0.05, 1), (0.5, 0.05, 3)])
    def test_intervals_hold_the_exponent(self, b: float, c: float, repeats: int) -> None:
        """Of 95 % intervals, 24 seeds miss fewer than 6 (probability 0.1 %), and their width is of use."""
        fits = [fit_scaling(runs(b, c, seed=s, repeats=repeats), replicates=120, seed=s)[0] for s in range(24)]
        held = [f.b_interval[0] <= b <= f.b_interval[1] for f in fits if f.b_interval]
        assert len(held) == 24 and sum(held) >= 19
        assert np.median([f.b_interval[1] - f.b_interval[0] for f in fits if f.b_interval]) < 0.3
        assert sum(f.form == ("power+floor" if c else "power") for f in fits) >= 17
        assert all(f.supported for f in fits)

    def test_more_noise_widens_the_interval(self) -> None:
        widths = []
        for noise in (0.01, 0.05):
            low, high = fit_scaling(runs(0.4, noise=noise), replicates=300)[0].b_interval or (0, 0)
            widths.append(high - low)
        assert widths[1] > 2 * widths[0] > 0


class TestObjections:
    def test_few_sizes(self) -> None:
        fit = fit_scaling(runs(0.4, sizes=SIZES[:3], repeats=4))[0]
        assert not fit.supported and "only 3 sizes" in fit.objections[0]

    def test_no_fall(self) -> None:
        fit = fit_scaling(runs(0.0, noise=0.05, repeats=3))[0]
        assert not fit.supported and any("includes 0" in o for o in fit.objections)

    def test_a_rise(self) -> None:
        found = [ScalingRun(n, e) for n, e in ((1e5, 0.3), (1e6, 0.2), (1e7, 0.25), (1e8, 0.1), (1e9, 0.05))]
        assert any("rises from 1e+06 to 1e+07" in o for o in fit_scaling(found)[0].objections)

    def test_a_rise_within_the_noise_of_seeds_is_none(self) -> None:
        found = runs(0.4, repeats=3) + [ScalingRun(2.1e7, r.error * 1.001) for r in runs(0.4, repeats=3)[-3:]]
        assert fit_scaling(found)[0].supported

    def test_two_runs_have_no_interval(self) -> None:
        fit = fit_scaling(runs(0.4, sizes=SIZES[:2]))[0]
        assert fit.b_interval is None and not fit.supported

    def test_predictions_say_how_far_they_reach(self) -> None:
        near, far = fit_scaling(runs(0.4), predict=(6e7, 9e7))[0].extrapolations
        assert near.within_reach and not far.within_reach
        assert near.error == pytest.approx(0.3 * 600**-0.4, rel=0.05)
        assert near.interval is not None and near.interval[0] < near.error < near.interval[1]


def test_every_model_size_is_fitted_apart() -> None:
    small, big = runs(0.2, noise=0.001), runs(0.5, noise=0.001)
    found = [ScalingRun(r.pairs, r.error, 10_000_000) for r in small]
    found += [ScalingRun(r.pairs, r.error, 300_000_000) for r in big]
    pooled, first, second = fit_scaling(found)
    assert (first.b, second.b) == pytest.approx((0.2, 0.5), abs=0.01)
    assert first.group == "10 M parameters" and second.group == "300 M parameters"
    assert "different sizes" in pooled.notes[0] and pooled.spread > 10 * first.spread


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    found = runs(0.4, 0.05)
    for name in ("one", "two"):
        write_scaling(tmp_path / name, fit_scaling(found, predict=(4e7,), seed=3, replicates=100), found, "abs_rel")
    for file in ("scaling.json", "scaling.md", "scaling.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    first, other = (fit_scaling(found, seed=s, replicates=100)[0].b_interval for s in (3, 4))
    assert first != other


def test_the_words_say_what_is_not_supported() -> None:
    found = runs(0.4, sizes=SIZES[:3])
    text = scaling_markdown(fit_scaling(found, predict=(1e9,)), found, "abs_rel")
    assert "do not support a scaling law: only 3 sizes" in text and "not supported)" in text and "**no**" in text
    assert text.startswith("# Scaling of abs_rel ")
    assert scaling_markdown([], found, "delta1").startswith("# Scaling of 1 - delta1 ")


class TestReading:
    def test_forms(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"pairs": 100, "error": 0.5, "seed": 1}')
        (tmp_path / "b.json").write_text('[{"pairs": 200, "parameters": 3e6, "metrics": {"abs_rel": 0.4}}]')
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "c.json").write_text('{"pairs": 400, "error": {"abs_rel": 0.3, "delta1": 0.9}}')
        (tmp_path / "config.json").write_text('{"steps": 5}')
        found = read_runs([tmp_path, tmp_path / "a.json"])  # named twice, counted once
        assert found == [ScalingRun(100, 0.5), ScalingRun(200, 0.4, 3_000_000), ScalingRun(400, 0.3)]
        assert read_runs([tmp_path / "deep"], "delta1")[0].error == pytest.approx(0.1)

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ('{"pairs": 0, "error": 1}', "pairs must be a positive number"),
            ('{"pairs": 10, "error": -1}', "error must be a positive number"),
            ('{"pairs": 10, "error": true}', "error must be a positive number"),
            ('{"pairs": 10, "error": NaN}', "error must be a positive number"),
            ('{"pairs": "many", "error": 1}', "pairs must be"),
            ('{"pairs": 10}', "error must be"),
            ('{"pairs": 10, "error": {"rmse": 2}}', "states no 'abs_rel'; choose one of its metrics (rmse)"),
            ('{"pairs": 10, "error": 1, "parameters": -5}', "parameters must be"),
            ("[3]", "is no run"),
            ("{", "not valid JSON"),
        ],
    )
    def test_nonsense_is_refused_with_the_file(self, tmp_path: Path, text: str, word: str) -> None:
        (tmp_path / "run.json").write_text(text)
        assert_refused(lambda: read_runs([tmp_path / "run.json"]), "run.json", word)

    def test_folder_without_runs(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        assert_refused(lambda: read_runs([tmp_path]), str(tmp_path), "holds no run")

    def test_options_and_too_little_data(self) -> None:
        assert_refused(lambda: fit_scaling(runs(0.4, sizes=SIZES[:1], repeats=5)), "at least two numbers of pairs")
        assert_refused(lambda: fit_scaling([]), "at least two")
        assert_refused(lambda: fit_scaling(runs(0.4), replicates=5), "at least 100")
        assert_refused(lambda: fit_scaling(runs(0.4), predict=(-1.0,)), "positive")


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, run in enumerate(runs(0.4)):
        (tmp_path / f"{i}.json").write_text(json.dumps({"pairs": run.pairs, "error": run.error}))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["scaling", str(tmp_path), "-o", str(tmp_path / "out"), "--predict", "5e7", "--replicates", "100"])
    assert not stopped.value.code
    assert "ten times the data multiply the error by 0.4" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert record["fits"][0]["supported"] and record["fits"][0]["b"] == pytest.approx(0.4, abs=0.02)
    assert read_image(tmp_path / "out" / "scaling.png").shape[2] == 3
    with pytest.raises(SystemExit) as stopped:
        cli.main(["scaling", str(tmp_path / "none.json"), "-o", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "no such file" in capsys.readouterr().err
