"""Sensor models: near the truth, in range, reproducible, each with the artefact that it is named for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.procedural import items
from metricanything.sources.sensors import SENSOR_MODELS, simulate

W, H = 160, 120
NEAR, FAR = 1.5, 4.0
BOX = (slice(30, 90), slice(60, 100))  # where the near square stands in `step`


@pytest.fixture(scope="module")
def step() -> Frame:
    """A textured square at 1.5 m before a textured wall at 4 m, seen by a 60 degree camera, sky on top."""
    rng = np.random.default_rng(0)
    depth = np.full((H, W), FAR, np.float32)
    depth[BOX] = NEAR
    depth[:8] = np.inf
    image = np.repeat(rng.integers(60, 200, (H, W, 1)), 3, axis=2).astype(np.uint8)
    return Frame("step", image, depth, Camera.from_fov(60, W, H), "rendered", "synthetic", "test", "CC0-1.0")


@pytest.fixture(scope="module")
def room() -> Frame:
    return next(
        frame for _, frame in items(count=40, seed=4, width=W, height=H).read() if frame.notes["scene"] == "room"
    )


@pytest.mark.parametrize("name", SENSOR_MODELS)
def test_every_model_stays_near_the_truth(name: str, step: Frame, room: Frame) -> None:
    for frame in (step, room):
        before = frame.depth.copy()
        out = simulate(frame, name, seed=1)
        assert np.array_equal(frame.depth, before, equal_nan=True)
        assert out.camera == frame.camera and out.image is frame.image and out.notes["sensor_model"] == name
        assert out.kind in ("captured", "reconstructed") and out.sensor != "synthetic"
        assert not np.isinf(out.depth).any()
        assert not np.isfinite(out.depth[np.isinf(frame.depth)]).any()
        both = out.valid & frame.valid
        assert both.sum() >= 30
        relative = np.abs(out.depth[both] / frame.depth[both] - 1)
        assert np.median(relative) < 0.02 and np.mean(relative < 0.1) > 0.8
        low, high = frame.depth[frame.valid].min(), frame.depth[frame.valid].max()
        assert out.depth[both].min() > 0.45 * low and out.depth[both].max() < 2.1 * high
        if out.sigma is not None:
            assert np.all(out.sigma[out.valid] > 0) and not np.isfinite(out.sigma[~out.valid]).any()


@pytest.mark.parametrize("name", SENSOR_MODELS)
def test_every_model_is_reproducible(name: str, step: Frame) -> None:
    a, b, c = (simulate(step, name, seed) for seed in (5, 5, 6))
    assert np.array_equal(a.depth, b.depth, equal_nan=True)
    assert not np.array_equal(a.depth, c.depth, equal_nan=True)
    assert not np.array_equal(a.depth, step.depth, equal_nan=True)


@pytest.mark.parametrize("name", SENSOR_MODELS)
def test_every_model_bears_an_empty_scene_and_any_camera(name: str, step: Frame, room: Frame) -> None:
    sky = replace(step, depth=np.full((H, W), np.inf, np.float32))
    assert not simulate(sky, name, seed=0).valid.any()
    fisheye = Camera.kannala_brandt(60, 60, W / 2, H / 2, W, H, distortion=(0.02, 0, 0, 0))
    assert simulate(replace(room, camera=fisheye), name, seed=0).valid.any()


def columns_beside_the_box(frame: Frame, left: bool) -> np.ndarray:
    """Depth (rows of the box's middle, 4 columns) just outside the box on one side."""
    return frame.depth[40:80, 55:59] if left else frame.depth[40:80, 101:105]


def test_stereo_has_occlusion_holes_on_one_side_and_fat_edges(step: Frame) -> None:
    outs = [simulate(step, "stereo", seed) for seed in range(8)]
    left, right = (np.mean([np.isnan(columns_beside_the_box(o, side)).mean() for o in outs]) for side in (True, False))
    assert left > right + 0.3
    beside = np.stack([o.depth[40:80, 100] for o in outs])
    assert np.mean(np.abs(beside / NEAR - 1) < 0.1) > 0.1


def test_stereo_error_grows_with_depth_and_needs_texture(step: Frame) -> None:
    out = simulate(step, "stereo", 0)
    error = np.abs(out.depth - step.depth)
    assert np.nanmedian(error[40:80, 65:95]) < 0.5 * np.nanmedian(error[95:, :])
    assert np.median(out.sigma[100:, :][out.valid[100:, :]]) > 4 * np.median(out.sigma[50, 65:95])
    blank = replace(step, image=np.full((H, W, 3), 128, np.uint8))
    assert not simulate(blank, "stereo", 0).valid.any()


def test_structured_light_quantises_and_casts_the_projectors_shadow(step: Frame) -> None:
    out = simulate(step, "structured_light", 2)
    steps = 1 / out.depth[out.valid].astype(np.float64) / 2.85e-3
    assert np.abs(steps - np.round(steps)).max() < 1e-3
    right, left = (np.isnan(columns_beside_the_box(out, side)).mean() for side in (False, True))
    assert right > left + 0.3
    assert not simulate(replace(step, depth=step.depth * 3), "structured_light", 2).valid[100:].any()


def test_tof_has_flying_pixels_and_more_noise_from_dark_surfaces(step: Frame) -> None:
    out = simulate(step, "tof", 0)
    between = (out.depth > 1.15 * NEAR) & (out.depth < 0.9 * FAR)
    assert between.sum() > 50
    rim = np.zeros((H, W), bool)
    rim[28:92, 58:102], rim[32:88, 62:98] = True, False
    assert not between[~rim].any()
    dark = replace(step, image=np.full((H, W, 3), 10, np.uint8))
    wall = np.s_[95:, :]
    noise = [np.nanstd(simulate(frame, "tof", 0).depth[wall]) for frame in (step, dark)]
    assert noise[1] > 1.2 * noise[0]


def test_lidar_gives_lines_and_bleeds_through_edges(step: Frame) -> None:
    outs = [simulate(step, "lidar", seed) for seed in range(12)]
    share = [o.valid.mean() for o in outs]
    assert max(share) < 0.5 and min(share) > 0.005
    sparse = outs[int(np.argmin(share))]
    along, across = ((sparse.valid[a] & sparse.valid[b]).sum() for a, b in
                     ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])))  # fmt: skip
    assert along > 3 * across
    inside = np.zeros((H, W), bool)
    inside[BOX] = True
    bled = [(o.depth[inside & o.valid] > 0.8 * FAR).sum() for o in outs]
    assert sum(bled) > 10
    assert all((o.depth[inside & o.valid] < 1.1 * NEAR).mean() > 0.7 for o in outs)


def test_mvs_rounds_edges_has_outliers_and_gaps(step: Frame) -> None:
    out = simulate(step, "mvs", 0)
    between = (out.depth > 1.15 * NEAR) & (out.depth < 0.85 * FAR)
    rim = np.zeros((H, W), bool)
    rim[25:95, 55:105], rim[35:85, 65:95] = True, False
    assert between[rim].mean() > 0.02
    wall = out.depth[100:]
    assert 0.001 < np.mean(np.abs(wall[np.isfinite(wall)] / FAR - 1) > 0.1) < 0.2
    blank = replace(step, image=np.full((H, W, 3), 128, np.uint8))
    assert simulate(blank, "mvs", 0).valid.mean() < 0.6 * out.valid.mean()


def test_sfm_points_lie_on_texture_and_know_their_noise(step: Frame) -> None:
    image = step.image.copy()
    image[:, W // 2 :] = 128
    outs = [simulate(replace(step, image=image), "sfm", seed) for seed in range(20)]
    valid = np.stack([o.valid for o in outs])
    assert valid[:, :, : W // 2].sum() > 500 and valid[:, :, W // 2 + 6 :].sum() == 0
    assert valid.mean() < 0.05
    ratio = np.concatenate([((o.depth - step.depth) / o.sigma)[o.valid] for o in outs])
    assert 0.8 < np.median(np.abs(ratio)) / 0.6745 < 1.25


def test_bad_input_is_named(step: Frame) -> None:
    with pytest.raises(InputError, match="sonar"):
        simulate(step, "sonar", 0)
    with pytest.raises(InputError, match="step"):
        simulate(replace(step, scale="affine"), "tof", 0)
