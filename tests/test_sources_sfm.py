"""Data sets posed by COLMAP models: numbers against what was written, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import source_fixtures_sfm as made
from expectations import assert_refused
from PIL import Image
from source_fixtures import HEIGHT, WIDTH, noise_image, require

from metricanything import sources
from metricanything.core.codecs import read_image

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


def test_eth3d_numbers(tmp_path: Path) -> None:
    require("eth3d")
    made.build_eth3d(tmp_path)
    frames = list(sources.read("eth3d", tmp_path))
    for n, frame in enumerate(frames):
        expected = made.eth3d_map(n)
        expected[0, :5] = np.nan  # no return, which says nothing of the sky
        np.testing.assert_array_equal(frame.depth, expected)
        np.testing.assert_allclose(frame.world_from_cam[:3, 3], -BACK @ [n, 2, 3], atol=1e-12)
        assert (frame.camera.model, frame.camera.params) == ("thin_prism_fisheye", made.ETH3D_LENS)
        assert (frame.kind, frame.sensor, frame.scale, frame.name) == ("captured", "lidar", "metric", f"courtyard/{n}")


def test_eth3d_takes_photos_as_they_are_stored(tmp_path: Path) -> None:
    """An orientation in the EXIF data would turn the photo away from its depth."""
    require("eth3d")
    made.build_eth3d(tmp_path)
    photo = tmp_path / "courtyard/images/dslr_images/0.JPG"
    with Image.open(photo) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(photo, exif=exif)
    assert read_image(photo).shape == (WIDTH, HEIGHT, 3)
    with Image.open(photo) as picture:
        np.testing.assert_array_equal(next(sources.read("eth3d", tmp_path)).image, np.array(picture))


def test_eth3d_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    require("eth3d")
    made.build_eth3d(tmp_path)
    (tmp_path / "courtyard/ground_truth_depth/dslr_images/9.JPG").write_bytes(b"")
    noise_image(tmp_path / "courtyard/images/dslr_images/9.JPG", 9)
    noise_image(tmp_path / "courtyard/images/dslr_images/1.JPG", 1, HEIGHT, WIDTH)
    items = sources.open_items("eth3d", tmp_path)
    assert_refused(lambda: items.load(1), "1.JPG: has 30x40 pixels but its camera in the model has 40x30")
    assert_refused(lambda: items.load(3), "9.JPG: is not in the model")


def test_scannetpp_numbers(tmp_path: Path) -> None:
    require("scannetpp")
    made.build_scannetpp(tmp_path)
    frames = list(sources.read("scannetpp", tmp_path))
    assert [frame.name for frame in frames] == [f"036bce3393/frame_{n}" for n in range(3)]  # the fourth has no pose
    for n, frame in enumerate(frames):
        expected = np.round(1000 * made.smooth(n, *made.SMALL)) / np.float32(1000)
        np.testing.assert_allclose(frame.depth[1::2, 1::2], expected, rtol=1e-6)
        assert frame.valid.sum() == 20 * 15 and frame.notes["removed"] == {"flying_pixels": 0}
        np.testing.assert_allclose(frame.world_from_cam[:3, 3], -BACK @ [n, 2, 3], atol=1e-12)
        assert frame.camera.params[:8] == (30, 31, 20, 15, 0.05, -0.02, 0.001, 0)
        assert (frame.camera.model, frame.sensor, frame.scale) == ("opencv", "tof", "metric")


def test_scannetpp_filter(tmp_path: Path) -> None:
    require("scannetpp")
    made.build_scannetpp(tmp_path)
    values = np.round(1000 * made.smooth(0, *made.SMALL))
    values[7, 9] = 4000  # stands alone
    made.depth_png(tmp_path / "036bce3393/iphone/depth/frame_0.png", values)
    kept, removed = (next(sources.read("scannetpp", tmp_path, flying=flying)) for flying in (False, True))
    assert kept.depth[15, 19] == 4 and np.isnan(removed.depth[15, 19])
    assert removed.notes["removed"] == {"flying_pixels": 1}
