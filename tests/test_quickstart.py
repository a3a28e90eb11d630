"""The quickstart on a tiny budget: every stage, going on after an interruption, and a page of this run's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import metricanything
from metricanything.core.errors import InputError
from metricanything.core.files import read_json
from metricanything.curate.shards import Shards
from metricanything.inference.baselines import prompt_only
from metricanything.quickstart import Bar, Settings, measure, run, stages

TINY = Settings(scenes=6, teacher_steps=6, student_steps=2)


class Interrupted(Exception):
    """Stands for Ctrl-C in the middle of a stage."""


class Bars:
    """Records progress; raises in the stage whose description starts with `stop` once `after` items are done."""

    def __init__(self, stop: str = "nothing", after: int = 0) -> None:
        self.stop, self.after, self.seen = stop, after, []  # type: ignore[var-annotated]

    @contextmanager
    def __call__(self, description: str, total: int | None, unit: str) -> Iterator[Bar]:
        self.seen.append(description)

        def bar(done: int, detail: str = "", total: int | None = None) -> None:
            if description.startswith(self.stop) and done >= self.after:
                raise Interrupted(description)

        yield bar


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted once in every stage and gone on with."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    for stop, after in (("1", 4), ("2", 3), ("3 label", 2), ("3 distil point", 1), ("4", 2), ("5", 1)):
        bars = Bars(stop, after)
        with pytest.raises(Interrupted):
            run(folder, TINY, bars)
        assert bars.seen[-1].startswith(stop)
    run(folder, TINY, Bars())
    return folder


def test_all_families_are_aggregated(finished: Path) -> None:
    shards = Shards(finished / "shards")
    assert set(shards.kinds()) == {"reconstructed", "captured", "rendered"}
    assert shards.kinds().count("rendered") == TINY.scenes
    sensors = {shards.frame(i).sensor for i in range(len(shards))}
    assert {"sfm", "lidar", "rgbd", "synthetic"} <= sensors


def test_heldout_sources_are_not_trained_on(finished: Path) -> None:
    trained = set(Shards(finished / "shards").sources())
    assert not trained & {frame.source for frame in measure.heldout()}


def test_labels_are_the_teachers_and_dense(finished: Path) -> None:
    shards, labels = Shards(finished / "shards"), Shards(finished / "shards-labels")
    assert len(labels) == len(shards)
    for i in range(len(labels)):
        frame = labels.frame(i)
        assert frame.name == shards.frame(i).name
        assert not np.isnan(frame.depth).any()
        assert frame.notes["pseudo_label"]["teacher"]["model"] == "compact-teacher"


def test_models_load_and_predict(finished: Path) -> None:
    frame = measure.heldout()[0]
    for name in ("compact-teacher", "compact-depthmap", "compact-pointmap"):
        model = metricanything.load(finished / "models" / f"{name}.safetensors")
        assert model.predict(frame.image, camera=frame.camera).depth.shape == frame.depth.shape


def test_results_cover_every_method_and_pattern(finished: Path) -> None:
    results = read_json(finished / "results.json")
    methods = {measure.TEACHER, measure.UNTRAINED, *prompt_only()}
    dense = [f.name for f in measure.heldout() if f.sensor != "tof"]
    assert len(dense) >= 4
    seen = {(r["frame"], r["pattern"], r["method"]) for r in results["prompted"]}
    assert seen >= {(f, p, m) for f in dense for p in measure.PATTERNS for m in methods}
    assert all(np.isfinite(r["abs_rel"]) and 0 <= r["delta1"] <= 1 for r in results["prompted"])


def test_a_number_of_the_page_is_what_the_saved_model_gives(finished: Path) -> None:
    frame = measure.heldout()[0]
    prompt = measure.prompts_of(frame, 0, TINY.seed)["lidar-8"]
    model = metricanything.load(finished / "models" / "compact-teacher.safetensors", device="cpu")
    depth = model.predict(frame.image, prompt=prompt, camera=frame.camera).depth.astype(np.float64)
    known = np.isfinite(frame.depth) & np.isnan(prompt.rasterise(frame.height, frame.width))
    error = np.mean(np.abs(depth[known] - frame.depth[known]) / frame.depth[known])
    rows = read_json(finished / "results.json")["prompted"]
    stored = next(r for r in rows if (r["frame"], r["pattern"], r["method"]) == (frame.name, "lidar-8", "teacher"))
    assert stored["abs_rel"] == pytest.approx(error, rel=1e-5)
    assert stored["points"] == len(prompt)


def test_the_page_is_self_contained_and_honest(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for text in ("Aggregation", "AbsRel", "linear", "untrained teacher", "phone ToF", "constant guess"):
        assert text in page
    assert 'src="http' not in page
    rows = read_json(finished / "results.json")["prompted"]
    ours = measure.mean_of(rows, "abs_rel", method=measure.TEACHER, pattern="uniform-500")
    best = min(measure.mean_of(rows, "abs_rel", method=b, pattern="uniform-500") for b in prompt_only())
    wins, loses = "beats the best baseline on", "loses to the best baseline on"
    verdict = page[page.find(wins) :].split("</p>")[0] if wins in page else ""
    won_part = verdict.split(loses)[0]
    assert ("uniform-500" in won_part) == (ours < best)
    assert f"{100 * ours:.2f} %" in page


def test_a_finished_run_is_left_alone(finished: Path) -> None:
    before = {
        p: p.stat().st_mtime_ns
        for p in finished.rglob("*")
        if p.is_file() and p.name not in ("quickstart.json", ".lock")
    }
    bars = Bars()
    run(finished, TINY, bars)
    assert bars.seen == []
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_interrupted_training_gives_the_same_model(finished: Path, tmp_path: Path) -> None:
    """The run that was interrupted in every stage equals one that was not, up to the labels' batches."""
    this = run_stages(tmp_path / "run", ["aggregate", "pretrain"])
    ours = (finished / "shards" / "shard-000000.tar").read_bytes()
    assert ours == (this / "shards" / "shard-000000.tar").read_bytes()
    assert json.loads((finished / "curves" / "compact-teacher.json").read_text()) == json.loads(
        (this / "curves" / "compact-teacher.json").read_text()
    )


def run_stages(folder: Path, names: list[str]) -> Path:
    from metricanything.quickstart import Run

    this = Run(folder, TINY, Bars())
    for name in names:
        stages.STAGES[name](this)
    return folder


def test_other_settings_and_foreign_folders_are_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other settings"):
        run(finished, Settings(scenes=7, teacher_steps=6, student_steps=2), Bars())
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(InputError, match="not a quickstart run"):
            run(tmp_path, TINY, Bars(), fresh=fresh)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    "wrong", [{"scenes": 0}, {"teacher_steps": 0}, {"student_steps": -1}, {"seed": -1}, {"seed": 2**32}]
)
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError):
        Settings(**wrong)


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run(tmp_path / "file", TINY, Bars())


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    """The second starts while the first is at work, as seen from its progress display."""
    second: list[str] = []

    class Nosy(Bars):
        @contextmanager
        def __call__(self, description: str, total: int | None, unit: str) -> Iterator[Bar]:
            with pytest.raises(InputError, match="another quickstart is running") as refused:
                run(tmp_path / "run", TINY, Bars())
            second.append(str(refused.value))
            raise Interrupted
            yield

    with pytest.raises(Interrupted):
        run(tmp_path / "run", TINY, Nosy())
    assert len(second) == 1


def test_fresh_replaces_a_run_and_seconds_add_up(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for fresh in (False, False, True):
        with pytest.raises(Interrupted):
            run(folder, TINY, Bars("1", 0), fresh=fresh)
        state = read_json(folder / "quickstart.json")
        assert state["done"] == []
        assert "aggregate" in state["seconds"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_command_line_takes_flags_as_it_tells(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metricanything import cli

    def code(*arguments: str) -> int:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["quickstart", "-o", str(finished), *arguments])
        return int(stopped.value.code or 0)

    tiny = ("--scenes", "6", "--teacher-steps", "6", "--student-steps", "2")
    assert code(*tiny) == 0
    assert "finished already" in capsys.readouterr().out
    assert code("--scenes", "9") == 2
    assert "--fresh" in capsys.readouterr().err
    assert code("--fresh", "--seed", "-1") == 2  # parsed as a flag; refused before anything is deleted
    assert (finished / "report.html").exists()


def test_without_pycolmap_the_reconstruction_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "colmap_hospital" in measure.training_samples()
    monkeypatch.setattr(measure, "find_spec", lambda name: None)
    assert "colmap_hospital" not in measure.training_samples()
