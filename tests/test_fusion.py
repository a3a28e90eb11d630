"""The prompt path: planes against a brute-force loop, and the promises of the anchor, untrained and trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import short_recipe
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.core.prompt import SparsePrompt
from metricanything.curate.shards import Shards
from metricanything.data.mixture import Mixture
from metricanything.inference.predictor import Model
from metricanything.models.compact.teacher import CompactTeacher, DepthConfig
from metricanything.models.planes import Planes, continued, enlarged, moments, pooled, spread
from metricanything.models.prompting import PromptAnchor, SparseMap, prompt_levels
from metricanything.models.registry import get_spec
from metricanything.patterns import draw_prompt
from metricanything.training.engine import train
from metricanything.training.pretrain import task_of

sides = st.integers(1, 13)
seeds = st.integers(0, 1000)


def sparse(height: int, width: int, share: float, seed: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Values, 0 where there is no point, and the mask of the points; float64."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(batch, 1, height, width, generator=generator) < share).double()
    return torch.randn(mask.shape, generator=generator, dtype=torch.float64) * mask, mask


# ---------------------------------------------------------------- planes


def slow_smooth_sum(fine: np.ndarray) -> np.ndarray:
    """Each coarse cell sums the 6x6 pixels around its centre, weighted by (1, 5, 10, 10, 5, 1) / 16 along each axis."""
    taps = [1 / 16, 5 / 16, 10 / 16, 10 / 16, 5 / 16, 1 / 16]
    h, w = fine.shape
    result = np.zeros(((h + 1) // 2, (w + 1) // 2))
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            for a in range(6):
                for b in range(6):
                    y, x = 2 * i - 2 + a, 2 * j - 2 + b
                    if 0 <= y < h and 0 <= x < w:
                        result[i, j] += taps[a] * taps[b] * fine[y, x]
    return result


def slow_weights(row: int, column: int, height: int, width: int) -> list[np.ndarray]:
    """How much the point at a pixel counts in every cell, at strides 2, 4, …."""
    cells = np.zeros((height // 2, width // 2))
    cells[row // 2, column // 2] = 1
    levels = [cells]
    while max(levels[-1].shape) > 1:
        levels.append(slow_smooth_sum(levels[-1]))
    return levels


def slow_continued(coarse: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Value and slopes (h, w, 3) of cells half as large, from the 3x3 coarser neighbours, nearly bilinearly."""
    fine = np.zeros((*shape, 3))
    for i in range(shape[0]):
        for j in range(shape[1]):
            total = 0.0
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    weight = 1.0
                    for offset, odd in ((di, i % 2), (dj, j % 2)):
                        weight *= 0.75 if offset == 0 else 0.25 if (offset == 1) == bool(odd) else 0.0
                    weight = max(weight, 1e-3)
                    y, x = np.clip(i // 2 + di, 0, len(coarse) - 1), np.clip(j // 2 + dj, 0, coarse.shape[1] - 1)
                    value, right, down = coarse[y, x]
                    value += right * ((j + 0.5) / 2 - x - 0.5) + down * ((i + 0.5) / 2 - y - 0.5)
                    fine[i, j] += weight * np.array([value, right / 2, down / 2])
                    total += weight
            fine[i, j] /= total
    return fine


def slow_spread(value: np.ndarray, mask: np.ndarray, softness: float, tilt: float) -> list[np.ndarray]:
    """Least squares over all points in every cell, coarse to fine; (h, w, 3) per level."""
    height, width = value.shape
    points = np.argwhere(mask)
    weights = [slow_weights(*point, height, width) for point in points]
    top = len(slow_weights(0, 0, height, width)) - 1
    total = sum(w[top][0, 0] for w in weights)
    mean = sum(w[top][0, 0] * value[tuple(p)] for w, p in zip(weights, points, strict=True)) / max(total, 1e-12)
    planes = [np.array([[[mean, 0, 0]]])]
    for level in reversed(range(top)):
        stride = 2 ** (level + 1)
        shape = weights[0][level].shape if weights else slow_weights(0, 0, height, width)[level].shape
        found = slow_continued(planes[-1], shape)
        for i, j in np.ndindex(*shape):
            matrix, right = np.diag([softness, tilt, tilt]), np.diag([softness, tilt, tilt]) @ found[i, j]
            for w, (y, x) in zip(weights, points, strict=True):
                basis = np.array([1, (x + 0.5) / stride - j - 0.5, (y + 0.5) / stride - i - 0.5])
                matrix = matrix + w[level][i, j] * np.outer(basis, basis)
                right = right + w[level][i, j] * basis * value[y, x]
            found[i, j] = np.linalg.solve(matrix, right)
        planes.append(found)
    return planes[::-1]


@given(
    st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.0, 0.1, 0.5]), seeds, st.sampled_from([1e-3, 0.13, 2.0])
)
def test_planes_equal_a_loop(half_height: int, half_width: int, share: float, seed: int, softness: float) -> None:
    value, mask = sparse(2 * half_height, 2 * half_width, share, seed)
    found = spread(moments(value, mask), (), softness, 0.1)
    expected = slow_spread(value[0, 0].numpy(), mask[0, 0].numpy(), softness, 0.1)
    assert len(found) == len(expected) == math.ceil(math.log2(max(half_height, half_width))) + 1
    for planes, slow in zip(found, expected, strict=True):
        for field, values in zip((planes.value, planes.right, planes.down), np.moveaxis(slow, -1, 0), strict=True):
            np.testing.assert_allclose(field[0, 0], values, rtol=1e-7, atol=1e-9)


@given(st.integers(2, 6), st.integers(2, 6), seeds, st.floats(-3, 3), st.floats(-3, 3))
def test_points_of_one_plane_give_that_plane(h: int, w: int, seed: int, right: float, down: float) -> None:
    """Whatever the affinities; nothing holds the slopes down where `tilt` is small."""
    h, w = 4 * h, 4 * w
    generator = torch.Generator().manual_seed(seed)
    _, mask = sparse(h, w, 0.3, seed)
    mask[0, 0, 0, 0] = mask[0, 0, 0, -1] = mask[0, 0, -1, 0] = 1  # three points that span it
    y, x = torch.meshgrid(torch.arange(h).double() + 0.5, torch.arange(w).double() + 0.5, indexing="ij")
    plane = (1 + right * x + down * y)[None, None]
    guides = [torch.randn(1, 9, h // 2 // n, w // 2 // n, generator=generator, dtype=torch.float64) for n in (1, 2)]
    finest = spread(moments(plane * mask, mask), guides, 1e-9, 1e-9)[0]
    torch.testing.assert_close(finest.value, F.avg_pool2d(plane, 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(finest.right, torch.full_like(finest.right, 2 * right), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(finest.down, torch.full_like(finest.down, 2 * down), rtol=1e-3, atol=1e-3)


@given(sides, sides, seeds, st.floats(-50, 50))
def test_planes_are_a_partition_of_unity(height: int, width: int, seed: int, constant: float) -> None:
    """Adding a constant to all values adds it to every plane, guided or not."""
    height, width = 4 * height, 4 * width
    value, mask = sparse(height, width, 0.2, seed)
    mask[0, 0, 0, 0], value[0, 0, 0, 0] = 1, 0.5  # at least one point
    guides = [
        torch.randn(1, 9, height // 2, width // 2, dtype=torch.float64),
        torch.randn(1, 9, height // 4, width // 4, dtype=torch.float64),
    ]
    for affinities in ([], guides):
        planes = spread(moments(value, mask), affinities, 0.1)
        moved = spread(moments((value + constant) * mask, mask), affinities, 0.1)
        for a, b in zip(planes, moved, strict=True):
            torch.testing.assert_close(b.value, a.value + constant, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(b.right, a.right, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", [(2, 2), (6, 8), (32, 32), (34, 2)])
@pytest.mark.parametrize("softness", [1e-3, 1.0])
def test_one_point_fills_the_map(size: tuple[int, int], softness: float) -> None:
    value, mask = torch.zeros(2, 1, 1, *size).unbind(0)
    value[0, 0, size[0] // 2, size[1] // 2], mask[0, 0, size[0] // 2, size[1] // 2] = 3.25, 1
    for planes in spread(moments(value, mask), (), softness):
        torch.testing.assert_close(planes.value, torch.full_like(planes.value, 3.25))


def test_no_point_fills_with_zero() -> None:
    prompt = SparseMap.of(torch.zeros(1, 1, 64, 96), torch.zeros(1, 1, 64, 96))
    for level in prompt_levels(prompt, 5):
        assert not level.channels().any()


@given(st.integers(1, 6), st.integers(1, 6), seeds)
def test_planes_never_look_at_masked_values(height: int, width: int, seed: int) -> None:
    value, mask = sparse(2 * height, 2 * width, 0.3, seed)
    spoilt = torch.where(mask > 0, value, 1e9)
    for a, b in zip(spread(moments(value, mask)), spread(moments(spoilt, mask)), strict=True):
        assert torch.equal(a.value, b.value)


def test_two_values_are_spread_as_each_alone() -> None:
    value, mask = sparse(20, 24, 0.2, 3)
    other = value.cos() * mask
    both = spread(moments(torch.cat([value, other], dim=1), mask))[0]
    for i, alone in enumerate((value, other)):
        torch.testing.assert_close(both.value[:, i : i + 1], spread(moments(alone, mask))[0].value)


@given(st.integers(1, 9), st.integers(1, 9), seeds)
def test_the_weight_of_points_equals_a_loop(height: int, width: int, seed: int) -> None:
    value, mask = sparse(2 * height, 2 * width, 0.4, seed)
    found = pooled(moments(value, mask))
    points = F.avg_pool2d(mask, 2)[0, 0].numpy() * 4
    np.testing.assert_allclose(found[0, 0], slow_smooth_sum(points), rtol=1e-9, atol=1e-12)


def test_pooling_keeps_the_number_of_points() -> None:
    """Away from the border every point counts once in all windows together."""
    mask = torch.zeros(1, 1, 24, 30, dtype=torch.float64)
    mask[..., 6:18, 6:22] = (torch.rand(12, 16) < 0.5).double()
    torch.testing.assert_close(pooled(moments(mask, mask))[:, :1].sum(), mask.sum())


def test_planes_of_a_large_image_keep_their_digits() -> None:
    """In float32, at 1,536 pixels: within 1e-4 of float64, relative to values of about 1."""
    value, mask = sparse(64, 1536, 0.002, 4)
    exact, single = (spread(moments(v, m))[0].value for v, m in ((value, mask), (value.float(), mask.float())))
    assert (exact - single).abs().max() < 1e-4


# ---------------------------------------------------------------- guided continuation


def flat(value: Tensor) -> Planes:
    """Planes without slopes."""
    return Planes(value, torch.zeros_like(value), torch.zeros_like(value), value, torch.zeros_like(value))


@given(sides, sides, seeds)
def test_zero_affinities_are_nearly_bilinear(height: int, width: int, seed: int) -> None:
    coarse = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    bilinear = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    for affinity in (None, torch.zeros(1, 9, 2 * height, 2 * width, dtype=torch.float64)):
        guided = continued(flat(coarse), (2 * height, 2 * width), affinity)[0]
        # The floor of 1e-3 on each of the five other neighbours; values span 1.
        assert (guided - bilinear).abs().max() <= 5e-3


@given(sides, sides, seeds, st.floats(0, 100))
def test_guided_continuation_is_convex(height: int, width: int, seed: int, strength: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, height, width, generator=generator, dtype=torch.float64)
    affinity = strength * torch.randn(1, 9, 2 * height, 2 * width, generator=generator, dtype=torch.float64)
    fine = continued(flat(coarse), (2 * height, 2 * width), affinity)[0]
    padded = F.pad(coarse, (1, 1, 1, 1), mode="replicate")
    high = F.max_pool2d(padded, 3, stride=1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    low = -F.max_pool2d(-padded, 3, stride=1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (fine <= high + 1e-9).all()
    assert (fine >= low - 1e-9).all()


@given(st.integers(1, 9), st.integers(1, 9), seeds)
def test_enlarging_is_continuing_without_slopes(h: int, w: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    maps, affinity = (torch.randn(2, k, h, w, generator=g, dtype=torch.float64) for k in (3, 36))
    flat = torch.zeros_like(maps)
    planes = Planes(maps, flat, flat, maps, flat[:, :1])
    expected, _, _ = continued(planes, (2 * h, 2 * w), F.pixel_shuffle(affinity, 2))
    torch.testing.assert_close(enlarged(maps, affinity), expected)


def test_affinities_choose_the_neighbour() -> None:
    """Channel 3 (di + 1) + (dj + 1) belongs to the coarser neighbour at offset (di, dj)."""
    coarse = torch.arange(12.0).view(1, 1, 3, 4)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            affinity = torch.zeros(1, 9, 6, 8)
            affinity[:, 3 * (di + 1) + dj + 1] = 50
            expected = coarse[0, 0][(torch.arange(3) + di).clamp(0, 2)][:, (torch.arange(4) + dj).clamp(0, 3)]
            fine = continued(flat(coarse), (6, 8), affinity)[0][0, 0]
            torch.testing.assert_close(fine, expected.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_encoding_is_free_of_the_scale() -> None:
    value, mask = sparse(64, 96, 0.02, 0, batch=2)
    levels = prompt_levels(SparseMap.of(value, mask), 5)
    assert [level.fill_B1HW.shape[-2:] for level in levels] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    for a, b in zip(levels, prompt_levels(SparseMap.of((value + 7) * mask, mask), 5), strict=True):
        torch.testing.assert_close(a.channels(), b.channels())
    rows, columns = np.nonzero(mask[0, 0].numpy())
    for i, level in enumerate(levels, start=1):
        cells = np.zeros(level.mask_B1HW.shape[-2:])
        cells[rows >> i, columns >> i] = 1
        np.testing.assert_array_equal(level.mask_B1HW[0, 0], cells)


# ---------------------------------------------------------------- the anchor


def anchored(log_c: Tensor, mask: Tensor, predicted: Tensor, *, mix: float, distrusted: Tensor | None = None) -> Tensor:
    """Log C at stride 2 of an anchor with gain 1; `mix` and the cells without trust are given instead of learned."""
    h, w = predicted.shape[-2:]
    anchor = PromptAnchor([2] * 4)
    features = [torch.zeros(1, 2, max(h >> i, 1), max(w >> i, 1)) for i in range(4)]
    if distrusted is not None:
        features[0][0, 0] = distrusted.float()
    with torch.no_grad():
        anchor.raw_gain.fill_(1)
        anchor.raw_tilt.fill_(-8)
        anchor.raw_softness.fill_(-8)
        anchor.weighing.weight[0, 0] = -30
        anchor.weighing.bias[1] = mix
        return anchor(predicted, SparseMap.of(log_c, mask), features)


def slanted_wall(height: int = 32, width: int = 48) -> tuple[Tensor, Tensor]:
    """Log C of a plane in space (1, 1, H, W) and the mask of some points on it."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    log_c = (0.5 + 0.02 * x + 0.01 * y).log()[None, None]
    mask = (torch.rand(log_c.shape, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    mask[..., 0, 0] = mask[..., 0, -1] = mask[..., -1, 0] = 1
    return log_c, mask


def at_stride_2(log_c: Tensor) -> Tensor:
    return F.avg_pool2d(log_c.exp(), 2).log()


def test_measurements_of_a_wall_give_the_wall() -> None:
    """Whatever the network predicts, where its answer is not mixed in."""
    log_c, mask = slanted_wall()
    wild = torch.randn(1, 1, 16, 24)
    torch.testing.assert_close(anchored(log_c, mask, wild, mix=-30), at_stride_2(log_c), rtol=0, atol=5e-3)


def test_a_prediction_that_fits_up_to_scale_is_kept() -> None:
    """Its borders too, which no point tells of: here the image is two walls."""
    log_c, mask = slanted_wall()
    log_c[..., 24:] += 1
    predicted = at_stride_2(log_c) - 3
    seen = (predicted + 3).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(anchored(seen, mask, predicted, mix=30), predicted + 3, rtol=0, atol=1e-4)


def test_a_point_without_trust_does_not_count() -> None:
    log_c, mask = slanted_wall()
    spoilt, outlier = log_c.clone(), mask.clone()
    spoilt[..., 10, 21], outlier[..., 10, 21] = 2.0, 1
    distrusted = torch.zeros(16, 24)
    distrusted[5, 10] = 1
    clean = anchored(log_c, mask, torch.zeros(1, 1, 16, 24), mix=-30)
    believed = anchored(spoilt, outlier, torch.zeros(1, 1, 16, 24), mix=-30)
    told = anchored(spoilt, outlier, torch.zeros(1, 1, 16, 24), mix=-30, distrusted=distrusted)
    assert (believed - clean).abs().max() > 0.3
    torch.testing.assert_close(told, clean, rtol=0, atol=1e-2)


# ---------------------------------------------------------------- the untrained teacher


def teacher(config: DepthConfig, *, gain: float = 0.0, stir: bool = False) -> CompactTeacher:
    """A teacher at initialisation; `stir` fills also what starts at zero with random weights."""
    torch.manual_seed(0)
    network = CompactTeacher(config).eval()
    with torch.no_grad():
        if stir:
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.3)
        network.anchor.raw_gain.fill_(gain / network.anchor.SPEED)
    return network


def image_and_prompt(batch: int = 2, height: int = 64, width: int = 96) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, 3, height, width, generator=generator)
    prompt = torch.rand(batch, 1, height, width, generator=generator) + 0.05
    return image, prompt * (torch.rand(prompt.shape, generator=generator) < 0.02)


@torch.inference_mode()
def test_untrained_teacher_ignores_the_prompt(tiny_config: DepthConfig) -> None:
    network, (image, prompt) = teacher(tiny_config), image_and_prompt()
    alone, prompted = network(image), network(image, prompt)
    assert torch.equal(alone.log_c_B1HW, prompted.log_c_B1HW)
    assert torch.equal(alone.mask_logit_B1HW, prompted.mask_logit_B1HW)


@torch.inference_mode()
def test_mixed_batch_equals_each_alone(tiny_config: DepthConfig) -> None:
    network, (image, prompt) = teacher(tiny_config, gain=1, stir=True), image_and_prompt(3)
    prompt[1] = 0
    together = network(image, prompt)
    for i, given_prompt in enumerate((prompt[:1], None, prompt[2:])):
        alone = network(image[i : i + 1], given_prompt)
        torch.testing.assert_close(together.log_c_B1HW[i], alone.log_c_B1HW[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.mask_logit_B1HW[i], alone.mask_logit_B1HW[0], rtol=1e-4, atol=1e-5)
    assert (together.log_c_B1HW[0] - network(image[:1]).log_c_B1HW[0]).abs().max() > 0.1  # the prompt does matter


@torch.inference_mode()
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, -1.0])
def test_teacher_never_looks_at_what_is_no_measurement(tiny_config: DepthConfig, garbage: float) -> None:
    network, (image, prompt) = teacher(tiny_config, gain=1, stir=True), image_and_prompt()
    spoilt = network(image, torch.where(prompt > 0, prompt, garbage))
    clean = network(image, prompt)
    assert torch.isfinite(clean.log_c_B1HW).all()
    assert torch.equal(spoilt.log_c_B1HW, clean.log_c_B1HW)
    assert torch.equal(spoilt.mask_logit_B1HW, clean.mask_logit_B1HW)


@torch.inference_mode()
@pytest.mark.parametrize("factor", [0.01, 0.5, 3.0, 1000.0])
def test_at_gain_one_the_prompt_sets_the_scale(tiny_config: DepthConfig, factor: float) -> None:
    """Whatever the weights: prompt times s gives C times s."""
    network, (image, prompt) = teacher(tiny_config, gain=1, stir=True), image_and_prompt()
    difference = network(image, factor * prompt).log_c_B1HW - network(image, prompt).log_c_B1HW
    torch.testing.assert_close(difference, torch.full_like(difference, math.log(factor)), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_bfloat16_keeps_the_metres_of_the_prompt(tiny_config: DepthConfig) -> None:
    """A network of lower precision must not round what was measured: log C has steps of 1.6 % there."""
    network, (image, prompt) = teacher(tiny_config, gain=1).bfloat16(), image_and_prompt(1)
    for parameter in network.decoder.head.parameters():
        parameter.zero_()
    prompt.zero_()[0, 0, ::7, ::5] = 0.01234
    log_c = network(image.bfloat16(), prompt).log_c_B1HW
    torch.testing.assert_close(log_c.float().exp(), torch.full_like(prompt, 0.01234), rtol=1e-3, atol=0)


@torch.inference_mode()
def test_one_point_at_gain_one_is_met_on_a_flat_prediction(tiny_config: DepthConfig) -> None:
    network, (image, prompt) = teacher(tiny_config, gain=1), image_and_prompt(1)
    for parameter in network.decoder.head.parameters():
        parameter.zero_()
    prompt.zero_()[0, 0, 40, 17] = 0.7
    torch.testing.assert_close(network(image, prompt).log_c_B1HW.exp(), torch.full_like(prompt, 0.7))


# ---------------------------------------------------------------- through the predictor, untrained and trained


@pytest.fixture(scope="module")
def scenes(make_frame: Callable[..., Frame]) -> list[Frame]:
    return [make_frame(seed, 64, 96) for seed in range(4)]


@pytest.fixture(scope="module")
def training(
    scenes: list[Frame], tiny_config: DepthConfig, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CompactTeacher, list[tuple[int, float]]]:
    """Eighty steps on four synthetic scenes: the trained network and its loss curve."""
    from metricanything.curate.writing import write_shards

    folder = Path(tmp_path_factory.mktemp("teacher"))
    write_shards(scenes, folder / "shards")
    data = Mixture(Shards(folder / "shards"), sizes=((64, 96),), batch_size=4, seed=0)
    recipe = short_recipe(80)
    torch.manual_seed(0)
    network = CompactTeacher(tiny_config)
    return network, train(network, task_of(recipe), recipe, [data], folder)


@pytest.fixture(scope="module", params=["stirred", "trained"])
def model(
    request: pytest.FixtureRequest, tiny_config: DepthConfig, training: tuple[CompactTeacher, list[tuple[int, float]]]
) -> Model:
    """A teacher whose gain is 1: by hand with random weights, or by training."""
    network = training[0] if request.param == "trained" else teacher(tiny_config, gain=1, stir=True)
    return Model(network, get_spec("compact-teacher"), device="cpu")


def held_out_prompt(frame: Frame) -> SparsePrompt:
    return draw_prompt(frame.depth, "uniform-150", seed=9)


def test_scaled_prompt_gives_scaled_depth(model: Model, scenes: list[Frame]) -> None:
    frame = scenes[0]
    prompt = held_out_prompt(frame)
    depth = model.predict(frame.image, prompt=prompt, camera=frame.camera, max_side=96).depth
    for factor in (0.1, 2.0, 50.0):
        scaled = model.predict(frame.image, prompt=prompt.scaled(factor), camera=frame.camera, max_side=96).depth
        np.testing.assert_allclose(scaled, factor * depth, rtol=1e-3)


def test_focal_length_leaves_prompted_metres_unchanged(model: Model, scenes: list[Frame]) -> None:
    frame = scenes[0]
    prompt = held_out_prompt(frame)
    cameras = [frame.camera, Camera.pinhole(300, 310, 40, 30, 96, 64), None]
    results = [model.predict(frame.image, prompt=prompt, camera=c, max_side=96) for c in cameras]
    for result in results[1:]:
        np.testing.assert_allclose(result.depth, results[0].depth, rtol=1e-3)
    # Without a prompt the focal length sets the scale: D = f / (W C).
    alone = [model.predict(frame.image, camera=c, max_side=96).depth for c in cameras[:2]]
    np.testing.assert_allclose(alone[1] / alone[0], 300 / frame.camera.fx, rtol=1e-3)


def test_prompted_pixels_stay_near_the_prompt(model: Model, scenes: list[Frame]) -> None:
    """In the median within a few percent, though the image alone says something else entirely."""
    frame = scenes[0]
    prompt = held_out_prompt(frame).scaled(20.0)
    pixels = prompt.uv.astype(int)
    depth = model.predict(frame.image, prompt=prompt, camera=frame.camera, max_side=96).depth
    error = np.abs(np.log(depth[pixels[:, 1], pixels[:, 0]] / prompt.depth))
    assert np.median(error) < 0.05
    alone = model.predict(frame.image, camera=frame.camera, max_side=96).depth
    assert np.median(np.abs(np.log(alone[pixels[:, 1], pixels[:, 0]] / prompt.depth))) > 1


def test_training_switches_the_anchor_on(training: tuple[CompactTeacher, list[tuple[int, float]]]) -> None:
    network, curve = training
    values = [value for _, value in curve]
    assert network.anchor.gain == 1
    assert np.mean(values[-10:]) < 0.4 * np.mean(values[:5])


def test_training_helps(
    training: tuple[CompactTeacher, list[tuple[int, float]]], tiny_config: DepthConfig, scenes: list[Frame]
) -> None:
    """AbsRel with a prompt: trained against untrained, and against the trained network without a prompt."""

    def error(network: nn.Module, prompted: bool) -> float:
        model = Model(network, get_spec("compact-teacher"), device="cpu")
        errors = []
        for frame in scenes:
            prompt = held_out_prompt(frame) if prompted else None
            depth = model.predict(frame.image, prompt=prompt, camera=frame.camera, max_side=96).depth
            errors.append(np.abs(depth / frame.depth - 1)[frame.valid].mean())
        return float(np.mean(errors))

    trained = error(training[0], prompted=True)
    assert trained < 0.06
    assert trained < 0.5 * error(teacher(tiny_config), prompted=True)
    assert trained < error(training[0], prompted=False)


@torch.inference_mode()
def test_training_tells_sky_from_surface(
    training: tuple[CompactTeacher, list[tuple[int, float]]], scenes: list[Frame]
) -> None:
    """So short a training need not find the threshold, but sky must rank below surface."""
    images = torch.stack([torch.from_numpy(frame.image).permute(2, 0, 1) / 255 for frame in scenes])
    logit = training[0](images).mask_logit_B1HW[:, 0].numpy()
    surface = np.stack([frame.valid for frame in scenes])
    assert np.quantile(logit[~surface], 0.9) < np.quantile(logit[surface], 0.1)
