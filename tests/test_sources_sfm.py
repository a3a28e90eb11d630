"""Data sets posed by COLMAP models: numbers against what was written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import source_fixtures_sfm as made
from expectations import assert_refused
from source_fixtures import HEIGHT, WIDTH, require

from metricanything import sources

#: World from camera of the models' rotation: the inverse of a quarter turn about y, which takes z to x.
BACK = np.array([[0, 0, -1.0], [0, 1, 0], [1, 0, 0]])


def test_megadepth_numbers(tmp_path: Path) -> None:
    require("megadepth")
    made.build_megadepth(tmp_path)
    frames = list(sources.read("megadepth", tmp_path))
    for n, frame in enumerate(frames):
        expected = made.megadepth_map(n)
        expected[0, 0] = np.nan
        np.testing.assert_array_equal(frame.depth, expected)
        np.testing.assert_allclose(frame.world_from_cam[:3, :3], BACK, atol=1e-12)
        np.testing.assert_allclose(frame.world_from_cam[:3, 3], -BACK @ [n, 2, 3], atol=1e-12)
        assert frame.camera.params == (30, 31, 20, 15) and frame.name == f"0001/dense0/{n}"
        assert (frame.kind, frame.scale) == ("reconstructed", "up_to_scale")


def test_megadepth_refuses_orderings_and_distorted_models(tmp_path: Path) -> None:
    require("megadepth")
    made.build_megadepth(tmp_path)
    ordering = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
    ordering[:3], ordering[9:] = -1, -2
    made.write_map(tmp_path / "0001/dense0/depths/1.h5", ordering)
    problems: list[str] = []
    assert len(list(sources.read("megadepth", tmp_path, on_error=problems.append))) == 2
    assert len(problems) == 1 and "1.h5: orders its pixels" in problems[0]
    elsewhere = tmp_path / "sfm"
    made.write_model(elsewhere / "0001/sparse", f"SIMPLE_RADIAL {WIDTH} {HEIGHT} 30 20 15 0.1", ["0.jpg", "1.jpg"])
    items = sources.open_items("megadepth", tmp_path, sfm=elsewhere)
    assert_refused(lambda: items.load(0), "image_undistorter")
    assert_refused(lambda: items.load(2), "2.jpg: is not registered")
    assert_refused(lambda: sources.open_items("megadepth", tmp_path, sfm=tmp_path / "no").load(0), "give it with sfm=")
