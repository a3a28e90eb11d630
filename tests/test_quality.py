"""Measurements of a frame: each on scenes where the right answer is known."""

from __future__ import annotations

import io
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import plane_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from metricanything import sources
from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.curate.duplicates import hamming
from metricanything.curate.edges import edge_agreement, grid_step
from metricanything.curate.quality import Quality, is_sparse, measure, reduced

SHARED = Path(__file__).parents[2] / "shared" / "data"


def boxes(seed: int = 0, height: int = 240, width: int = 320, **given: Any) -> Frame:
    """Flat boxes of one colour each before a slanted plane with some texture, in `height` x `width` pixels."""
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.normal(0, 60, (height, width)), 3)
    image = np.repeat((120 + texture)[..., None], 3, axis=-1)
    depth = np.broadcast_to(np.linspace(4, 6, width), (height, width)).copy()
    for _ in range(10):
        top, left = rng.integers(20, height - 70), rng.integers(20, width - 70)
        down, across = rng.integers(20, 50, 2)
        image[top : top + down, left : left + across] = rng.integers(0, 256, 3)
        depth[top : top + down, left : left + across] = rng.uniform(1, 3)
    defaults: dict[str, Any] = {
        "name": f"boxes/{seed}",
        "image": np.clip(image, 0, 255).astype(np.uint8),
        "depth": depth.astype(np.float32),
        "camera": Camera.centred(300, width, height),
        "kind": "rendered",
        "sensor": "synthetic",
        "source": "boxes",
        "licence": "CC0-1.0",
    }
    return Frame(**{**defaults, **given})


def moved(frame: Frame, down: int, across: int) -> Frame:
    """The frame with its depth moved by whole pixels, unknown where nothing moved in."""
    depth = np.roll(frame.depth, (down, across), axis=(0, 1))
    rows, columns = np.mgrid[: frame.height, : frame.width]
    inside = (rows - down >= 0) & (rows - down < frame.height) & (columns - across >= 0)
    return replace(frame, depth=np.where(inside & (columns - across < frame.width), depth, np.float32(np.nan)))


# ---------------------------------------------------------------- edges


@pytest.mark.parametrize("shift", [(0, 0), (8, 0), (-8, 0), (0, 8), (6, -6), (-4, 10)])
def test_the_search_finds_by_how_much_the_depth_was_moved(shift: tuple[int, int]) -> None:
    quality = measure(moved(boxes(), *shift))
    assert abs(quality.edge_dy + shift[0]) <= 2 and abs(quality.edge_dx + shift[1]) <= 2
    assert (quality.edge_margin > 1.05) == (shift == (0, 0))


def test_pixels_are_those_of_the_image_also_where_the_grid_is_coarser() -> None:
    large = boxes(height=480, width=640)
    assert grid_step(large.width) == 2
    quality = measure(moved(large, 0, 12))
    assert abs(quality.edge_dx + 12) <= 4 and abs(quality.edge_dy) <= 4


def test_the_edges_of_another_scene_have_no_peak() -> None:
    own = [measure(boxes(seed)).edge_peak for seed in range(6)]
    other = [measure(replace(boxes(seed), image=boxes(seed + 50).image)).edge_peak for seed in range(6)]
    assert max(other) < 0.6 * min(own)


def test_shifts_along_edges_that_run_in_one_direction_do_not_count() -> None:
    """Bars from top to bottom look the same wherever they are moved along themselves, and tell shifts across."""
    rng = np.random.default_rng(4)
    frame = boxes()
    image, depth = rng.integers(0, 40, (240, 320, 3)), np.full((240, 320), 4.0, np.float32)
    for left in (40, 75, 130, 170, 231):
        image[:, left : left + 20] += 150
        depth[:, left : left + 20] = 2
    bars = replace(frame, image=image.astype(np.uint8), depth=depth)
    assert measure(bars).edge_margin > 1.2
    assert measure(moved(bars, 8, 0)).edge_margin > 1.2
    assert measure(moved(bars, 0, 8)).edge_margin < 0.9


def test_a_slanted_plane_has_no_depth_edges() -> None:
    frame = boxes()
    rays = frame.camera.rays().astype(np.float64)
    depth = 1 / (rays / rays[..., 2:] @ np.array([0.3, 0.5, 1.0]) / 3)
    quality = measure(replace(frame, depth=depth.astype(np.float32)))
    assert math.isnan(quality.edge_margin) and math.isnan(quality.edge_dx)


def test_shadows_beside_a_foreground_object_are_filled_from_behind() -> None:
    frame = boxes()
    near = frame.depth < 3.5
    shadow = np.roll(near, 3, axis=1) & ~near
    quality = measure(replace(frame, depth=np.where(shadow, np.float32(np.nan), frame.depth)))
    assert quality.edge_margin > 1.05 and abs(quality.edge_dx) <= 2


@pytest.mark.parametrize("across", [0, 8, -8, 12])
def test_jumps_along_scan_lines_tell_shifts_across(across: int) -> None:
    frame = moved(boxes(seed=3, height=480, width=640), 0, across)
    depth = np.full_like(frame.depth, np.nan)
    depth[::6, ::5] = frame.depth[::6, ::5]
    assert is_sparse(np.isfinite(depth)) and not is_sparse(frame.valid)
    quality = measure(replace(frame, depth=depth))
    assert abs(quality.edge_dx + across) <= 4 and quality.edge_dy == 0
    assert (quality.edge_margin > 1.05) == (across == 0)
    assert math.isnan(quality.edge_peak)


def test_points_without_neighbours_on_their_row_tell_nothing() -> None:
    frame, rng = boxes(), np.random.default_rng(0)
    depth = np.where(rng.random(frame.depth.shape) < 0.003, frame.depth, np.float32(np.nan))
    assert is_sparse(np.isfinite(depth))
    assert math.isnan(measure(replace(frame, depth=depth)).edge_margin)


def test_small_images_are_not_measurable_rather_than_an_error() -> None:
    for size in [(1, 1), (3, 5), (20, 30)]:
        frame = boxes(height=240, width=320)
        image, depth = frame.image[: size[0], : size[1]], frame.depth[: size[0], : size[1]]
        quality = measure(replace(frame, image=image, depth=depth, camera=Camera.centred(30, size[1], size[0])))
        assert math.isnan(quality.edge_margin)
    assert np.isnan(edge_agreement(np.zeros((30, 30, 3), np.uint8), np.ones((30, 30), np.float32), 1)).all()


# ---------------------------------------------------------------- outliers


def test_outliers_are_counted_exactly_when_they_stand_alone() -> None:
    frame = plane_frame(0, 100, 320)  # few enough rows that every one is looked at
    depth = np.full_like(frame.depth, 2.0)
    depth[10:-10:7, 10:-10:7] *= 1.5
    depth[40:80, 13] = 1.5  # a railing of one pixel is no outlier
    changed = int((depth > 2.5).sum()) + 2  # and the two ends of the railing, with one neighbour each
    assert measure(replace(frame, depth=depth)).outliers == pytest.approx(changed / (98 * 318), rel=1e-6)
    tall = replace(plane_frame(0, 200, 320), depth=np.concatenate([depth, depth]))
    assert measure(tall).outliers == pytest.approx(changed / (98 * 318), rel=0.2)  # every third row


def test_slopes_and_silhouettes_are_not_outliers() -> None:
    assert measure(boxes()).outliers < 0.005


@pytest.mark.parametrize("step", [1, 4])
def test_fifteen_percent_of_outliers_show_in_dense_and_sparse_depth(step: int) -> None:
    frame, rng = boxes(), np.random.default_rng(0)
    depth = np.full_like(frame.depth, np.nan)
    depth[::step, ::step] = frame.depth[::step, ::step]
    good = measure(replace(frame, depth=depth)).outliers
    wrong = np.isfinite(depth) & (rng.random(depth.shape) < 0.15)
    depth[wrong] = np.exp(rng.uniform(np.log(1), np.log(6), wrong.sum()))
    bad = measure(replace(frame, depth=depth)).outliers
    assert good < 0.02 and 0.07 < bad < 0.25


# ---------------------------------------------------------------- two views


def views(scale: float = 1.0) -> tuple[Frame, Frame]:
    """A wall seen from two places 0.4 m apart, the first one's depth times `scale`."""
    frame = boxes()
    rays = frame.camera.rays().astype(np.float64)
    unit = rays / rays[..., 2:]
    normal = np.array([0.2, -0.1, 1.0])

    def seen(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        depth = (3.0 - normal @ position) / (unit @ normal)
        points = unit * depth[..., None] + position
        grey = 128 + 90 * np.sin(9 * points[..., 0]) * np.cos(7 * points[..., 1])
        return depth.astype(np.float32), np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)

    frames = []
    for position in (np.zeros(3), np.array([0.4, 0.1, 0.2])):
        pose = np.eye(4)
        pose[:3, 3] = position
        depth, image = seen(position)
        frames.append(replace(frame, depth=depth, image=image, world_from_cam=pose))
    return replace(frames[0], depth=frames[0].depth * np.float32(scale)), frames[1]


def test_two_views_agree_in_depth_and_colour() -> None:
    quality = measure(*views())
    assert quality.view_depth < 0.01 and quality.view_photo > 0.95


def test_two_views_tell_a_wrong_scale_and_a_wrong_focal_length() -> None:
    first, second = views(1.3)
    assert measure(first, second).view_depth == pytest.approx(np.log(1.3), abs=0.06)
    first, second = views()
    wrong = replace(first, camera=Camera.centred(300 * 0.6, first.width, first.height))
    assert measure(wrong, second).view_photo < measure(first, second).view_photo - 0.2


def test_without_pose_or_neighbour_nothing_is_said_of_two_views() -> None:
    first, second = views()
    for quality in (measure(first), measure(replace(first, world_from_cam=None), second)):
        assert math.isnan(quality.view_depth) and math.isnan(quality.view_photo)


# ---------------------------------------------------------------- the rest


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=15)
def test_reduction_is_the_mean_of_blocks(step: int, more_rows: int, more_columns: int) -> None:
    image = np.random.default_rng(step).integers(0, 256, (6 * step + more_rows, 5 * step + more_columns, 3), np.uint8)
    rows, columns = image.shape[0] // step, image.shape[1] // step
    whole = image[: rows * step, : columns * step].astype(np.float64)
    expected = whole.reshape(rows, step, columns, step, 3).mean(axis=(1, 3))
    assert np.abs(reduced(image, step) - expected).max() < 0.6  # Pillow rounds to grey levels


def test_the_hash_survives_compression_and_resizing_and_tells_scenes_apart() -> None:
    frame = boxes(height=480, width=640)
    buffer = io.BytesIO()
    Image.fromarray(frame.image).resize((400, 300)).save(buffer, "JPEG", quality=60)
    image = np.asarray(Image.open(buffer))
    same = replace(frame, image=image, depth=np.ones((300, 400), np.float32), camera=Camera.centred(200, 400, 300))
    hashes = [measure(f).hash for f in (frame, same, *(boxes(seed) for seed in range(1, 8)))]
    distances = hamming(hashes[0], hashes[1:])
    assert distances[0] <= 4 and distances[1:].min() > 12


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (5, 40), (31, 31), (33, 20), (900, 12)])
def test_images_smaller_than_the_hash_have_one(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    frame = replace(boxes(), image=image, depth=np.ones(size, np.float32), camera=Camera.centred(30, size[1], size[0]))
    assert (measure(frame).hash == 0) == (size == (1, 1))  # one pixel is flat


def test_flat_images_have_no_hash() -> None:
    assert measure(replace(boxes(), image=np.full((240, 320, 3), 80, np.uint8))).hash == 0


def test_the_depth_hash_is_of_the_exact_values() -> None:
    frame = boxes()
    depth = frame.depth.copy()
    assert measure(replace(frame, depth=depth[:, ::-1][:, ::-1])).depth_hash == measure(frame).depth_hash
    depth[100, 100] = np.nextafter(depth[100, 100], np.float32(9))
    assert measure(replace(frame, depth=depth)).depth_hash != measure(frame).depth_hash
    assert measure(replace(frame, depth=np.full_like(depth, np.nan))).depth_hash == 0


def test_sky_exposure_and_sharpness() -> None:
    frame = boxes()
    depth = frame.depth.copy()
    depth[:60] = np.inf
    image = frame.image.copy()
    image[:120] = 255
    quality = measure(replace(frame, depth=depth, image=image))
    assert quality.sky == 0.25 and 0.5 <= quality.clipped < 0.6
    soft = ndimage.gaussian_filter(frame.image, (4, 4, 0))
    assert measure(replace(frame, image=soft)).sharpness < 0.5 * measure(frame).sharpness


@given(st.integers(0, 20), st.sampled_from([(48, 64), (30, 30), (9, 200)]))
@settings(max_examples=12)
def test_every_measurement_is_a_number_or_nan(seed: int, size: tuple[int, int]) -> None:
    frame = plane_frame(seed, *size)
    for value in (measure(frame), measure(replace(frame, depth=np.full_like(frame.depth, np.nan)))):
        record = value.to_dict()
        assert list(record) == [f.name for f in fields(Quality)]
        assert all(isinstance(record[name], int) and 0 <= record[name] < 2**64 for name in Quality.HASHES)
        assert not any(math.isinf(v) for name, v in record.items() if name not in Quality.HASHES)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared development data is not beside the repository")
def test_the_registration_error_of_a_real_source_is_found() -> None:
    """The depth of this source was re-registered with the usual extrinsics, which leaves some pixels."""
    items = sources.open_items("folder", SHARED / "train" / "tsdf_7scenes")
    found = [measure(items.load(i)) for i in range(0, len(items), 12)]
    assert np.median([q.edge_dx for q in found]) in (2, 4) and np.median([q.edge_dy for q in found]) in (2, 4)
