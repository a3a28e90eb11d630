"""Prompt patterns: what every one promises, their names, and prompts from depth maps and real frames."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pattern_fixtures import CHANGED, MOVED, NAMES, TABLES, draw, drawable, image_like, sparse_depth

from metricanything import sources
from metricanything.core.errors import InputError
from metricanything.patterns import draw_prompt, get_pattern
from metricanything.patterns.grid import Downscale, Grid
from metricanything.patterns.keypoints import Keypoints
from metricanything.patterns.lidar import LidarLines
from metricanything.patterns.noise import Misregistration, Noisy, Outliers, RangeNoise
from metricanything.patterns.radar import Radar
from metricanything.patterns.regions import FieldOfView, Hole, Range, Within
from metricanything.patterns.registry import FAMILIES
from metricanything.patterns.uniform import Everything, Nothing, Uniform

SHARED = Path(__file__).parents[2] / "shared" / "data"
UNKNOWN = [0.0, -1.0, np.nan, np.inf, -np.inf]

depths = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=40),
    elements=st.sampled_from([*UNKNOWN, 0.3, 2.0, 80.0]),
)


# ---------------------------------------------------------------- every pattern


@pytest.mark.parametrize("name", drawable(NAMES))
@settings(max_examples=15)
@given(depth=depths, seed=st.integers(0, 2**31))
def test_prompts_are_drawn_from_known_depth(name: str, depth: np.ndarray, seed: int) -> None:
    tensor = torch.from_numpy(depth)
    before = depth.copy()
    prompt = draw(name, tensor, seed).numpy()
    np.testing.assert_array_equal(depth, before)  # shares its memory with the tensor
    assert prompt.dtype == np.float32
    assert prompt.shape == depth.shape
    points = ~np.isnan(prompt)
    assert np.isfinite(prompt[points]).all()
    assert (prompt[points] > 0).all()
    known = np.isfinite(depth) & (depth > 0)
    if name not in MOVED:
        assert not (points & ~known).any()
    if name not in CHANGED:
        np.testing.assert_array_equal(prompt[points], depth[points])
    np.testing.assert_array_equal(prompt, draw(name, tensor, seed).numpy())


@pytest.mark.parametrize("name", drawable(NAMES))
def test_a_prompt_depends_on_its_own_image_alone(name: str) -> None:
    """Neither what is in the rest of the batch nor how long it is changes a prompt."""
    depth, other = sparse_depth(0, (4, 90, 120), 0.8), sparse_depth(1, (4, 90, 120), 0.1)
    other[2] = depth[2]
    every, mixed = draw(name, depth, 5), draw(name, other, 5)
    np.testing.assert_array_equal(every[2], mixed[2])
    np.testing.assert_array_equal(every[:3], draw(name, depth[:3], 5))


@pytest.mark.parametrize("name", [f.name for f in FAMILIES.values() if f.plain and f.numbered] + ["uniform+shift"])
def test_without_numbers_seeds_and_samples_differ(name: str) -> None:
    depth = sparse_depth(3, (3, 120, 160), 1.0)
    depth[:] = depth[0].clone()
    first, second = (draw(name, depth, seed).nan_to_num() for seed in (1, 2))
    assert (first > 0).flatten(1).any(dim=1).all()
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1]) or not torch.equal(first[1], first[2])


@pytest.mark.parametrize("name", drawable(NAMES))
def test_nothing_known_gives_no_points(name: str) -> None:
    assert torch.isnan(draw(name, torch.full((2, 30, 40), torch.nan))).all()
    assert draw(name, torch.empty(0, 30, 40)).shape == (0, 30, 40)


def test_all_and_none() -> None:
    depth = torch.tensor([[[*UNKNOWN, 3.0]]])
    np.testing.assert_array_equal(draw("all", depth), [[[np.nan] * 5 + [3.0]]])
    assert torch.isnan(draw("none", depth)).all()


# ---------------------------------------------------------------- names


def test_names_parse() -> None:
    wanted = {
        "uniform": Uniform(),
        "uniform-500": Uniform((500, 500), max_fraction=1.0),
        "matched-2150": Uniform((2150, 2150), max_fraction=1.0, match_density=True),
        "lidar-8": LidarLines((8, 8)),
        "lidar_rounded-64": LidarLines((64, 64), rounded=True),
        "grid-16": Grid((16, 16)),
        "downscale-8": Downscale(8),
        "sift": Keypoints("sift"),
        "orb": Keypoints("orb"),
        "hole": Within(Uniform(), Hole()),
        "hole-100": Within(Uniform((2000, 2000), max_fraction=1.0), Hole(100)),
        "range-1-5": Within(Uniform((2000, 2000), max_fraction=1.0), Range((1, 5))),
        "fov": Within(Uniform(), FieldOfView()),
        "radar-60": Radar((60, 60)),
        "all+hole-100": Within(Everything(), Hole(100)),
        "none": Nothing(),
        "uniform-500+outliers-5": Noisy(get_pattern("uniform-500"), Outliers((0.05, 0.05))),
        "grid-8+fov-50+noise": Noisy(Within(Grid((8, 8)), FieldOfView((0.5, 0.5))), RangeNoise()),
        "lidar+shift-3+range": Within(Noisy(LidarLines(), Misregistration((3, 3))), Range()),
    }
    for name, pattern in wanted.items():
        assert get_pattern(name) == pattern, name


@pytest.mark.parametrize("table", TABLES)
def test_families_are_described(table: dict) -> None:
    for name, family in table.items():
        assert family.name == name
        assert family.description
        assert f"+{name}" in family.example or family.example.split("-")[0] == name
        get_pattern(family.example)


@pytest.mark.parametrize(
    "name",
    [
        *("", "-", "+", "uniform-", "uniform-0", "uniform-00", "uniform-05", "uniform--5", "uniform-x", "uniform-²"),
        *("uniform-1.5", "uniform 500", "Uniform", "lidar8", "grid-8\n", "outliers-5", "uniform-" + "9" * 5000),
    ],
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(InputError, match=r"is unknown.*; use for example uniform-500, matched-500, lidar-8") as caught:
        get_pattern(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uniform+", "'uniform+' is unknown at ''; use for example uniform-500+hole-100, grid-8+range-1-5"),
        ("uniform+radar", "is unknown at 'radar'; use for example uniform-500+hole-100"),
        ("uniform+fov-50+", "is unknown at ''; use"),
        ("uniform-5-5", "'uniform-5-5': uniform takes a number, as in uniform-500"),
        ("downscale", "downscale takes a number, as in downscale-8"),
        ("sift-3", "sift takes no number, as in sift"),
        ("range-3", "range takes 2 numbers, as in range-1-5"),
        ("uniform+range-3", "range takes 2 numbers, as in grid-8+range-1-5"),
        ("fov-101", "fov takes a number of at most 100, as in fov-50"),
        ("uniform+outliers-101", "outliers takes a number of at most 100"),
    ],
)
def test_bad_suffixes_and_numbers(name: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        get_pattern(name)


# ---------------------------------------------------------------- a prompt from a depth map


@pytest.mark.parametrize("name", [n for n in drawable(NAMES) if n != "none"])
def test_draw_prompt_is_that_draw(name: str) -> None:
    depth = sparse_depth(3, (1, 120, 160), 0.9)
    depth[:, :10] = torch.inf
    image = (image_like(depth)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    prompt = draw_prompt(depth[0].numpy(), name, seed=5, image=image)
    generator = torch.Generator().manual_seed(5)
    expected = get_pattern(name).draw(depth, generator, torch.from_numpy(image).permute(2, 0, 1)[None] / 255)[0]
    assert (prompt.height, prompt.width) == (120, 160)
    assert len(prompt) == torch.isfinite(expected).sum()
    np.testing.assert_array_equal(prompt.rasterise(120, 160), expected)


def test_draw_prompt_takes_any_view_and_unit_like_values() -> None:
    """Mirrored views have negative strides, which torch refuses; whole metres must not be mistaken for millimetres."""
    depth = np.full((30, 40), 150.0, dtype=np.float32)
    prompt = draw_prompt(depth[::-1, ::-1], "uniform-20", seed=0, image=np.zeros((30, 40, 3), np.uint8)[::-1])
    assert len(prompt) == 20
    assert (prompt.depth == 150).all()


def test_draw_prompt_says_when_nothing_was_hit() -> None:
    with pytest.raises(InputError, match=r"'lidar-2' hits no known pixel of the 40x30 depth map"):
        draw_prompt(np.ones((30, 40), dtype=np.float32), "lidar-2", seed=0)
    with pytest.raises(InputError, match="'uniform-5' hits no known pixel"):
        draw_prompt(np.full((4, 4), np.nan, dtype=np.float32), "uniform-5", seed=0)
    with pytest.raises(InputError, match="'none' has no points; predict with prompt=None"):
        draw_prompt(np.ones((4, 4), dtype=np.float32), "none", seed=0)


def test_keypoints_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = np.ones((30, 40), dtype=np.float32)
    with pytest.raises(InputError, match="'sift' looks at the image; pass it along"):
        draw_prompt(depth, "sift", seed=0)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match=r"'orb' needs OpenCV .*; pip install 'metricanything\[keypoints\]'"):
        draw_prompt(depth, "orb", seed=0, image=np.zeros((30, 40, 3), np.uint8))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared development data is not beside the repository")
@pytest.mark.parametrize("source", ["open3d_redwood", "kitti_ta", "slambook_icl", "promptda", "mmdet3d_nuscenes"])
def test_real_frames(source: str) -> None:
    """Dense, sparse and rendered real depth: every pattern draws, on the known pixels, as many as it says."""
    frame = next(iter(sources.read("folder", SHARED / "validation" / source, fov_x=65)))
    known = int(frame.valid.sum())
    small = (frame.height, frame.width) != frame.depth.shape
    for name in drawable([n for n in NAMES if n != "none" and not (small and n in ("sift", "orb"))]):
        try:
            prompt = draw_prompt(frame.depth, name, seed=1, image=frame.image)
        except InputError as error:
            assert "hits no known pixel" in str(error)  # sparse LiDAR between the lines of a pattern
            assert known < 0.1 * frame.depth.size or "range" in name, name
            continue
        rows, columns = (prompt.uv[:, 1] - 0.5).astype(int), (prompt.uv[:, 0] - 0.5).astype(int)
        if name not in CHANGED:
            np.testing.assert_array_equal(frame.depth[rows, columns], prompt.depth)
        if name == "uniform-500":
            assert len(prompt) == min(500, known)
