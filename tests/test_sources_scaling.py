"""Metric scale of a reconstruction from measured places of its cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import source_fixtures as fixtures
from expectations import assert_refused
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from source_fixtures import require, write_json

from metricanything import sources
from metricanything.sources.scaling import metres_per_unit


@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_scale_of_any_similarity_is_found(scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(9, 3))
    turn = Rotation.random(rng=rng).as_matrix()
    found, spread = metres_per_unit(centres, scale * centres @ turn.T + rng.normal(size=3) * 100)
    assert found == pytest.approx(scale, rel=1e-9) and spread < 1e-9


def test_two_wrong_places_of_twenty_do_little() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 3))
    measured = 3 * centres + rng.normal(scale=0.02, size=(20, 3))
    measured[:2] += 5
    found, spread = metres_per_unit(centres, measured)
    assert found == pytest.approx(3, rel=0.02) and 0 < spread < 0.1


def test_places_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    assert_refused(lambda: metres_per_unit(rng.normal(size=(9, 3)), rng.normal(size=(9, 3))), "do not fit")
    assert_refused(lambda: metres_per_unit(np.zeros((1, 3)), np.zeros((1, 3))), "two cameras")
    assert_refused(lambda: metres_per_unit(np.zeros((3, 3)), np.eye(3)), "do not fit")


def test_colmap_becomes_metric_by_measured_places(tmp_path: Path) -> None:
    require("colmap")
    fixtures.build_colmap(tmp_path)
    plain = next(sources.read("colmap", tmp_path))
    turned = 2.5 * fixtures.COLMAP_CENTRES @ Rotation.from_euler("y", 40, degrees=True).as_matrix().T + [500, 0, -90]
    places = tmp_path / "gps.json"
    write_json(places, {f"{n}.png": place.tolist() for n, place in enumerate(turned)})
    frame = next(sources.read("colmap", tmp_path, positions=str(places)))
    assert (plain.scale, frame.scale) == ("up_to_scale", "metric")
    np.testing.assert_allclose(frame.depth, 2.5 * plain.depth, rtol=1e-5)
    write_json(places, {"0.png": [0, 0, 0], "other.png": [1, 0, 0]})
    assert_refused(lambda: sources.read("colmap", tmp_path, positions=str(places)), "gps.json", "two cameras")
    write_json(places, {"0.png": [0, 0]})
    assert_refused(lambda: sources.read("colmap", tmp_path, positions=str(places)), "gps.json", "[x, y, z]")
