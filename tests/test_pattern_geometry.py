"""Where the points of each pattern lie, and how many: against definitions written here, some of them published ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pattern_fixtures import HAS_OPENCV, draw, hits, image_like, sparse_depth
from scipy import stats
from scipy.spatial import cKDTree

from metricanything import samples, sources
from metricanything.patterns.grid import Grid
from metricanything.patterns.keypoints import Keypoints
from metricanything.patterns.lidar import LidarLines
from metricanything.patterns.uniform import Uniform, choose_by_keys

needs_opencv = pytest.mark.skipif(not HAS_OPENCV, reason="OpenCV is an extra: pip install 'metricanything[keypoints]'")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def counts(prompt: torch.Tensor) -> list[int]:
    return torch.isfinite(prompt).flatten(1).sum(dim=1).tolist()


# ---------------------------------------------------------------- uniform


def by_keys(depth: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """The way of other devices than the CPU, on the CPU."""
    flat = depth.flatten(1)
    wanted = torch.full((len(flat),), min(count, flat.shape[1]))
    return choose_by_keys(flat, wanted, int(wanted[0]), generator(seed)).view_as(depth)


def by_guessing(depth: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    return draw(f"uniform-{count}", depth, seed)


ways = pytest.mark.parametrize("way", [by_guessing, by_keys])


@ways
@given(
    share=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    count=st.sampled_from([1, 7, 100, 400, 5000]),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_uniform_count_is_exact(way, share: float, count: int, height: int, width: int, seed: int) -> None:
    depth = sparse_depth(seed, (2, height, width), share)
    prompt = way(depth, count, seed)
    assert counts(prompt) == [min(count, n) for n in counts(depth)]
    points = torch.isfinite(prompt)
    assert torch.equal(prompt[points], depth[points])


@ways
@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("count", [40, 300, 800])
def test_uniform_is_uniform(way, count: int, share: float) -> None:
    """Counts in 8x8 blocks against a flat law over the known pixels, from few to nearly all of them."""
    depth = sparse_depth(0, (1, 48, 64), share)
    drawn = sum(torch.isfinite(way(depth, count, seed))[0].int() for seed in range(30))
    known = torch.isfinite(depth)[0].int()
    blocks, room = (x.view(6, 8, 8, 8).sum(dim=(1, 3)).flatten().numpy() for x in (drawn, known))
    expected = 30 * count * room / room.sum()
    # Drawing without replacement only lowers the variance, by the share of pixels that stay behind.
    statistic = ((blocks - expected) ** 2 / expected).sum() / (1 - count / room.sum())
    assert stats.chi2.cdf(statistic, df=47) == pytest.approx(0.5, abs=0.499)


@ways
def test_uniform_reaches_every_pixel(way) -> None:
    seen = sum(torch.isfinite(way(torch.ones(1, 5, 6), 10, seed))[0].int() for seed in range(100))
    assert int(seen.min()) > 0


@pytest.mark.parametrize("share", [1.0, 0.5, 0.04])
def test_uniform_count_is_exact_on_large_maps(share: float) -> None:
    """Where guessing is worth it, where it is not, and where the guess of the known share may fail."""
    depth = sparse_depth(0, (1, 600, 800), share)
    known = counts(depth)[0]
    for count in (1, 100, 4800, 30_000, 110_000, known - 1, known, 480_000):
        assert counts(by_guessing(depth, count, seed=count)) == [min(count, known)]


def test_default_uniform_counts_are_log_uniform() -> None:
    """100 points to 2 % of the pixels, and as many between 100 and the geometric mean as above it."""
    drawn = np.array(counts(Uniform().draw(torch.ones(400, 160, 200), generator())))
    assert drawn.min() >= 100
    assert drawn.max() <= 0.02 * 160 * 200
    assert stats.kstest(np.log(drawn / 100) / np.log(6.4), "uniform").pvalue > 0.01


def test_uniform_bounds() -> None:
    depth = torch.ones(1, 40, 50)
    assert counts(Uniform(points=(30, 30), max_fraction=1.0).draw(depth, generator())) == [30]
    assert counts(Uniform(points=(100, None), max_fraction=0.01).draw(depth, generator())) == [100]


@given(share=st.floats(0, 1), points=st.sampled_from([1, 100, 300, 2150]), seed=st.integers(0, 99))
def test_density_matched_counts(share: float, points: int, seed: int) -> None:
    """OMNI-DC, src/data/__init__.py: max(round(known * N / (H * W)), 5) of the known pixels."""
    depth = sparse_depth(seed, (3, 48, 64), share)
    expected = [min(max(round(n * points / (48 * 64)), 5), n) for n in counts(depth)]
    assert counts(draw(f"matched-{points}", depth, seed)) == expected


def test_uniform_reads_nothing_back_from_the_device() -> None:
    """Tensors on the meta device hold no data: whatever would wait for a value of the depth map fails on them."""
    depth = torch.empty(3, 60, 80, device="meta")
    for pattern in (Uniform(), Uniform((500, 500), max_fraction=1.0), Uniform(match_density=True)):
        assert pattern.draw(depth, generator()).shape == depth.shape


# ---------------------------------------------------------------- lidar


def beams(lines: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates of all beams by rotating the optical axis: first the yaw, then the pitch of the scanner's ray.

    float64, from (sin yaw cos pitch, sin pitch, cos yaw cos pitch) through K = [f 0 w/2; 0 f h/2] with f = h.
    """
    pitch, yaw = np.linspace(-0.5, 0.5, lines), np.linspace(-np.pi / 2.1, np.pi / 2.1, 200)
    ray = np.array([[(np.sin(y) * np.cos(p), np.sin(p), np.cos(y) * np.cos(p)) for y in yaw] for p in pitch])
    return height * ray[..., 0] / ray[..., 2] + width / 2, height * ray[..., 1] / ray[..., 2] + height / 2


@pytest.mark.parametrize("lines", [4, 8, 16, 32, 64])
@pytest.mark.parametrize("size", [(480, 640), (352, 1216), (64, 48)])
@pytest.mark.parametrize(("name", "to_pixel"), [("lidar", np.floor), ("lidar_rounded", np.round)])
def test_lidar_pixels_hold_a_beam(name: str, to_pixel, lines: int, size: tuple[int, int]) -> None:
    """`lidar_rounded` is LiDAR_n of OMNI-DC and Prior Depth Anything, which round coordinates to pixels."""
    height, width = size
    depth = sparse_depth(0, (1, *size), 0.7)
    u, v = (to_pixel(x) for x in beams(lines, height, width))
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    expected = np.zeros(size, dtype=bool)
    expected[v[inside].astype(int), u[inside].astype(int)] = True
    np.testing.assert_array_equal(hits(f"{name}-{lines}", depth)[0], expected & torch.isfinite(depth[0]).numpy())
    assert expected.sum() <= 200 * lines


@pytest.mark.parametrize("lines", [5, 8, 16])
def test_lidar_pixels_lie_on_pitch_angles(lines: int) -> None:
    """From each pixel back to angles: its pitch interval holds one of the n angles, at most 200 pixels per angle."""
    height, width = 480, 640
    rows, columns = np.nonzero(hits(f"lidar-{lines}", torch.ones(1, height, width))[0].numpy())

    def pitch(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.arctan2(v - height / 2, np.hypot(u - width / 2, height))

    corners = [pitch(columns + du, rows + dv) for du in (0, 1) for dv in (0, 1)]
    low, high = np.min(corners, axis=0) - 1e-9, np.max(corners, axis=0) + 1e-9
    angles = np.linspace(-0.5, 0.5, lines)
    hit = (angles >= low[:, None]) & (angles <= high[:, None])
    assert (hit.sum(axis=1) == 1).all()
    assert hit.sum(axis=0).max() <= 200


@pytest.mark.parametrize(("size", "points", "rounded"), [((480, 640), 468, 468), ((352, 1216), 752, 754)])
def test_lidar_8_point_counts(size: tuple[int, int], points: int, rounded: int) -> None:
    """468 and 754 are the counts of Prior Depth Anything's LiDAR_8.

    Rounding shifts the pattern by half a pixel against pixel centres at (0.5, 0.5) and at 1216x352 lets in two beams
    that fall just outside the image.
    """
    depth = torch.ones(1, *size)
    assert counts(draw("lidar-8", depth)) == [points]
    assert counts(draw("lidar_rounded-8", depth)) == [rounded]


def test_lidar_is_centred() -> None:
    mask = hits("lidar-16", torch.ones(1, 352, 1216))[0]
    assert torch.equal(mask, mask.flip(0, 1))


def test_lidar_jitter_moves_the_scanner() -> None:
    depth = torch.ones(1, 96, 128)
    still = LidarLines(lines=(8, 8)).draw(depth, generator()).nan_to_num()
    moved = LidarLines(lines=(8, 8), jitter=0.05).draw(depth, generator()).nan_to_num()
    assert not torch.equal(still, moved)
    assert moved.any()


# ---------------------------------------------------------------- grid


@given(height=st.integers(1, 90), width=st.integers(1, 90), factor=st.integers(1, 100))
def test_grid_positions(height: int, width: int, factor: int) -> None:
    mask = hits(f"grid-{factor}", torch.ones(1, height, width))[0].numpy()
    for axis, length in ((1, height), (0, width)):
        found = np.flatnonzero(mask.any(axis=axis))
        wanted = np.linspace(0, length - 1, max(length // factor, 1))
        assert len(found) == len(wanted)
        assert np.abs(found - wanted).max() <= 0.5 + 1e-9
    assert mask.sum() == max(height // factor, 1) * max(width // factor, 1)


def test_grid_factors_vary() -> None:
    drawn = counts(Grid(factors=(4, 32)).draw(torch.ones(60, 128, 128), generator()))
    assert 4**2 <= min(drawn) < 8**2
    assert 20**2 < max(drawn) <= 32**2


def downscaled(depth: np.ndarray, factor: int) -> np.ndarray:
    """Prior Depth Anything's downscale_k of one map, by a k-d tree and sums over four corners.

    Where nearest neighbours are equally far, which five are averaged is open: such pixels are NaN with a known mask.
    """
    height, width = depth.shape
    known = np.isfinite(depth)
    tree, values = cKDTree(np.argwhere(known)), depth[known].astype(np.float64)
    filled = depth.astype(np.float64)
    for row, column in np.argwhere(~known):
        distance, index = tree.query((row, column), k=6)
        filled[row, column] = values[index[:5]].mean() if distance[5] > distance[4] else np.nan
    result = np.zeros(depth.shape)
    h, w = height // factor, width // factor
    for i, y in enumerate(np.linspace(0, height - 1, h)):
        for j, x in enumerate(np.linspace(0, width - 1, w)):
            top, left = min(int(y), height - 2), min(int(x), width - 2)
            weights = np.outer([1 - (y - top), y - top], [1 - (x - left), x - left])
            target = int(np.float32(height / h) * np.float32(i)), int(np.float32(width / w) * np.float32(j))
            corners = np.where(weights > 1e-9, filled[top : top + 2, left : left + 2], 0)
            result[target] = (weights * corners).sum() if known[target] else 0
    return result


@pytest.mark.parametrize(("size", "factor"), [((48, 64), 8), ((61, 47), 4), ((40, 56), 3), ((33, 35), 16)])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.3])
def test_downscale_is_the_published_one(size: tuple[int, int], factor: int, share: float) -> None:
    depth = sparse_depth(2, (1, *size), share)
    expected, prompt = downscaled(depth[0].numpy(), factor), draw(f"downscale-{factor}", depth)[0].numpy()
    np.testing.assert_array_equal(np.isfinite(prompt), expected != 0)  # NaN, an open tie, is a point too
    sure = np.isfinite(prompt) & np.isfinite(expected)
    assert sure.sum() >= 0.2 * np.isfinite(prompt).sum()
    np.testing.assert_allclose(prompt[sure], expected[sure], rtol=1e-5)


def test_downscale_fills_wide_holes() -> None:
    """A map known in one column: every value is a mean of that column near the row, from up to 60 pixels away."""
    depth = torch.full((1, 40, 64), torch.nan)
    depth[0, :, 0] = torch.arange(40) + 1.0
    prompt = draw("downscale-10", depth)[0]
    assert torch.isfinite(prompt).nonzero().tolist() == [[0, 0], [10, 0], [20, 0], [30, 0]]
    torch.testing.assert_close(prompt[::10, 0], torch.tensor([1.0, 14, 27, 40]))


# ---------------------------------------------------------------- keypoints


def detected(name: str, image: np.ndarray) -> set[tuple[int, int]]:
    """Row and column of every keypoint, as OMNI-DC and Prior Depth Anything detect and round them."""
    import cv2

    detector = cv2.SIFT.create() if name == "sift" else cv2.ORB.create(nfeatures=100000, scoreType=cv2.ORB_FAST_SCORE)
    points = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    return {(round(p.pt[1]), round(p.pt[0])) for p in points}


@needs_opencv
@pytest.mark.parametrize("name", ["sift", "orb"])
def test_keypoints_are_those_of_opencv(name: str) -> None:
    for frame in list(sources.read("folder", samples.path("heldout")))[:2]:
        expected = np.zeros(frame.depth.shape, dtype=bool)
        rows, columns = np.array(list(detected(name, frame.image))).T
        expected[rows, columns] = True
        image = torch.from_numpy(frame.image).permute(2, 0, 1)[None] / 255
        prompt = Keypoints(name).draw(torch.from_numpy(frame.depth)[None], generator(), image)
        np.testing.assert_array_equal(torch.isfinite(prompt[0]), expected & frame.valid)
        assert expected.sum() > 100


@needs_opencv
@pytest.mark.parametrize("name", ["sift", "orb"])
def test_too_few_keypoints_fall_back_to_random_points(name: str) -> None:
    """2000 points in Prior Depth Anything; 1000, scaled by the known share, in OMNI-DC. Other images keep theirs."""
    depth, image = sparse_depth(0, (2, 120, 160), 0.5), image_like(torch.ones(2, 120, 160))
    image[0] = 0.5
    flat, corners = counts(Keypoints(name).draw(depth, generator(), image))
    assert flat == 2000
    assert 20 < corners < 1500
    omni = Uniform(points=(1000, 1000), max_fraction=1.0, match_density=True)
    drawn = counts(Keypoints(name, fallback=omni).draw(depth, generator(), image))
    assert drawn == [round(1000 * counts(depth)[0] / (120 * 160)), corners]


@needs_opencv
def test_keypoint_dropout_thins() -> None:
    depth = torch.ones(1, 240, 320)
    image, full = image_like(depth), int(hits("orb", depth).sum())
    thinned = [counts(Keypoints("orb", max_dropout=0.8).draw(depth, generator(s), image))[0] for s in range(40)]
    assert stats.kstest(1 - np.array(thinned) / full, "uniform", args=(0, 0.8)).pvalue > 0.01
