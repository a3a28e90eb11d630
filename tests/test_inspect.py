"""The report on shards, and judging them again: what they say, what they leave alone, and every mistake in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import error_line, run
from test_quality import boxes
from test_report import Page

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.report_format import Numbering
from metricanything.curate.collection import Collection
from metricanything.curate.deciding import decide_again
from metricanything.curate.histograms import histogram
from metricanything.curate.index import INDEX
from metricanything.curate.inspection import write_inspection
from metricanything.curate.quality import measure
from metricanything.curate.rules import decide, default_rules, read_rules
from metricanything.curate.shards import Shards
from metricanything.curate.writing import Curation, write_shards

CURATION = Curation(measure, decide)
Write = Callable[..., Path]


def sequence(count: int, source: str, first: int = 0, **given: Any) -> list[Frame]:
    """Frames of one source."""
    return [
        replace(boxes(first + i, height=120, width=160), name=f"{source}/{i}", source=source, **given)
        for i in range(count)
    ]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Frames, and the name of a folder -> the folder with their shards."""

    def make(frames: list[Frame], name: str, curation: Curation | None = CURATION) -> Path:
        write_shards(frames, tmp_path / name, curation=curation, frames_per_shard=4)
        return tmp_path / name

    return make


@pytest.fixture
def faulty(write: Write) -> Path:
    """Two sources of seven frames, one with a frame in millimetres, the other with frozen depth."""
    first, second = sequence(7, "rooms"), sequence(7, "streets", 20, licence="CC BY <4.0>", sensor="rgbd")
    first[3] = replace(first[3], depth=first[3].depth * np.float32(1000))
    second[5] = replace(second[5], depth=second[4].depth)
    return write([*first, *second], "train")


def report(folder: Path | list[Path], path: Path, **options: Any) -> Page:
    """The report, checked for being well-formed and complete in itself."""
    write_inspection(path, folder if isinstance(folder, list) else [folder], **options)
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    return page


def text_of(page: Page) -> str:
    return " ".join(text for _, text in page.texts)


def test_the_report_counts_and_says_why(faulty: Path, tmp_path: Path) -> None:
    text = text_of(report(faulty, tmp_path / "r.html"))
    for word in ("rooms", "streets", "CC BY <4.0>", "pinhole", "synthetic", "depth-too-far", "frozen-depth"):
        assert word in text, word
    assert "rooms: rooms/3" in text and "streets: streets/5" in text  # both stand in the gallery with their reason
    assert "No image occurs in two sources." in text


def test_the_galleries_grow_with_examples_alone(write: Write, tmp_path: Path) -> None:
    frames = [replace(f, depth=f.depth * np.float32(1000)) for f in sequence(12, "rooms")]
    folder = write(frames, "bad")
    drawn: list[int] = []
    report(folder, tmp_path / "few.html", examples=1, progress=lambda: drawn.append(1))
    few = len(drawn)
    report(folder, tmp_path / "many.html", examples=4, progress=lambda: drawn.append(1))
    # All are put aside for one reason, so that there are none typical and none best.
    assert few == 1 and len(drawn) - few == 4


def test_leaks_between_folders_are_listed(write: Write, tmp_path: Path) -> None:
    train = write(sequence(6, "rooms"), "train")
    test = write([*sequence(2, "tests", 4), *sequence(3, "tests2", 60)], "test")
    text = text_of(report([train, test], tmp_path / "r.html"))
    assert "Images that occur in two folders" in text
    assert any(f"rooms/{4 + i}" in text and f"tests/{i}" in text for i in (0, 1))
    apart = write(sequence(3, "far", 80), "apart")
    assert "No image occurs in two folders." in text_of(report([train, apart], tmp_path / "r2.html"))


def test_shards_without_measurements_have_a_report_too(write: Write, tmp_path: Path) -> None:
    folder = write(sequence(3, "rooms"), "plain", None)
    text = text_of(report(folder, tmp_path / "r.html"))
    assert "without measuring quality" in text and "without hashes" in text


def test_sparse_and_empty_depth_and_sky_can_be_drawn(write: Write, tmp_path: Path) -> None:
    frames = sequence(3, "rooms")
    sparse = np.full_like(frames[0].depth, np.nan)
    sparse[::5, ::3] = 4.0
    depths = [sparse, np.full_like(sparse, np.nan), np.full_like(sparse, np.inf)]
    folder = write([replace(f, depth=d) for f, d in zip(frames, depths, strict=True)], "odd")
    assert "nearly-empty" in text_of(report(folder, tmp_path / "r.html"))


def test_a_collection_is_its_folders_one_after_the_other(write: Write) -> None:
    folders = [write(sequence(3, "b"), "one"), write(sequence(5, "a", 9), "two")]
    data, parts = Collection(folders), [Shards(f) for f in folders]
    codes, texts = data.coded("source")
    assert [texts[c] for c in codes] == ["b"] * 3 + ["a"] * 5
    assert list(data.folder_of(np.arange(8))) == [0] * 3 + [1] * 5
    assert np.array_equal(data["q_outliers"], np.concatenate([p.column("q_outliers") for p in parts]))
    assert [data.name(i) for i in range(8)] == [f.name for p in parts for f in map(p.frame, range(len(p)))]
    assert np.array_equal(data.frame(4).image, parts[1].frame(1).image)
    assert "q_none" not in data and data.get("q_none") is None
    with pytest.raises(InputError, match="twice"):
        Collection([folders[0], folders[0]])


# ---------------------------------------------------------------- judging again


def test_edited_rules_change_the_index_and_nothing_else(faulty: Path, tmp_path: Path) -> None:
    tars = {p.name: p.read_bytes() for p in faulty.glob("*.tar")}
    before = Shards(faulty)
    names, kept = [before.name(i) for i in range(len(before))], list(before.kept)
    assert len(kept) == 12
    rules = tmp_path / "rules.toml"
    rules.write_text('[frozen]\ntest = "frozen"\ndistance = 6\n')
    assert run("curate", faulty, "--rules", rules) == 0
    after = Shards(faulty)
    assert [after.name(i) for i in range(len(after)) if i not in after.kept] == ["streets/5"]
    assert list(after.column("reasons")) == ["frozen" if name == "streets/5" else "" for name in names]
    assert {p.name: p.read_bytes() for p in faulty.glob("*.tar")} == tars
    assert run("curate", faulty) == 0
    assert list(Shards(faulty).kept) == kept


def test_a_dry_run_says_what_it_would_do(faulty: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    index = (faulty / INDEX).read_bytes()
    rules = tmp_path / "rules.toml"
    rules.write_text('[all]\ntest = "range"\ncolumn = "valid"\nabove = 0.0\n')
    assert run("curate", faulty, "--rules", rules, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "0 of 14 frames kept, 12 before" in out and "all: 14" in out
    assert (faulty / INDEX).read_bytes() == index


def test_without_shards_the_rules_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("curate") == 0
    assert capsys.readouterr().out == default_rules()


def test_an_interrupted_decision_leaves_the_old_one(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = (faulty / INDEX).read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("metricanything.core.files.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        decide_again(faulty, read_rules())
    assert (faulty / INDEX).read_bytes() == index and len(list(faulty.glob(".*"))) == 0


# ---------------------------------------------------------------- mistakes


def test_mistakes_get_one_line(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = write(sequence(2, "rooms"), "plain", None)
    cases = [
        (("inspect", tmp_path / "none", "-o", tmp_path / "r.html"), "none"),
        (("inspect", plain, "-o", tmp_path / "r.pdf"), "ends in .html"),
        (("inspect", plain, plain, "-o", tmp_path / "r.html"), "twice"),
        (("inspect", "-o", tmp_path / "r.html"), "no shard folder"),
        (("inspect", plain, "-o", tmp_path / "r.html", "--examples", 0), "at least 1"),
        (("curate", plain), "ingest them again"),
        (("curate", tmp_path / "none"), "not a shard folder"),
        (("curate", plain, "--rules", tmp_path / "no.toml"), "cannot be read"),
    ]
    for arguments, said in cases:
        assert run(*arguments) == 2, arguments
        assert said in error_line(capsys)
    assert not (tmp_path / "r.html").exists()


def test_a_damaged_shard_is_named(faulty: Path, tmp_path: Path) -> None:
    path = faulty / "shard-000000.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"shard-000000\.tar"):
        write_inspection(tmp_path / "r.html", [faulty])
    assert not (tmp_path / "r.html").exists()


# ---------------------------------------------------------------- histograms


def test_a_histogram_is_of_shares_and_leaves_nothing_out() -> None:
    values = np.concatenate([np.full(30, 2.0), np.full(10, 8.0), [np.nan] * 5]).astype(np.float32)
    chart = histogram(values, [("a", np.arange(30)), ("b", np.arange(30, 45))], "depth", log=True)
    assert chart is not None and [name for name, _, _ in chart.series] == ["a", "b"]
    for _, x, y in chart.series:
        assert np.max(y) == 100 and np.sum(np.asarray(y)[1:-1:2]) == pytest.approx(100)
        assert np.all(np.diff(np.asarray(x)) >= 0)


def test_many_groups_share_a_line_and_constants_can_be_drawn() -> None:
    groups = [(f"g{i}", np.arange(3 * i, 3 * i + 3)) for i in range(12)]
    for value in (0.0, 1.0, -3.0):
        chart = histogram(np.full(36, value), groups, "x", log=False)
        assert chart is not None and len(chart.series) == 8 and chart.series[-1][0] == "others"
        assert chart.html(Numbering())
    assert histogram(np.full(36, np.nan), groups, "x", log=False) is None
    assert histogram(np.zeros(36), groups, "x", log=True) is None
