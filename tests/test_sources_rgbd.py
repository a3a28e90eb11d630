"""RGB-D cameras, phones and TartanAir: numbers against independent computations, filters at work."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import source_fixtures_rgbd as made
from expectations import assert_refused
from source_fixtures import HEIGHT, WIDTH, depth_png, ramp

from metricanything import sources

#: A quarter turn about y takes z to x and x to -z; OpenGL's camera looks along -z with y up.
TURN = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])
FLIP = np.diag([1.0, -1, -1])


def test_record3d_numbers(tmp_path: Path) -> None:
    made.build_record3d(tmp_path)
    first, _, third = sources.read("record3d", tmp_path)
    assert first.camera.params == (30, 31, 20, 15) and first.sensor == "tof"
    expected = np.full((HEIGHT, WIDTH), np.nan, dtype=np.float32)
    expected[1::2, 1::2] = made.smooth(0, *made.SMALL).astype(np.float16)
    np.testing.assert_array_equal(first.depth, expected)
    assert first.world_from_cam is not None and third.world_from_cam is not None
    np.testing.assert_allclose(first.world_from_cam[:3], np.column_stack([TURN @ FLIP, [1, 2, 3]]), atol=1e-7)
    np.testing.assert_allclose(third.world_from_cam[:3], np.column_stack([FLIP, [-1, 0, 0.5]]), atol=1e-7)


def test_r3d_numbers_and_confidence(tmp_path: Path) -> None:
    made.write_r3d(tmp_path)
    frames = list(sources.read("r3d", tmp_path))
    for n, frame in enumerate(frames):
        assert frame.name == f"take/{n}" and abs(int(frame.image[9, 9, 0]) - 60 * n) < 4
        expected = made.smooth(n, *made.SMALL)
        expected[0, [0, 3]] = np.nan
        np.testing.assert_array_equal(frame.depth[1::2, 1::2], expected)
        assert frame.valid.sum() == 20 * 15 - 2 and frame.notes["removed"]["low_confidence"] == 2
        assert frame.camera.params == ((30 + n) if n < 2 else 30, 31, 20, 15)  # its own, or that of all
        np.testing.assert_allclose(frame.world_from_cam[:3], np.column_stack([TURN @ FLIP, [n, 2, 3]]), atol=1e-7)
    assert next(sources.read("r3d", tmp_path, min_confidence=2)).notes["removed"]["low_confidence"] == 3


def test_r3d_damage_is_named(tmp_path: Path) -> None:
    made.write_r3d(tmp_path, sizes=False)  # then the sensor's own grid is assumed
    assert_refused(lambda: list(sources.read("r3d", tmp_path)), "take.r3d/rgbd/0.depth", "not 196608 of 256x192")
    file = tmp_path / "take.r3d"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert_refused(lambda: sources.read("r3d", tmp_path), "take.r3d: not a readable Record3D archive")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata", "{}")
        archive.writestr("rgbd/0.jpg", b"")
        archive.writestr("rgbd/1.jpg", b"")
        archive.writestr("rgbd/1.depth", b"bvx2 and no more")
    assert_refused(lambda: sources.open_items("r3d", tmp_path).load(0), "rgbd/0.depth: is not in the archive")
    assert_refused(lambda: sources.open_items("r3d", tmp_path).load(1), "rgbd/1.jpg")


def test_stray_scanner_numbers_and_confidence(tmp_path: Path) -> None:
    pytest.importorskip("av")
    made.build_stray_scanner(tmp_path)
    frames = list(sources.read("stray_scanner", tmp_path))
    for n, frame in enumerate(frames):
        assert abs(float(frame.image.mean()) - (40 + 60 * n)) < 4  # each depth map has its own picture
        assert frame.notes["removed"]["low_confidence"] == 2 and frame.notes["depth_grid"] == [20, 15]
        assert np.isnan(frame.depth[1, 1]) and frame.depth[1, 3] > 0
        np.testing.assert_allclose(frame.world_from_cam[:3], np.column_stack([TURN, [n, 2, 3]]), atol=1e-7)
    strict = next(sources.read("stray_scanner", tmp_path, min_confidence=2))
    loose = next(sources.read("stray_scanner", tmp_path, min_confidence=0))
    assert (strict.notes["removed"]["low_confidence"], loose.notes["removed"]["low_confidence"]) == (3, 0)
    items = sources.open_items("stray_scanner", tmp_path)
    np.testing.assert_array_equal(items.load(2).image, frames[2].image)


def test_stray_scanner_without_enough_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    made.build_stray_scanner(tmp_path)
    for n in range(3, 6):
        depth_png(tmp_path / f"depth/{n:06d}.png", ramp(n, *made.SMALL))
    problems: list[str] = []
    assert len(list(sources.read("stray_scanner", tmp_path, on_error=problems.append))) == 4
    assert [p for p in problems if "rgb.mp4: ends before frame" in p] == problems and len(problems) == 2


def test_depth16_bits(tmp_path: Path) -> None:
    made.build_depth16(tmp_path)
    frame = list(sources.read("depth16", tmp_path))[2]
    assert frame.name == "shot2./0" and (frame.width, frame.height) == (WIDTH, HEIGHT)  # the larger image
    expected = np.round(1000 * made.smooth(2, *made.SMALL)) / np.float32(1000)
    expected[5, 5] = np.nan
    expected[0, 1] = np.nan  # code 1: no confidence at all; code 0 is full confidence
    np.testing.assert_allclose(frame.depth[1::2, 1::2], expected, rtol=1e-6)
    assert frame.valid.sum() == np.isfinite(expected).sum() and frame.notes["depth_grid"] == [20, 15]
    assert frame.notes["removed"] == {"low_confidence": 1, "flying_pixels": 0}
    for least in (0.0, 0.15, 3 / 7 + 0.01, 0.9):
        got = next(sources.read("depth16", tmp_path, min_confidence=least, flying=False)).valid[1, 1:17:2]
        assert got.tolist() == [code == 0 or (code - 1) / 7 >= least for code in range(8)]
    (tmp_path / "camera.json").unlink()
    assert_refused(lambda: list(sources.read("depth16", tmp_path)), "fov_x=")
    assumed = next(sources.read("depth16", tmp_path, fov_x=60.0))
    assert assumed.notes["camera_source"] == "assumed" and assumed.camera.fov_x == pytest.approx(60)


def test_sun_rgbd_bits(tmp_path: Path) -> None:
    made.build_sun_rgbd(tmp_path)
    frame = list(sources.read("sun_rgbd", tmp_path))[1]
    expected = np.where(ramp(1) > 0, ramp(1) / np.float32(1000), np.nan).astype(np.float32)
    expected[0, 0] = np.nan
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    assert frame.camera.params == (30, 31, 20, 15)


def test_open3d_numbers(tmp_path: Path) -> None:
    made.build_open3d(tmp_path)
    _, second, third = sources.read("open3d_rgbd", tmp_path)
    assert second.depth[4, 5] == np.float32((1010 + 4 * WIDTH + 5) / 1000)
    np.testing.assert_array_equal(second.world_from_cam, [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])
    assert third.world_from_cam is None and third.camera.params == (30, 31, 20, 15)
    (tmp_path / "depth/2.png").unlink()
    assert_refused(lambda: sources.read("open3d_rgbd", tmp_path), "3 files in color and 2 in depth")


def test_tartanair_numbers(tmp_path: Path) -> None:
    made.build_tartanair(tmp_path)
    first, second, _ = sources.read("tartanair", tmp_path)
    assert np.isposinf(first.depth[:2]).all() and first.depth[5, 6] == made.smooth(0)[5, 6]
    assert first.camera.params == (20, 20, 20, 15)  # 40 of 640 columns
    # Forward (z) is north, right is east, down is down.
    np.testing.assert_allclose(first.world_from_cam[:3], [[0, 0, 1, 1], [1, 0, 0, 2], [0, 1, 0, 3]], atol=1e-12)
    # A quarter turn about down: looking north turns to looking east.
    np.testing.assert_allclose(second.world_from_cam[:3, 2], [0, 1, 0], atol=1e-7)
    assert_refused(lambda: sources.read("tartanair", tmp_path, camera="up"), "left or right")
