"""From frames to batches: geometry survives augmentation, and batch k depends on (seed, k) alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.data.augment import Augmentation, View, Window, random_colours, random_window, resample
from metricanything.data.batches import Batch, canonical
from metricanything.data.mixture import Mixture
from metricanything.data.photometric import develop
from metricanything.data.prompts import PromptMixture
from metricanything.patterns.grid import Grid
from metricanything.patterns.noise import RangeNoise
from metricanything.patterns.uniform import Uniform

MakeFrame = Callable[..., Frame]
MakeShards = Callable[..., Shards]


# ---------------------------------------------------------------- views


def random_view(frame: Frame, rng: np.random.Generator, height: int, width: int, **options: object) -> View:
    return resample(frame, random_window((frame.height, frame.width), (height, width), rng, Augmentation(**options)))


def crop_and_resize(frame: Frame, box: tuple[int, int, int, int], height: int, width: int) -> View:
    return resample(frame, Window(box, height, width))


def plane(height: int, width: int, **fields: object) -> tuple[Frame, NDArray[np.float64], float]:
    """A frame that shows one slanted plane normal . X = distance, and that plane."""
    camera = Camera.pinhole(0.9 * width, 0.8 * width, 0.45 * width, 0.56 * height, width, height)
    normal, distance = np.array([0.2, -0.3, 1.0]), 4.0
    rays = camera.rays().astype(np.float64)
    depth = (distance / ((rays / rays[..., 2:]) @ normal)).astype(np.float32)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)  # red tells the column, green the row
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    frame = Frame("plane", image, depth, camera, "rendered", "synthetic", "planes", "CC0-1.0")
    return dataclasses.replace(frame, **fields), normal, distance


def is_mirrored(view: View) -> bool:
    """Whether the columns of a view of `plane` run against those of its source."""
    return bool(view.image[:, 0, 0].mean() > view.image[:, -1, 0].mean())


def off_plane(view: View, normal: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """|n . X - d| / d of the view's depth unprojected by the view's camera, where there is depth.

    A mirrored view shows the scene with x reversed.
    """
    rays = view.camera.rays().astype(np.float64)
    points = rays / rays[..., 2:] * view.depth[..., None] * (-1 if is_mirrored(view) else 1, 1, 1)
    return np.abs(points @ normal - distance)[np.isfinite(view.depth)] / distance


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), height=st.sampled_from([32, 64, 96]), width=st.sampled_from([32, 64, 96]))
def test_camera_follows_the_view(seed: int, height: int, width: int) -> None:
    """Every pixel of an augmented view still lies on the plane, up to the half pixel of nearest sampling."""
    frame, normal, distance = plane(120, 160)
    view = random_view(frame, np.random.default_rng(seed), height, width)
    assert view.image.shape == (height, width, 3)
    assert view.image.dtype == np.uint8
    assert view.depth.shape == (height, width)
    assert view.depth.dtype == np.float32
    assert (view.camera.width, view.camera.height) == (width, height)
    # A source pixel spans 1 / (0.8 * 160) of the view plane; half of it, times the slope of the plane, is below 0.3 %.
    assert off_plane(view, normal, distance).max() < 0.004


def test_known_points_project_to_their_depth(make_frame: MakeFrame) -> None:
    """3D points of the original frame, projected by the camera of a view, meet their own z there."""
    frame = make_frame(3, 96, 128)
    grid = frame.camera.pixel_grid()
    rays = frame.camera.unproject(grid)
    points = (rays / rays[..., 2:] * frame.depth[..., None])[frame.valid]
    image = plane(96, 128)[0].image
    for seed in range(10):
        view = random_view(dataclasses.replace(frame, image=image), np.random.default_rng(seed), 64, 96)
        uv = view.camera.project(points * (-1 if is_mirrored(view) else 1, 1, 1))
        inside = (uv[:, 0] >= 0) & (uv[:, 0] < 96) & (uv[:, 1] >= 0) & (uv[:, 1] < 64)
        column, row = uv[inside].astype(int).T
        ratio = view.depth[row, column] / points[inside, 2]
        assert inside.mean() > 0.2
        assert np.mean(np.abs(ratio - 1) < 0.02) > 0.93  # the rest are pixels of the box's outline and of the sky's


def test_colours_follow_the_view() -> None:
    """Red tells the column of the source: it must rise to the right, or fall where the view is mirrored, as fx says."""
    frame, _, _ = plane(120, 160)
    view = crop_and_resize(frame, (40, 30, 120, 90), 30, 40)
    assert abs(int(view.image[15, 0, 0]) - 65) <= 2
    assert abs(int(view.image[15, -1, 0]) - 189) <= 2
    assert abs(int(view.image[0, 20, 1]) - 66) <= 2


def test_crop_and_resize_moves_the_camera_as_stated() -> None:
    frame, _, _ = plane(120, 160)
    view = crop_and_resize(frame, (40, 30, 120, 90), 30, 40)
    reference = frame.camera.crop(40, 30, 80, 60).resize(40, 30)
    np.testing.assert_allclose(view.camera.params, reference.params)
    whole = crop_and_resize(frame, (0, 0, 160, 120), 120, 160)
    np.testing.assert_array_equal(whole.depth, frame.depth)
    np.testing.assert_array_equal(whole.image, frame.image)
    assert whole.camera == frame.camera


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.005, 0.05, 0.29, 0.5]))
def test_depth_values_are_copies(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 50, (60, 80)).astype(np.float32)
    depth[rng.random(depth.shape) > share] = np.nan
    frame, _, _ = plane(60, 80, depth=depth)
    view = random_view(frame, rng, 32, 64)
    found = view.depth[np.isfinite(view.depth)]
    assert np.isin(found, depth).all()


@given(seed=st.integers(0, 10_000))
def test_no_sparse_point_is_lost_when_pixels_are_enough(seed: int) -> None:
    """Sparse maps are resampled point by point: each point inside the window has a pixel, or a nearer one hides it."""
    rng = np.random.default_rng(seed)
    depth = np.full((60, 80), np.nan, np.float32)
    depth[rng.integers(0, 60, 30), rng.integers(0, 80, 30)] = rng.uniform(1, 50, 30).astype(np.float32)
    frame, _, _ = plane(60, 80, depth=depth)
    left, top = rng.uniform(0, 20, 2)
    box = (left, top, left + 50, top + 35)
    view = crop_and_resize(frame, box, 70, 100)
    rows, columns = np.nonzero(np.isfinite(depth))
    inside = (columns + 0.5 >= box[0]) & (columns + 0.5 <= box[2]) & (rows + 0.5 >= box[1]) & (rows + 0.5 <= box[3])
    expected = np.sort(depth[rows[inside], columns[inside]])
    np.testing.assert_array_equal(np.sort(view.depth[np.isfinite(view.depth)]), expected)  # twice the resolution
    small = crop_and_resize(frame, box, 7, 10)
    cell = ((rows + 0.5 - top) / 5).astype(int) * 10 + ((columns + 0.5 - left) / 5).astype(int)
    nearest = [depth[rows[inside], columns[inside]][cell[inside] == c].min() for c in np.unique(cell[inside])]
    np.testing.assert_array_equal(np.sort(small.depth[np.isfinite(small.depth)]), np.sort(nearest))


def test_sky_survives() -> None:
    frame, _, _ = plane(60, 80)
    depth = frame.depth.copy()
    depth[:30] = np.inf
    view = crop_and_resize(dataclasses.replace(frame, depth=depth), (0, 0, 80, 60), 32, 64)
    assert np.isinf(view.depth[:15]).all()
    assert np.isfinite(view.depth[17:]).all()


@pytest.mark.parametrize(("height", "width"), [(40, 200), (200, 40), (33, 32)])
def test_any_aspect_fits(height: int, width: int) -> None:
    """A frame much wider or taller than the view: the window stays inside and pixels stay nearly square."""
    frame, normal, distance = plane(height, width)
    for seed in range(20):
        view = random_view(frame, np.random.default_rng(seed), 64, 64)
        stretch = (view.camera.fx / frame.camera.fx) / (view.camera.fy / frame.camera.fy)
        assert abs(np.log(stretch)) <= 0.05 + 1 / (0.6 * min(height, width) - 2)  # windows are of whole pixels
        assert np.isfinite(view.depth).all()
        assert off_plane(view, normal, distance).max() < 0.05


def test_views_are_mirrored_half_of_the_time() -> None:
    frame, _, _ = plane(60, 80)
    views = [random_view(frame, np.random.default_rng(seed), 32, 32) for seed in range(60)]
    assert 15 < sum(map(is_mirrored, views)) < 45


def test_recolour_keeps_the_picture() -> None:
    image = torch.from_numpy(plane(60, 80)[0].image).permute(2, 0, 1).expand(20, -1, -1, -1)
    colours = np.stack([random_colours(np.random.default_rng(seed), Augmentation()) for seed in range(20)])
    pictures = develop(image, torch.from_numpy(colours)).numpy()
    assert all(np.corrcoef(picture[0].ravel(), image[0, 0].ravel())[0, 1] > 0.8 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 20


# ---------------------------------------------------------------- mixture


def assert_same(a: Batch, b: Batch) -> None:
    for field in dataclasses.fields(Batch):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == other


@pytest.fixture
def shards(make_frame: MakeFrame, make_shards: MakeShards) -> Shards:
    """Nine frames of one source and four of another, which is captured and known up to scale only."""
    rendered = [make_frame(seed) for seed in range(9)]
    real = {"source": "drive", "kind": "reconstructed", "sensor": "sfm", "scale": "up_to_scale"}
    return make_shards(rendered + [make_frame(seed, name=f"drive/{seed}", **real) for seed in range(4)])


def mixture(shards: Shards, seed: int = 0, **options: object) -> Mixture:
    return Mixture(shards, sizes=((32, 64), (64, 32)), batch_size=3, seed=seed, **options)


def test_batch_is_a_function_of_seed_and_step(shards: Shards) -> None:
    """In any order, from any instance."""
    first, second = mixture(shards), mixture(Shards(shards.folder))
    forward = [first.batch(k) for k in range(6)]
    backward = [second.batch(k) for k in reversed(range(6))][::-1]
    for a, b in zip(forward, backward, strict=True):
        assert_same(a, b)
    assert_same(first.batch(2), forward[2])
    assert len({batch.image_B3HW.numpy().tobytes() for batch in forward}) == 6
    assert mixture(shards, seed=1).batch(0).image_B3HW.numpy().tobytes() != forward[0].image_B3HW.numpy().tobytes()


def test_batch_contents(shards: Shards) -> None:
    data, sizes = mixture(shards), set()
    for k in range(12):
        batch = data.batch(k)
        height, width = batch.depth_BHW.shape[1:]
        sizes.add((height, width))
        assert batch.image_B3HW.shape == (3, 3, height, width)
        assert batch.image_B3HW.dtype == batch.depth_BHW.dtype == batch.focal_B.dtype == torch.float32
        assert 0 <= batch.image_B3HW.min() <= batch.image_B3HW.max() <= 1
        assert batch.plane_BHW2.shape == (3, height, width, 2)
        assert batch.trusted_B.tolist() == batch.metric_B.tolist() == [n.startswith("planes") for n in batch.names]
        # x / z of neighbouring columns differ by 1 / fx, and the focal is in widths.
        step = (batch.plane_BHW2[:, 0, -1, 0] - batch.plane_BHW2[:, 0, 0, 0]) / (width - 1)
        torch.testing.assert_close(1 / step / width, batch.focal_B, rtol=1e-4, atol=0)
    assert sizes == {(32, 64), (64, 32)}


def test_weights_are_respected(shards: Shards) -> None:
    def share(weights: dict[str, float] | None) -> float:
        data = mixture(shards, weights=weights)
        counts = Counter(name.split("/")[0] for k in range(200) for name in data.batch(k).names)
        return counts["drive"] / counts.total()

    assert share(None) == pytest.approx(2 / 5, abs=0.06)  # sqrt(4) : sqrt(9)
    assert share({"drive": 1, "planes": 4}) == pytest.approx(0.2, abs=0.05)
    assert share({"drive": 3}) == 1  # what is not named is not drawn
    assert share({"planes": 2, "drive": 0}) == 0


@pytest.mark.parametrize(
    "weights", [{"drives": 1.0}, {"drive": -1.0}, {"drive": 0, "planes": 0}, {"drive": float("nan")}]
)
def test_bad_weights(shards: Shards, weights: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be >= 0, for sources among drive, planes"):
        mixture(shards, weights=weights)


def test_every_frame_is_drawn(shards: Shards) -> None:
    data = mixture(shards)
    assert len({name for k in range(60) for name in data.batch(k).names}) == len(shards)


def test_canonical_inverse_depth() -> None:
    depth = torch.tensor([[[2.0, np.nan, np.inf, 0.0, -1.0]]])
    np.testing.assert_allclose(canonical(depth, torch.tensor([0.8]))[0, 0], [[0.4, 0, 0, 0, 0]])


# ---------------------------------------------------------------- prompts of a batch


def test_prompts_are_dropped_for_metric_samples_only() -> None:
    prompts = PromptMixture(((1.0, Uniform(points=(5, 5))),), dropout=0.3)
    depth, metric = torch.ones(400, 12, 12), torch.arange(400) % 2 == 0
    prompted = torch.isfinite(prompts.draw(depth, metric, torch.Generator().manual_seed(0))).flatten(1).any(dim=1)
    assert prompted[~metric].all()
    assert float(prompted[metric].float().mean()) == pytest.approx(0.7, abs=0.1)


def test_prompt_mixture_respects_weights_and_seed() -> None:
    prompts = PromptMixture(((3.0, Uniform(points=(7, 7), max_fraction=1.0)), (1.0, Grid(factors=(2, 2)))), dropout=0.0)
    depth, metric = torch.ones(300, 8, 8), torch.ones(300, dtype=torch.bool)
    drawn = prompts.draw(depth, metric, torch.Generator().manual_seed(0)).nan_to_num()
    counts = Counter(drawn.flatten(1).sum(dim=1).tolist())
    assert set(counts) == {7, 16}
    assert counts[7] / 300 == pytest.approx(0.75, abs=0.08)
    assert torch.equal(drawn, prompts.draw(depth, metric, torch.Generator().manual_seed(0)).nan_to_num())
    assert not torch.equal(drawn, prompts.draw(depth, metric, torch.Generator().manual_seed(1)).nan_to_num())


def test_prompt_mixture_by_name_with_noise() -> None:
    """The noise falls on its share of the samples, whatever their pattern; the default is the paper's masking."""
    assert PromptMixture() == PromptMixture.of({"uniform": 1.0})
    prompts = PromptMixture.of({"uniform-7": 3, "grid-2": 1}, dropout=0.0, noise=((0.4, RangeNoise((0.1, 0.1))),))
    depth, metric = torch.ones(300, 8, 8), torch.ones(300, dtype=torch.bool)
    drawn = prompts.draw(depth, metric, torch.Generator().manual_seed(0))
    points = torch.isfinite(drawn)
    assert Counter(points.flatten(1).sum(dim=1).tolist()).keys() == {7, 16}
    clean = ((drawn == 1) | ~points).flatten(1).all(dim=1)
    assert float(clean.float().mean()) == pytest.approx(0.6, abs=0.08)
    with pytest.raises(InputError, match="'unifrom' is unknown"):
        PromptMixture.of({"unifrom": 1.0})


def test_prompt_mixture_reads_nothing_back_from_the_device() -> None:
    """Tensors on the meta device hold no data: whatever would wait for a value on the device fails on them."""
    depth, metric = torch.empty(6, 40, 50, device="meta"), torch.empty(6, dtype=torch.bool, device="meta")
    prompts = PromptMixture.of({"uniform": 1, "uniform-50": 1})
    assert prompts.draw(depth, metric, torch.Generator().manual_seed(0)).shape == depth.shape


def test_prompt_lies_on_known_depth(shards: Shards, tmp_path: Path) -> None:
    batch = mixture(shards).batch(0)
    prompts = PromptMixture(((1.0, Uniform(points=(50, 50))), (1.0, Grid())), dropout=0.0)
    prompt = prompts.draw(batch.depth_BHW, batch.metric_B, torch.Generator().manual_seed(0))
    points = torch.isfinite(prompt)
    assert points.any()
    assert torch.equal(prompt[points], batch.depth_BHW[points])
