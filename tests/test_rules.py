"""Rules: what each puts aside and what it leaves, and how their file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricanything.core.errors import InputError
from metricanything.curate.rules import decide, default_rules, read_rules

Columns = dict[str, np.ndarray]


def good(count: int = 40, seed: int = 0, source: str = "rooms") -> Columns:
    """Columns of a source without faults."""
    rng = np.random.default_rng(seed)

    def near(value: float, spread: float) -> np.ndarray:
        return (value + spread * rng.uniform(-1, 1, count)).astype(np.float32)

    return {
        "name": np.array([f"{source}/{i:03d}" for i in range(count)]),
        "source": np.full(count, source),
        "scale": np.full(count, "metric"),
        "width": np.full(count, 640, np.uint32),
        "height": np.full(count, 480, np.uint32),
        "fx": np.full(count, 525, np.float32),
        "valid": near(0.8, 0.1),
        "depth_p50": near(2.5, 1.0),
        "hash": rng.integers(1, 2**64, count, dtype=np.uint64),
        "depth_hash": rng.integers(1, 2**64, count, dtype=np.uint64),
        "q_clipped": near(0.05, 0.02),
        "q_sharpness": near(0.2, 0.05),
        "q_edge_dx": rng.choice([-2.0, 0.0, 0.0, 2.0], count).astype(np.float32),
        "q_edge_dy": np.zeros(count, np.float32),
        "q_edge_peak": near(0.8, 0.2),
        "q_edge_margin": near(1.3, 0.2),
        "q_outliers": near(0.004, 0.003),
        "q_aspect": np.ones(count, np.float32),
        "q_centre_x": np.full(count, 0.499, np.float32),
        "q_centre_y": np.full(count, 0.502, np.float32),
        "q_view_depth": np.full(count, np.nan, np.float32),
    }


def together(*parts: Columns) -> Columns:
    """Columns one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def reasons(columns: Columns) -> list[str]:
    """The reasons, after a check that they and `kept` say the same."""
    kept, texts = decide(columns)
    assert kept.dtype == bool and list(kept) == [text == "" for text in texts]
    return [str(text) for text in texts]


def only(number: int, reason: str, count: int = 40) -> list[str]:
    """`reason` for one frame, none for the others."""
    return [reason if i == number else "" for i in range(count)]


def test_nothing_is_put_aside_without_a_fault() -> None:
    assert set(reasons(together(good(), good(17, 1, "streets")))) == {""}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("depth_p50", 0.002, "depth-too-near;depth-unlike-source"),
        ("depth_p50", 2500, "depth-too-far;depth-unlike-source"),
        ("valid", 0.0001, "nearly-empty"),
        ("q_outliers", 0.12, "outliers"),
        ("q_clipped", 0.97, "dark-or-burnt"),
        ("q_sharpness", 0.01, "blurred"),
        ("q_edge_margin", 0.8, "edges-misplaced"),
        ("q_aspect", 1.3, "pixels-not-square"),
        ("q_view_depth", 0.2, "views-disagree"),
        ("fx", 630, "focal-unlike-source"),
    ],
)
def test_each_measurement_has_its_rule(column: str, value: float, reason: str) -> None:
    columns = good()
    columns[column][7] = value
    assert reasons(columns) == only(7, reason)


def test_what_is_not_known_puts_nothing_aside() -> None:
    columns = good()
    for name, values in columns.items():
        if values.dtype == np.float32:
            columns[name] = np.full_like(values, np.nan)
    columns["hash"], columns["depth_hash"] = np.zeros(40, np.uint64), np.zeros(40, np.uint64)
    assert set(reasons(columns)) == {""}


def test_sources_without_scale_are_compared_with_themselves() -> None:
    columns = good()
    columns["scale"][:] = "up_to_scale"
    columns["depth_p50"] *= 1e-3
    assert set(reasons(columns)) == {""}
    columns["depth_p50"][3] *= 1000
    assert reasons(columns) == only(3, "depth-unlike-source")


def test_an_image_of_another_scene_has_a_low_peak_and_no_margin() -> None:
    columns = good()
    columns["q_edge_peak"][5] = columns["q_edge_peak"][6] = 0.2
    columns["q_edge_margin"][5] = 1.0
    assert reasons(columns) == only(5, "edges-missing")


def test_a_source_with_a_small_shift_is_compared_with_that_shift() -> None:
    columns = good()
    columns["q_edge_dx"] += 4
    columns["q_edge_margin"][:] = 0.9  # they fit better four pixels away, as the whole source does
    assert set(reasons(columns)) == {""}
    columns["q_edge_dy"][9] = 8
    assert reasons(columns) == only(9, "edges-misplaced")


def test_a_source_with_a_large_shift_is_put_aside_as_a_whole() -> None:
    columns = together(good(), good(30, 1, "other"))
    columns["q_edge_dy"][:40] = -8
    found = reasons(columns)
    assert all("source-misregistered" in text for text in found[:40]) and set(found[40:]) == {""}


def test_several_cameras_and_zooms_are_no_fault() -> None:
    rig = together(*(good(4, camera) for camera in range(6)))
    for camera in range(6):
        rows = slice(4 * camera, 4 * camera + 4)
        rig["fx"][rows], rig["q_centre_x"][rows] = 500 + 200 * camera, 0.48 + 0.01 * camera
    assert set(reasons(rig)) == {""}
    rig["fx"][9] *= np.float32(1.2)
    assert reasons(rig) == only(9, "focal-unlike-source", 24)
    zoom = good()
    zoom["fx"] = np.linspace(500, 1500, 40, dtype=np.float32)
    assert set(reasons(zoom)) == {""}


def test_of_frozen_depth_the_first_frame_stays() -> None:
    columns = good()
    columns["depth_hash"][[12, 13, 30]] = columns["depth_hash"][11]
    found = reasons(columns)
    assert [i for i, text in enumerate(found) if text] == [12, 13, 30]
    assert {text for text in found if text} == {"frozen-depth"}


def test_equal_depth_below_the_same_image_is_a_duplicate() -> None:
    columns = good()
    columns["depth_hash"][20], columns["hash"][20] = columns["depth_hash"][4], columns["hash"][4] ^ np.uint64(5)
    assert reasons(columns) == only(20, "duplicate")


def test_equal_depth_in_another_source_is_no_fault() -> None:
    columns = together(good(), good(40, 0, "copy"))
    assert set(reasons(columns)) == {""}


def test_of_an_image_with_two_depths_the_better_fitting_stays() -> None:
    columns = good()
    columns["hash"][25], columns["depth_p50"][25] = columns["hash"][8], 2 * columns["depth_p50"][8]
    columns["q_edge_margin"][8] = 1.1
    columns["q_edge_margin"][25] = 1.2
    assert reasons(columns) == only(8, "image-repeated")
    columns["q_edge_margin"][[8, 25]] = np.nan
    assert reasons(columns) == only(25, "image-repeated")


def test_a_still_camera_is_no_repeated_image() -> None:
    columns = good()
    columns["hash"][:] = columns["hash"][0]
    columns["depth_p50"] = (2.5 + 0.01 * np.arange(40)).astype(np.float32)[:40] * np.float32(1)
    columns["depth_p50"] = np.clip(columns["depth_p50"], 2.5, 2.6)
    assert set(reasons(columns)) == {""}


@given(st.permutations(range(12)))
def test_the_order_of_sources_does_not_matter(order: list[int]) -> None:
    columns = together(good(6, 0, "a"), good(6, 1, "b"))
    columns["q_outliers"][[2, 9]] = 0.5
    columns["q_edge_peak"][4], columns["q_edge_margin"][4] = 0.1, 1.0
    shuffled = {name: values[np.array(order)] for name, values in columns.items()}
    whole = reasons(columns)
    assert reasons(shuffled) == [whole[i] for i in order]


def test_no_frames_at_all() -> None:
    kept, texts = decide({name: values[:0] for name, values in good().items()})
    assert len(kept) == 0 and len(texts) == 0


# ---------------------------------------------------------------- the file


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_file_reads_as_itself(tmp_path: Path) -> None:
    assert read_rules(write(tmp_path / "rules.toml", default_rules())) == read_rules()


def test_every_default_rule_has_a_comment() -> None:
    lines = default_rules().splitlines()
    assert all("#" in line for line in lines if line.startswith("["))


def test_edited_rules_decide(tmp_path: Path) -> None:
    columns = good()
    columns["q_outliers"][7] = 0.12
    rules = read_rules(write(tmp_path / "r.toml", '[noisy]\ntest = "range"\ncolumn = "q_outliers"\nabove = 0.2\n'))
    assert decide(columns, rules)[0].all()
    rules["noisy"]["above"] = 0.1
    assert [str(text) for text in decide(columns, rules)[1]] == only(7, "noisy")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "not a TOML file"),
        ("a = 1", "needs a test"),
        ('[a]\ntest = "rnage"', "needs a test, one of range"),
        ('[a]\ntest = "range"\nabove = 1', "needs column"),
        ('[a]\ntest = "range"\ncolumn = "valid"\nabvoe = 1', "takes no abvoe"),
        ('[a]\ntest = "range"\ncolumn = "valid"\nabove = "1"', "above must be a number"),
        ('[a]\ntest = "range"\ncolumn = 3\nabove = 1', "column must be text"),
        ('[a]\ntest = "range"\ncolumn = "valid"', "needs below or above"),
        ('[a]\ntest = "duplicate"\ndistance = 1\nscale = "metres"', "scale must be one of metric"),
        ('["a;b"]\ntest = "duplicate"\ndistance = 1', "semicolon"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "rules.toml", text)
    with pytest.raises(InputError, match=said) as error:
        read_rules(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        read_rules(tmp_path / "none.toml")
    columns: dict[str, Any] = good()
    del columns["q_outliers"]
    with pytest.raises(InputError, match="q_outliers"):
        decide(columns)
