"""Each reader's numbers against independent computations; the data come from source_fixtures.py."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import source_fixtures as fixtures
from source_fixtures import FRAMES, HEIGHT, WIDTH, require

from metricanything import sources
from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.geometry import visible_points

# ---------------------------------------------------------------- folder


def test_folder_numbers(tmp_path: Path) -> None:
    fixtures.build_folder(tmp_path)
    first, second, _ = sources.read("folder", tmp_path)
    assert (first.name, first.kind, first.sensor, first.source, first.licence) == (
        "000",
        "captured",
        "tof",
        "test",
        "CC0",
    )
    assert np.isnan(second.depth[2, 3]) and second.valid.sum() == WIDTH * HEIGHT - 1
    assert second.depth[5, 7] == np.float32((1010 + 5 * WIDTH + 7) / 1000)
    assert first.camera == Camera.pinhole(30, 31, 20, 15, WIDTH, HEIGHT)


@pytest.mark.parametrize("suffix", [".npy", ".exr", ".pfm"])
def test_folder_float_depth_is_metres(tmp_path: Path, suffix: str) -> None:
    fixtures.noise_image(tmp_path / "images/a.png", 0)
    fixtures.write_json(tmp_path / "cameras/a.json", {"cam_in": [30, 31, 20, 15]})
    depth = np.linspace(0.5, 9, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    depth[0, 0], depth[0, 1] = np.nan, np.inf
    (tmp_path / "depth").mkdir()
    path = tmp_path / f"depth/a{suffix}"
    if suffix == ".npy":
        np.save(path, depth)
    elif suffix == ".pfm":
        path.write_bytes(f"Pf\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + depth[::-1].astype("<f4").tobytes())
    else:
        import OpenEXR

        with OpenEXR.File({}, {"Z": depth}) as file:
            file.write(str(path))
    (frame,) = sources.read("folder", tmp_path)
    np.testing.assert_array_equal(frame.depth, depth)
    assert frame.camera.params == (30, 31, 20, 15)


def test_folder_refuses_png_of_unknown_unit(tmp_path: Path) -> None:
    fixtures.build_folder(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"000\.png.*unit.*values per metre"):
        next(sources.read("folder", tmp_path))
    assert next(sources.read("folder", tmp_path, depth_scale=500)).depth[0, 0] == 2.0


def write_tof(root: Path, size: tuple[int, int]) -> np.ndarray:
    """A frame with depth of another size (width, height); returns its depth values."""
    fixtures.noise_image(root / "f/image.jpg", 0)
    values = fixtures.ramp(0, *size)
    fixtures.depth_png(root / "f/depth.png", values)
    meta = {"depth_scale": 1000, "fx": 30, "fy": 30, "cx": 20, "cy": 15, "kind": "tof"}
    fixtures.write_json(root / "f/meta.json", meta)
    return values


def test_folder_places_tof_depth_at_pixel_centres(tmp_path: Path) -> None:
    values = write_tof(tmp_path, (8, 6))
    (frame,) = sources.read("folder", tmp_path)
    assert frame.valid.sum() == 8 * 6 - 1  # nothing interpolated, the hole stays
    # 5x5 image pixels per depth pixel: its centre (2.5, 2.5) + 5k lies in image pixel 2 + 5k.
    expected = np.full((HEIGHT, WIDTH), np.nan, dtype=np.float32)
    expected[2::5, 2::5] = np.where(values > 0, values / 1000, np.nan)
    np.testing.assert_array_equal(frame.depth, expected)
    assert frame.sensor == "tof" and frame.notes["depth_grid"] == [8, 6]


@pytest.mark.parametrize("size", [(8, 5), (6, 8), (80, 60)])
def test_folder_refuses_depth_of_another_view(tmp_path: Path, size: tuple[int, int]) -> None:
    write_tof(tmp_path, size)
    with pytest.raises(InputError, match=r"depth\.png.*same"):
        list(sources.read("folder", tmp_path))


def test_folder_reports_missing_partners(tmp_path: Path) -> None:
    fixtures.build_folder(tmp_path)
    (tmp_path / "images/000.png").unlink()
    (tmp_path / "depth/002.png").unlink()
    problems: list[str] = []
    assert [f.name for f in sources.read("folder", tmp_path, on_error=problems.append)] == ["001"]
    assert "000" in problems[0] and "002" in problems[1]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"cam_in": [30, 31, 19.5, 14.5], "pixel_centre": 0}, (30, 31, 20, 15)),
        ({"model": "pinhole", "params": [60, 62, 40, 30], "width": 80, "height": 60}, (30, 31, 20, 15)),
        ({"fx": 60, "fy": 62, "cx": 39.5, "cy": 29.5, "width": 80, "height": 60, "pixel_centre": 0}, (30, 31, 20, 15)),
    ],
)
def test_camera_records(tmp_path: Path, record: dict[str, Any], expected: tuple[float, ...]) -> None:
    fixtures.build_folder(tmp_path)
    fixtures.write_json(tmp_path / "camera.json", record)
    frame = next(sources.read("folder", tmp_path))
    assert frame.camera.params == pytest.approx(expected)
    assert (frame.camera.width, frame.camera.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"fx": 30, "fy": 30, "cx": 20}, "numbers"),
        ({"cam_in": [30, 30, 20]}, "numbers"),
        ({"cam_in": ["a", 30, 20, 15]}, "numbers"),
        ({"cam_in": [30, 30, 20, 15], "pixel_centre": 1}, "pixel_centre"),
        ({"model": "pinhole", "params": [30, 30, 20, 15], "width": 40, "height": 40}, "aspect"),
        ({"model": "wide", "params": [30, 30, 20, 15], "width": 40, "height": 30}, "unknown"),
        ({}, "fov_x"),
        ([1], "object"),
    ],
)
def test_bad_camera_records(tmp_path: Path, record: Any, message: str) -> None:
    fixtures.build_folder(tmp_path)
    fixtures.write_json(tmp_path / "camera.json", record)
    with pytest.raises(InputError, match=rf"camera\.json.*{message}"):
        next(sources.read("folder", tmp_path))


def test_assumed_camera_says_so(tmp_path: Path) -> None:
    fixtures.build_folder(tmp_path)
    fixtures.write_json(tmp_path / "camera.json", {})
    frame = next(sources.read("folder", tmp_path, fov_x=90))
    assert frame.camera.fx == pytest.approx(WIDTH / 2) and frame.notes["camera_source"] == "assumed"


def test_folder_says_how_to_state_the_scale(tmp_path: Path) -> None:
    """In Python and on the command line."""
    fixtures.build_folder(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset\.json.* depth_scale=1000 \(--option depth_scale=1000\)"):
        next(sources.read("folder", tmp_path))


def test_folder_refuses_two_files_of_one_name(tmp_path: Path) -> None:
    fixtures.build_folder(tmp_path)
    (tmp_path / "images/001.jpg").write_bytes((tmp_path / "images/001.png").read_bytes())
    problems: list[str] = []
    assert [f.name for f in sources.read("folder", tmp_path, on_error=problems.append)] == ["000", "002"]
    assert len(problems) == 1 and "found 001.jpg, 001.png" in problems[0]


_listed: list[str] | None = None


def _note_listing(event: str, arguments: tuple[Any, ...]) -> None:
    if _listed is not None and event in ("os.scandir", "os.listdir"):
        _listed.append(str(arguments[0]))


sys.addaudithook(_note_listing)  # for good, hence the switch


def test_folder_is_listed_once_and_not_for_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixtures.build_folder(tmp_path)
    listed: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "_listed", listed)
    frames = sources.read("folder", tmp_path)
    assert any(path.startswith(str(tmp_path)) for path in listed)
    listed.clear()
    assert len(list(frames)) == FRAMES
    assert [path for path in listed if path.startswith(str(tmp_path))] == []


# ---------------------------------------------------------------- tum


def test_tum_numbers(tmp_path: Path) -> None:
    fixtures.build_tum(tmp_path)
    first, second, third = sources.read("tum", tmp_path)
    assert first.depth[4, 5] == np.float32(5 * (1000 + 4 * WIDTH + 5) / 5000)
    assert first.camera.params == (30, 31, 20, 15)
    # A quarter turn about y takes z to x and x to -z.
    expected = np.array([[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]])
    assert first.world_from_cam is not None and third.world_from_cam is not None
    np.testing.assert_allclose(first.world_from_cam, expected, atol=1e-7)
    assert second.world_from_cam is None
    np.testing.assert_allclose(third.world_from_cam[:3], np.hstack([np.eye(3), [[-1], [0], [0.5]]]))


def test_tum_association_is_one_to_one_and_within_the_gap() -> None:
    from metricanything.sources.tum import associate

    colour = np.array([0.000, 0.033, 0.066, 0.100, 0.500])
    depth = np.array([0.105, 0.070, 0.019, 0.521])  # unsorted, one too far, one between two colour images
    np.testing.assert_array_equal(associate(colour, depth, 0.02), [-1, 2, 1, 0, -1])
    np.testing.assert_array_equal(associate(colour, np.empty(0), 0.02), [-1] * 5)
    np.testing.assert_array_equal(associate(colour, np.array([0.04]), 0.02), [-1, 0, -1, -1, -1])


def test_tum_published_cameras(tmp_path: Path) -> None:
    root = tmp_path / "rgbd_dataset_freiburg2_desk"
    for n in range(2):
        fixtures.noise_image(root / f"{n}.png", n, 640, 480)
        fixtures.depth_png(root / f"d{n}.png", fixtures.ramp(n, 640, 480) % 60000)
    (root / "rgb.txt").write_text("0 0.png\n1 1.png\n")
    (root / "depth.txt").write_text("0 d0.png\n1 d1.png\n")
    frame = next(sources.read("tum", root))
    assert frame.camera.model == "opencv" and frame.world_from_cam is None
    assert frame.camera.params[:4] == pytest.approx((520.9, 521.0, 325.6, 250.2))
    assert next(sources.read("tum", root, camera="fr3")).camera == Camera.pinhole(535.4, 539.2, 320.6, 248.1, 640, 480)
    with pytest.raises(InputError, match="cannot tell the camera"):
        sources.read("tum", root.rename(tmp_path / "desk"))


def test_tum_malformed_lists(tmp_path: Path) -> None:
    fixtures.build_tum(tmp_path)
    (tmp_path / "groundtruth.txt").write_text("1.0 0 0 0 0 0 0 0\n")
    with pytest.raises(InputError, match="zero quaternion"):
        sources.read("tum", tmp_path)
    (tmp_path / "rgb.txt").write_text("soon rgb/0.png\n")
    with pytest.raises(InputError, match=r"rgb\.txt"):
        sources.read("tum", tmp_path)


@pytest.mark.parametrize("name", ["rgb.txt", "depth.txt", "groundtruth.txt"])
def test_tum_lists_that_are_no_text(tmp_path: Path, name: str) -> None:
    fixtures.build_tum(tmp_path)
    (tmp_path / name).write_bytes(b"1.0 \xff\xfe.png\n")
    with pytest.raises(InputError, match=rf"{re.escape(name)}: not a readable UTF-8 text file"):
        sources.read("tum", tmp_path)


# ---------------------------------------------------------------- kitti_raw


def kitti_reference(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (0.5-centred) and depths in the textbook way: P_rect R_rect Tr X in float64."""
    tr, rect = np.eye(4), np.eye(4)
    tr[:3, :3], tr[:3, 3], rect[:3, :3] = fixtures.KITTI_R, fixtures.KITTI_T, fixtures.KITTI_RECT
    homogeneous = np.column_stack([points.astype(np.float32).astype(np.float64), np.ones(len(points))])
    uvw = homogeneous @ (fixtures.KITTI_P @ rect @ tr).T
    return uvw[:, :2] / uvw[:, 2:] + 0.5, uvw[:, 2]


def test_kitti_numbers(tmp_path: Path) -> None:
    fixtures.build_kitti_raw(tmp_path)
    frame = next(sources.read("kitti_raw", tmp_path))
    assert frame.camera.params == pytest.approx((30, 31, 20, 15)) and frame.sensor == "lidar"
    points = fixtures.kitti_points(0)
    uv, depth = kitti_reference(points)
    row, column = np.floor(uv[:, 1]).astype(int), np.floor(uv[:, 0]).astype(int)
    inside = (depth > 0) & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
    assert inside[-1] and depth[-1] > 30  # the far point is in view, but the wall is in front of it
    visible = visible_points(uv, depth, HEIGHT, WIDTH)  # see test_geometry.py
    assert not visible[-1]
    expected = np.full((HEIGHT, WIDTH), np.nan)
    for i in np.flatnonzero(inside & visible):
        expected[row[i], column[i]] = np.fmin(expected[row[i], column[i]], depth[i])
    assert np.isfinite(expected).sum() > 50
    np.testing.assert_array_equal(frame.valid, np.isfinite(expected))
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    assert not (frame.depth[frame.valid] > 30).any()


@pytest.mark.parametrize("level", ["root", "date", "drive"])
def test_kitti_reads_root_date_or_drive(tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixtures.build_kitti_raw(tmp_path)
    drive = fixtures.kitti_drive(tmp_path)
    monkeypatch.chdir({"root": tmp_path, "date": drive.parent, "drive": drive}[level])
    names = [f.name for f in sources.read("kitti_raw", ".")]
    assert names == [f"2011_09_26_drive_0001_sync/image_02/{n:010d}" for n in range(FRAMES)]


def test_kitti_bad_calibration(tmp_path: Path) -> None:
    fixtures.build_kitti_raw(tmp_path)
    calibration = tmp_path / "2011_09_26/calib_cam_to_cam.txt"
    calibration.write_text(calibration.read_text().replace("P_rect_02", "P_rect_07"))
    with pytest.raises(InputError, match=r"calib_cam_to_cam\.txt.*P_rect_02"):
        sources.read("kitti_raw", tmp_path)
    calibration.unlink()
    with pytest.raises(InputError, match=r"calib_cam_to_cam\.txt.*no such file"):
        sources.read("kitti_raw", tmp_path)


@pytest.mark.parametrize("name", ["calib_cam_to_cam.txt", "calib_velo_to_cam.txt"])
def test_kitti_calibration_that_is_no_text(tmp_path: Path, name: str) -> None:
    fixtures.build_kitti_raw(tmp_path)
    (tmp_path / "2011_09_26" / name).write_bytes(b"R: \xff\xfe 1 2\n")
    with pytest.raises(InputError, match=rf"{name}: not a readable UTF-8 text file"):
        sources.read("kitti_raw", tmp_path)


# ---------------------------------------------------------------- colmap


@pytest.mark.parametrize("text", [False, True])
def test_colmap_numbers(tmp_path: Path, text: bool) -> None:
    require("colmap")
    fixtures.build_colmap(tmp_path, text=text)
    frames = list(sources.read("colmap", tmp_path))
    assert [f.scale for f in frames] == ["up_to_scale"] * 3
    for frame, centre in zip(frames, fixtures.COLMAP_CENTRES, strict=True):
        expected = np.full((HEIGHT, WIDTH), np.nan, dtype=np.float32)
        for x, y, z in fixtures.COLMAP_POINTS[:5] - centre:  # the last point has a track of two
            pixel = int(31 * y / z + 15), int(30 * x / z + 20)
            expected[pixel] = np.fmin(expected[pixel], z)
        np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
        assert frame.world_from_cam is not None and frame.sigma is not None
        np.testing.assert_allclose(frame.world_from_cam[:3, 3], centre, atol=1e-12)
        np.testing.assert_array_equal(np.isfinite(frame.sigma), frame.valid)
    assert [f.valid.sum() for f in frames] == [4, 5, 5]
    assert [f.valid.sum() for f in sources.read("colmap", tmp_path, min_track=2)] == [5, 6, 5]


@pytest.mark.parametrize(("index", "tolerance"), [(0, 0.03), (3, 0.1)])
def test_colmap_sigma_matches_a_simulation(tmp_path: Path, index: int, tolerance: float) -> None:
    """The triangulation part of sigma against the spread of depths re-estimated from noisy observations.

    The tolerance is wider off the axis, where a pinhole has more pixels per radian than its focal length says.
    """
    require("colmap")
    fixtures.build_colmap(tmp_path)
    frame = next(sources.read("colmap", tmp_path))
    assert frame.sigma is not None
    point, n_views, mean_error = fixtures.COLMAP_POINTS[index], 3, fixtures.COLMAP_ERRORS[index]
    pixel = np.sqrt(4 / np.pi * n_views * mean_error**2 / (2 * n_views - 3))
    assert pixel > 0.3  # above the floor, so that the formula itself is compared
    # Depth along the fixed ray of image 0, fitted to observations in images 1 and 2 with this noise (one Newton step).
    rng, jacobian, noise = np.random.default_rng(0), [], []
    for centre in fixtures.COLMAP_CENTRES[1:]:
        x, y, z = point - centre
        rx, ry, rz = point / point[2]
        jacobian += [30 * (rx * z - x * rz) / z**2, 31 * (ry * z - y * rz) / z**2]
        noise += [rng.normal(0, pixel, 20000), rng.normal(0, pixel, 20000)]
    a = np.array(jacobian)
    spread = (a @ np.array(noise) / (a @ a)).std()
    row, column = int(31 * point[1] / point[2] + 15), int(30 * point[0] / point[2] + 20)
    triangulation = np.sqrt(frame.sigma[row, column] ** 2 - (0.02 * point[2]) ** 2)
    assert triangulation == pytest.approx(spread, rel=tolerance)


def test_colmap_metric_scale(tmp_path: Path) -> None:
    require("colmap")
    fixtures.build_colmap(tmp_path)
    (unit, *_) = sources.read("colmap", tmp_path)
    (declared, *_) = sources.read("colmap", tmp_path, metric=True)
    (given, second, *_) = sources.read("colmap", tmp_path, metres_per_unit=2.5)
    fixtures.write_json(tmp_path / "scale.json", {"metres_per_unit": 2.5})
    (stored, *_) = sources.read("colmap", tmp_path)
    np.testing.assert_array_equal(declared.depth, unit.depth)
    np.testing.assert_allclose(given.depth, 2.5 * unit.depth, rtol=1e-6)
    assert unit.sigma is not None and given.sigma is not None and second.world_from_cam is not None
    np.testing.assert_allclose(given.sigma, 2.5 * unit.sigma, rtol=1e-5)
    np.testing.assert_allclose(second.world_from_cam[:3, 3], 2.5 * fixtures.COLMAP_CENTRES[1])
    np.testing.assert_array_equal(stored.depth, given.depth)
    assert (unit.scale, declared.scale, given.scale, stored.scale) == ("up_to_scale", "metric", "metric", "metric")
    fixtures.write_json(tmp_path / "scale.json", {"metres_per_unit": -1})
    with pytest.raises(InputError, match=r"scale\.json.*positive"):
        sources.read("colmap", tmp_path)


COLMAP_CAMERAS = {
    "SIMPLE_PINHOLE": [500, 320, 240],
    "PINHOLE": [500, 510, 320, 240],
    "SIMPLE_RADIAL": [500, 320, 240, 0.05],
    "RADIAL": [500, 320, 240, 0.05, -0.02],
    "OPENCV": [500, 510, 320, 240, 0.05, -0.02, 0.003, -0.004],
    "FULL_OPENCV": [500, 510, 320, 240, 0.05, -0.02, 0.003, -0.004, 0.01, 0.02, -0.01, 0.003],
    "SIMPLE_FISHEYE": [300, 320, 240],
    "FISHEYE": [300, 310, 320, 240],
    "SIMPLE_RADIAL_FISHEYE": [300, 320, 240, 0.03],
    "RADIAL_FISHEYE": [300, 320, 240, 0.03, -0.01],
    "OPENCV_FISHEYE": [300, 310, 320, 240, 0.03, -0.01, 0.002, -0.001],
}


@pytest.mark.parametrize("name", COLMAP_CAMERAS)
def test_colmap_cameras_project_as_pycolmap(name: str) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    from metricanything.sources.colmap import to_camera

    theirs = pycolmap.Camera(model=name, width=640, height=480, params=COLMAP_CAMERAS[name])
    points = np.random.default_rng(0).uniform([-1, -0.8, 1.5], [1, 0.8, 4], (200, 3))
    expected = theirs.img_from_cam(points)
    np.testing.assert_allclose(to_camera(theirs).project(points), expected, atol=1e-9)


def test_colmap_other_cameras_are_refused() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    from metricanything.sources.colmap import to_camera

    with pytest.raises(InputError, match=r"FOV.*undistort"):
        to_camera(pycolmap.Camera(model="FOV", width=640, height=480, params=[300.0] * 5))


def test_colmap_bad_models(tmp_path: Path) -> None:
    require("colmap")
    fixtures.build_colmap(tmp_path)
    points = tmp_path / "sparse/0/points3D.bin"
    points.write_bytes(points.read_bytes()[:70])
    with pytest.raises(InputError, match="not a readable COLMAP model"):
        sources.read("colmap", tmp_path)
    (tmp_path / "sparse/1").mkdir()
    (tmp_path / "sparse/1/cameras.txt").write_text("")
    with pytest.raises(InputError, match=r"several models \(0, 1\)"):
        sources.read("colmap", tmp_path)
    with pytest.raises(InputError, match="no frames found"):
        sources.read("colmap", tmp_path, model="2")
