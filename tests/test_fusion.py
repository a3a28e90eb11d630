"""The prompt path: push-pull against a brute-force loop, and the promises of the anchor, untrained and trained."""

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
from metricanything.models.prompting import box_sum, guided_upsample, prompt_levels, push_pull, smooth_sum
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


# ---------------------------------------------------------------- push-pull


def slow_bilinear(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    h, w = coarse.shape
    result = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y, x = max((i + 0.5) * h / height - 0.5, 0), max((j + 0.5) * w / width - 0.5, 0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = coarse[y0, x0] * (1 - x + x0) + coarse[y0, x1] * (x - x0)
            bottom = coarse[y1, x0] * (1 - x + x0) + coarse[y1, x1] * (x - x0)
            result[i, j] = top * (1 - y + y0) + bottom * (y - y0)
    return result


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


def slow_push_pull(total: np.ndarray, weight: np.ndarray, softness: float) -> list[np.ndarray]:
    """Recursively: the weighted mean of each cell, mixed with what the coarser level says of it."""
    if total.size == 1:
        return [total / weight if weight > 0 else total]
    coarser = slow_push_pull(slow_smooth_sum(total), slow_smooth_sum(weight), softness)
    return [(total + softness * slow_bilinear(coarser[0], *total.shape)) / (weight + softness), *coarser]


@given(sides, sides, st.sampled_from([0.0, 0.1, 0.5, 1.0]), seeds, st.sampled_from([1e-3, 0.13, 2.0]))
def test_push_pull_equals_a_loop(height: int, width: int, share: float, seed: int, softness: float) -> None:
    value, mask = sparse(height, width, share, seed)
    levels = push_pull(value, mask, softness)
    expected = slow_push_pull(value[0, 0].numpy(), mask[0, 0].numpy(), softness)
    assert len(levels) == len(expected) == math.ceil(math.log2(max(height, width))) + 1
    rows, columns = np.nonzero(mask[0, 0].numpy())
    for i, (level, fill) in enumerate(zip(levels, expected, strict=True)):
        np.testing.assert_allclose(level.fill_B1HW[0, 0], fill, rtol=1e-9, atol=1e-12)
        cells = np.zeros(fill.shape)
        cells[rows >> i, columns >> i] = 1
        np.testing.assert_array_equal(level.mask_B1HW[0, 0], cells)
        assert level.channels().shape == (1, 3, *fill.shape)


@given(sides, sides, seeds, st.floats(-50, 50))
def test_push_pull_is_a_partition_of_unity(height: int, width: int, seed: int, constant: float) -> None:
    """Adding a constant to all values adds it to every filled value, guided or not."""
    height, width = 4 * height, 4 * width
    value, mask = sparse(height, width, 0.2, seed)
    mask[0, 0, 0, 0], value[0, 0, 0, 0] = 1, 0.5  # at least one point
    guides = [
        torch.randn(1, 9, height, width, dtype=torch.float64),
        torch.randn(1, 9, height // 2, width // 2, dtype=torch.float64),
    ]
    for affinities in ([], guides):
        levels = push_pull(value, mask, 0.1, affinities)
        moved = push_pull((value + constant) * mask, mask, 0.1, affinities)
        for a, b in zip(levels, moved, strict=True):
            torch.testing.assert_close(b.fill_B1HW, a.fill_B1HW + constant, rtol=1e-9, atol=1e-9)
        low, high = value[mask > 0].min(), value[mask > 0].max()
        assert levels[0].fill_B1HW.min() >= low - 1e-9
        assert levels[0].fill_B1HW.max() <= high + 1e-9


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (32, 32), (33, 2)])
@pytest.mark.parametrize("softness", [1e-3, 1.0])
def test_one_point_fills_the_map(size: tuple[int, int], softness: float) -> None:
    value, mask = torch.zeros(2, 1, 1, *size).unbind(0)
    value[0, 0, size[0] // 2, size[1] // 2], mask[0, 0, size[0] // 2, size[1] // 2] = 3.25, 1
    for level in push_pull(value, mask, softness):
        torch.testing.assert_close(level.fill_B1HW, torch.full_like(level.fill_B1HW, 3.25))


def test_no_point_fills_with_zero() -> None:
    for level in push_pull(torch.zeros(1, 1, 9, 6), torch.zeros(1, 1, 9, 6)):
        assert not level.channels().any()


@given(sides, sides, seeds)
def test_push_pull_never_looks_at_masked_values(height: int, width: int, seed: int) -> None:
    value, mask = sparse(height, width, 0.3, seed)
    spoilt = torch.where(mask > 0, value, 1e9)
    for a, b in zip(push_pull(value, mask), push_pull(spoilt, mask), strict=True):
        assert torch.equal(a.fill_B1HW, b.fill_B1HW)


@given(sides, sides, seeds)
def test_smooth_sum_equals_a_loop(height: int, width: int, seed: int) -> None:
    value, _ = sparse(height, width, 1.0, seed)
    np.testing.assert_allclose(smooth_sum(value)[0, 0], slow_smooth_sum(value[0, 0].numpy()), rtol=1e-9, atol=1e-12)


def test_smooth_sum_keeps_the_total() -> None:
    """Away from the border every point counts once in all windows together."""
    value = torch.zeros(1, 1, 12, 15, dtype=torch.float64)
    value[..., 3:9, 3:11] = torch.rand(6, 8, dtype=torch.float64)
    torch.testing.assert_close(smooth_sum(value).sum(), value.sum())


def test_box_sum() -> None:
    np.testing.assert_allclose(box_sum(torch.arange(12.0).view(1, 1, 2, 6))[0, 0], [[14, 22, 30]])


# ---------------------------------------------------------------- guided upsampling


@given(sides, sides, seeds)
def test_zero_affinities_are_nearly_bilinear(height: int, width: int, seed: int) -> None:
    coarse = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    guided = guided_upsample(coarse, torch.zeros(1, 9, 2 * height, 2 * width, dtype=torch.float64))
    bilinear = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
    # The floor of 1e-3 on each of the five other neighbours; values span 1.
    assert (guided - bilinear).abs().max() <= 5e-3


@given(sides, sides, seeds, st.floats(0, 100))
def test_guided_upsampling_is_convex(height: int, width: int, seed: int, strength: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 1, height, width, generator=generator, dtype=torch.float64)
    affinity = strength * torch.randn(1, 9, 2 * height, 2 * width, generator=generator, dtype=torch.float64)
    fine = guided_upsample(coarse, affinity)
    padded = F.pad(coarse, (1, 1, 1, 1), mode="replicate")
    high = F.max_pool2d(padded, 3, stride=1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    low = -F.max_pool2d(-padded, 3, stride=1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (fine <= high + 1e-9).all()
    assert (fine >= low - 1e-9).all()


def test_affinities_choose_the_neighbour() -> None:
    """Channel 3 (di + 1) + (dj + 1) belongs to the coarser neighbour at offset (di, dj)."""
    coarse = torch.arange(12.0).view(1, 1, 3, 4)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            affinity = torch.zeros(1, 9, 6, 8)
            affinity[:, 3 * (di + 1) + dj + 1] = 50
            expected = coarse[0, 0][(torch.arange(3) + di).clamp(0, 2)][:, (torch.arange(4) + dj).clamp(0, 3)]
            fine = guided_upsample(coarse, affinity)[0, 0]
            torch.testing.assert_close(fine, expected.repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_encoding_is_free_of_the_scale() -> None:
    value, mask = sparse(64, 96, 0.02, 0, batch=2)
    levels = prompt_levels(value, mask, 5)
    assert [level.fill_B1HW.shape[-2:] for level in levels] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    for a, b in zip(levels, prompt_levels((value + 7) * mask, mask, 5), strict=True):
        torch.testing.assert_close(a.channels(), b.channels())


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
