"""Published data sets and reconstructions: each reader's numbers against an independent computation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import source_fixtures_more as made
from expectations import assert_refused
from source_fixtures import COLMAP_CENTRES, HEIGHT, WIDTH, ramp, require, write_json
from source_fixtures_rgbd import smooth

from metricanything import sources
from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.sources import wai

#: World from camera of a camera that stands turned: the inverse of [R | t] with z to x, x to -z.
ROTATION = np.array([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]])


def inverse_pose(translation: list[float]) -> np.ndarray:
    return np.column_stack([ROTATION.T, -ROTATION.T @ translation])


def frames_of(kind: str, root: Path, **options: object) -> list[Frame]:
    require(kind)
    build = {"colmap_dense": made.build_colmap_dense}.get(kind, getattr(made, f"build_{kind}"))
    build(root)
    return list(sources.read(kind, root, **options))


def test_nyu_axes_and_holes(tmp_path: Path) -> None:
    first, second, _ = frames_of("nyu", tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, WIDTH, HEIGHT), dtype=np.uint8)
    assert first.image[5, 7].tolist() == images[0, :, 7, 5].tolist()
    expected = smooth(1)
    expected[2, 3] = np.nan
    np.testing.assert_array_equal(second.depth, expected)
    assert first.camera.fx == pytest.approx(518.85790 * WIDTH / 640)
    filled = next(sources.read("nyu", tmp_path, filled=True))
    assert filled.valid.all()
    file = tmp_path / "nyu_depth_v2_labeled.mat"
    file.write_bytes(file.read_bytes()[:4000])
    assert_refused(lambda: sources.read("nyu", tmp_path), file.name, "not a readable MATLAB 7.3 file")


def test_hypersim_distances_become_depth(tmp_path: Path) -> None:
    frame = frames_of("hypersim", tmp_path)[1]
    focal = WIDTH / 2 / np.tan(np.deg2rad(30))
    assert frame.camera.params == pytest.approx((focal, focal, WIDTH / 2, HEIGHT / 2))
    x, y = np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT)[:, None] + 0.5 - HEIGHT / 2
    expected = smooth(1).astype(np.float16) * focal / np.sqrt(x**2 + y**2 + focal**2)
    expected[0, 0] = np.nan
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    # Positions times metres per unit; OpenGL's axes to ours.
    np.testing.assert_allclose(frame.world_from_cam[:3], np.column_stack([np.diag([1, -1, -1]), [1, 2, 3]]), atol=1e-9)


def test_hypersim_tilted_and_shifted_lens() -> None:
    """Every pixel's ray under the matrix of the data set is that of the camera, turned by its rotation."""
    from metricanything.sources.hypersim import lens_of

    tilt = np.deg2rad(8)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix = turn @ np.array([[0.5, 0, 0.04], [0, 0.38, -0.1], [0, 0, -1.0]])
    camera, new_from_cv = lens_of(matrix, WIDTH, HEIGHT, Path("frame"))
    pixels = camera.pixel_grid()
    uv = np.stack([2 * pixels[..., 0] / WIDTH - 1, 1 - 2 * pixels[..., 1] / HEIGHT, np.ones((HEIGHT, WIDTH))], -1)
    rays = uv @ matrix.T * [1, -1, -1] @ new_from_cv.T
    assert (rays[..., 2] > 0).all() and np.linalg.det(new_from_cv) == pytest.approx(1)
    np.testing.assert_allclose(camera.unproject(pixels), rays / np.linalg.norm(rays, axis=-1, keepdims=True), atol=1e-9)
    skewed = np.array([[0.5, 0.05, 0], [0, 0.38, 0], [0, 0, -1.0]])
    assert_refused(lambda: lens_of(skewed, WIDTH, HEIGHT, Path("frame.0001")), "frame.0001", "skewed")


def test_hypersim_table_is_found_above(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    made.build_hypersim(tmp_path)
    names = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
    values = np.array([[0.4, 0, 0], [0, 0.3, 0], [0, 0, -1.0]])
    rows = "scene_name," + ",".join(names) + "\nai_001_001," + ",".join(str(v) for v in values.ravel()) + "\n"
    (tmp_path / "metadata_camera_parameters.csv").write_text(rows)
    frame = next(sources.read("hypersim", tmp_path / "ai_001_001"))
    assert frame.camera.params == pytest.approx((WIDTH / 0.8, HEIGHT / 0.6, WIDTH / 2, HEIGHT / 2))


def test_vkitti2_numbers(tmp_path: Path) -> None:
    frame = frames_of("vkitti2", tmp_path)[1]
    assert np.isposinf(frame.depth[:3]).all()
    np.testing.assert_allclose(frame.depth[3:], ramp(1)[3:] / 100, rtol=1e-6)
    assert frame.camera.params == (30, 31, 20, 15)
    np.testing.assert_allclose(frame.world_from_cam[:3], inverse_pose([1, 2, 3]), atol=1e-12)
    assert_refused(lambda: sources.read("vkitti2", tmp_path, camera="1"), "no frames found")


def test_sintel_numbers(tmp_path: Path) -> None:
    frame = frames_of("sintel", tmp_path)[2]
    np.testing.assert_array_equal(frame.depth, smooth(2))
    assert frame.camera.params == (30, 31, 20, 15) and frame.scale == "up_to_scale"
    np.testing.assert_allclose(frame.world_from_cam[:3], inverse_pose([2, 2, 3]), atol=1e-12)
    cam = tmp_path / "training/camdata_left/alley_1/frame_0000.cam"
    cam.write_bytes(b"\0" * 172)
    assert_refused(lambda: next(sources.read("sintel", tmp_path)), cam.name, "tag")


def test_ibims_masks(tmp_path: Path) -> None:
    frame = frames_of("ibims", tmp_path)[1]
    assert np.isnan(frame.depth[0, 0]) and np.isnan(frame.depth[1, 1])
    assert frame.valid.sum() == WIDTH * HEIGHT - 2
    assert frame.camera.params == (30, 31, 20, 15)  # `calib` is stored transposed
    assert np.isfinite(next(sources.read("ibims", tmp_path, transparent=True)).depth[1, 1])


def test_blender_passes(tmp_path: Path) -> None:
    frame = frames_of("blender", tmp_path)[1]
    assert np.isposinf(frame.depth[0]).all()
    np.testing.assert_array_equal(frame.depth[1:], smooth(1)[1:])
    assert frame.image[0, 0, 0] == 188  # 0.5 linear
    gl = ROTATION @ np.diag([1.0, -1, -1])
    np.testing.assert_allclose(frame.world_from_cam[:3], np.column_stack([gl, [1, 2, 3]]), atol=1e-12)
    assert_refused(lambda: next(sources.read("blender", tmp_path, layer="Other")), "0.exr", "Combined")


def test_diode_mask_and_flying_pixels(tmp_path: Path) -> None:
    frame = frames_of("diode", tmp_path)[0]
    assert frame.notes["removed"] == {"mask": 1, "flying_pixels": 0} and np.isnan(frame.depth[0, 0])
    depth = np.full((HEIGHT, WIDTH, 1), 4.0, np.float32)
    depth[10:20, 10:20], depth[10:20, 9] = 2.0, 2.8
    np.save(tmp_path / made.diode(0, "_depth.npy"), depth)
    assert next(sources.read("diode", tmp_path)).notes["removed"]["flying_pixels"] == 10
    assert "flying_pixels" not in next(sources.read("diode", tmp_path, flying=False)).notes["removed"]


def test_middlebury_uses_doffs(tmp_path: Path) -> None:
    frame = frames_of("middlebury", tmp_path)[1]
    expected = 0.2 * 30 / (5 + smooth(1).astype(np.float64) + 3)
    expected[0, 0] = np.nan
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    assert frame.camera.params == (30, 30, 20, 15)


def test_booster_mask_and_baseline(tmp_path: Path) -> None:
    frame = frames_of("booster", tmp_path)[0]
    expected = 0.2 * 30 / (5 + smooth(0).astype(np.float64))
    expected[0, :2] = np.nan
    np.testing.assert_allclose(frame.depth, expected, rtol=1e-6)
    assert frame.notes["removed"] == {"mask": 2} and frame.camera.fy == 31


def test_arkitscenes_nearest_camera_and_confidence(tmp_path: Path) -> None:
    first, second, third = frames_of("arkitscenes", tmp_path)
    assert [f.camera.fx for f in (first, second, third)] == [30, 31, 32]
    assert second.notes["removed"]["low_confidence"] == 2
    np.testing.assert_allclose(second.world_from_cam[:3], inverse_pose([1, 2, 3]), atol=1e-9)
    assert third.world_from_cam is None  # the trajectory ends before
    assert_refused(lambda: sources.read("arkitscenes", tmp_path, resolution="mid"), "low or high")


def test_scannet_depth_is_taken_to_the_colour_camera(tmp_path: Path) -> None:
    first, second, _ = frames_of("scannet", tmp_path)
    assert second.world_from_cam is None and second.notes["pose"] == "lost"
    np.testing.assert_array_equal(first.world_from_cam, np.eye(4))
    seen = set()
    for row in range(20):
        for column in range(20):  # a wall 2 m away; the depth camera stands 10 cm to the left
            x, y = (column - 9.5) / 20 * 2.0 - 0.1, (row - 9.5) / 20 * 2.0
            u, v = int(np.floor(30 * x / 2 + 19.5 + 0.5)), int(np.floor(31 * y / 2 + 14.5 + 0.5))
            if 0 <= u < WIDTH and 0 <= v < HEIGHT:
                seen.add((v, u))
    known = {(int(v), int(u)) for v, u in zip(*np.nonzero(first.valid), strict=True)}
    assert len(known ^ seen) <= 0.05 * len(seen)  # float32 decides on which side of a border a point lies
    assert np.unique(first.depth[first.valid]).tolist() == [2.0]
    assert len(list(sources.read("scannet", tmp_path, every=2))) == 2


def test_scannet_damage(tmp_path: Path) -> None:
    made.build_scannet(tmp_path)
    file = tmp_path / "scene0000_00.sens"
    whole = file.read_bytes()
    place = whole.find(b"\xff\xd8", whole.find(b"\xff\xd8") + 2)  # the second JPEG
    file.write_bytes(whole[:place] + b"\0\0" + whole[place + 2 :])
    problems: list[str] = []
    assert len(list(sources.read("scannet", tmp_path, on_error=problems.append))) == 2
    assert len(problems) == 1 and "frame 1" in problems[0]
    file.write_bytes(whole[:300])
    assert_refused(lambda: sources.read("scannet", tmp_path), file.name, "not a readable ScanNet recording")
    file.write_bytes(b"\5" + whole[1:])
    assert_refused(lambda: sources.read("scannet", tmp_path), "version 5")


def test_seven_scenes_registration(tmp_path: Path) -> None:
    frame = frames_of("seven_scenes", tmp_path)[0]
    assert frame.camera.params == pytest.approx((525 / 16, 525 / 16, 20, 15))
    assert np.unique(frame.depth[frame.valid]).tolist() == [2.0]
    # The outermost depth pixel looks at x = 19.5 px / f_depth * 2 m, less the baseline.
    x = 19.5 / (585 / 16) * 2 - 0.025
    assert np.nonzero(frame.valid)[1].max() == int(np.floor(525 / 16 * x / 2 + 20))
    np.testing.assert_allclose(frame.world_from_cam[:3, 3], [5.025, 6, 7], atol=1e-9)


def test_colmap_dense_maps_and_scale(tmp_path: Path) -> None:
    frame = frames_of("colmap_dense", tmp_path)[1]
    expected = smooth(1)
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(frame.depth, expected)
    assert frame.scale == "up_to_scale" and frame.camera.params == (30, 31, 20, 15)
    np.testing.assert_allclose(frame.world_from_cam[:3, 3], COLMAP_CENTRES[1], atol=1e-12)
    scaled = list(sources.read("colmap_dense", tmp_path, metres_per_unit=2.0))[1]
    assert scaled.scale == "metric"
    np.testing.assert_allclose(scaled.depth, 2 * expected, rtol=1e-6)
    np.testing.assert_allclose(scaled.world_from_cam[:3, 3], 2 * COLMAP_CENTRES[1], atol=1e-12)
    assert_refused(lambda: sources.read("colmap_dense", tmp_path, maps="photometric"), "photometric.bin")
    assert_refused(lambda: sources.read("colmap_dense", tmp_path, maps="best"), "geometric or photometric")


def test_colmap_dense_checks_views_against_each_other(tmp_path: Path) -> None:
    require("colmap_dense")
    made.build_colmap_dense(tmp_path)
    for n, centre in enumerate(COLMAP_CENTRES):  # a wall at z = 4, and in the first map a wrong patch
        depth = np.full((HEIGHT, WIDTH), 4.0 - centre[2], np.float32)
        if n == 0:
            depth[10:15, 20:26] = 3.0
        made.write_colmap_map(tmp_path / f"stereo/depth_maps/{n}.png.geometric.bin", depth)
    frame = next(sources.read("colmap_dense", tmp_path, agreeing=2))
    assert np.isnan(frame.depth[10:15, 20:26]).all() and frame.valid.mean() > 0.6
    assert frame.notes["removed"]["inconsistent"] == (~frame.valid).sum()


def test_mvsnet_numbers(tmp_path: Path) -> None:
    frame = frames_of("mvsnet", tmp_path)[1]
    expected = smooth(1)
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(frame.depth, expected)
    assert frame.camera.params == (30, 31, 20, 15) and frame.scale == "up_to_scale"
    np.testing.assert_allclose(frame.world_from_cam[:3], inverse_pose([1, 2, 3]), atol=1e-12)


def test_nerfstudio_cameras_and_poses(tmp_path: Path) -> None:
    first, _, third = frames_of("nerfstudio", tmp_path)
    assert first.camera.model == "opencv" and first.camera.params[:8] == (30, 31, 20, 15, -0.1, 0.02, 0.001, 0)
    assert third.camera.fx == 33 and first.scale == "up_to_scale"
    assert first.depth[4, 5] == np.float32((1000 + 4 * WIDTH + 5) / 1000)
    gl = ROTATION @ np.diag([1.0, -1, -1])
    np.testing.assert_allclose(third.world_from_cam[:3], np.column_stack([gl, [2, 2, 3]]), atol=1e-12)
    metric = next(sources.read("nerfstudio", tmp_path, metric=True, sensor="tof"))
    assert (metric.scale, metric.sensor, metric.kind) == ("metric", "tof", "captured")
    fisheye = {"file_path": "images/0.png", "depth_file_path": "depths/0.png", "transform_matrix": np.eye(4).tolist()}
    lens = {"fl_x": 20.0, "cx": 20.0, "cy": 15.0, "k1": 0.1, "k4": 0.01, "camera_model": "OPENCV_FISHEYE"}
    write_json(tmp_path / "transforms.json", {**lens, "frames": [fisheye]})
    (only,) = sources.read("nerfstudio", tmp_path)
    assert only.camera.model == "kannala_brandt" and only.camera.params == (20, 20, 20, 15, 0.1, 0, 0, 0.01)
    write_json(tmp_path / "transforms.json", {**lens, "camera_model": "EQUIRECT", "frames": [fisheye]})
    assert_refused(lambda: next(sources.read("nerfstudio", tmp_path)), "transforms.json", "EQUIRECT")


def test_wai_numbers(tmp_path: Path) -> None:
    frame = frames_of("wai", tmp_path)[1]
    expected = smooth(1)
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(frame.depth, expected)
    assert frame.camera.params == (30, 31, 20, 15) and (frame.name, frame.source) == ("5a3ca9cb/1", "blendedmvs")
    np.testing.assert_allclose(frame.world_from_cam[:3], np.column_stack([ROTATION, [1, 2, 3]]), atol=1e-12)


def test_wai_scenes_are_written_as_mapanything_writes_them(tmp_path: Path) -> None:
    """The keys of its conversion scripts, files that others read, and the same frames back."""
    import OpenEXR

    frames = frames_of("wai", tmp_path / "in")
    lenses = [
        Camera.opencv(30, 31, 20, 15, WIDTH, HEIGHT, distortion=(0.1, 0.01, 0.001, 0.002, 0.003)),
        Camera.kannala_brandt(30, 31, 20, 15, WIDTH, HEIGHT, distortion=(0.1, 0.01, 0.001, 0.002)),
        frames[2].camera,
    ]
    given = [replace(f, camera=c, scale="metric") for f, c in zip(frames, lenses, strict=True)]
    given[0].depth[1, 1] = np.inf
    assert wai.write_scene(iter(given), tmp_path / "out/scene") == 3
    meta = json.loads((tmp_path / "out/scene/scene_meta.json").read_text())
    original = json.loads((tmp_path / "in/5a3ca9cb/scene_meta.json").read_text())
    assert set(original) - set(meta) == {"camera_model"} and set(original["frames"][0]) <= set(meta["frames"][0])
    with OpenEXR.File(str(tmp_path / "out/scene/depth/000000.exr"), separate_channels=True) as file:
        (channel,) = file.channels().values()
        assert channel.pixels.dtype == np.float32 and channel.pixels[1, 1] == 0 == channel.pixels[0, 0]
    back = list(sources.read("wai", tmp_path / "out"))
    for one, other in zip(given, back, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(np.where(np.isinf(one.depth), np.nan, one.depth), other.depth)
        np.testing.assert_array_equal(one.world_from_cam, other.world_from_cam)
        assert one.camera == other.camera and other.scale == "metric"
    bare = replace(frames[0], world_from_cam=None)
    assert_refused(lambda: wai.write_scene([bare], tmp_path / "no"), "5a3ca9cb/0", "pose")
    assert_refused(lambda: wai.write_scene([], tmp_path / "no"), "none")
    assert_refused(lambda: wai.write_scene([frames[0], given[1]], tmp_path / "no"), "metric, up_to_scale")
