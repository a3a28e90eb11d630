"""Losses against slow references in float64, and what unsupervised pixels may hold."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metricanything.losses.depth import gradient_l1, mask_bce, masked_mean, trimmed_l1
from metricanything.losses.points import align_scale_shift, global_points, metric_scale

shapes = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
shares = st.sampled_from([0.0, 0.2, 0.7, 1.0])
seeds = st.integers(0, 1000)


def maps(shape: tuple[int, int, int], share: float, seed: int, channels: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target (B, C, H, W) float64 and mask (B, 1, H, W); z (the last channel) is positive."""
    b, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, b, channels, h, w, generator=generator, dtype=torch.float64)
    if channels == 3:
        prediction[:, 2], target[:, 2] = prediction[:, 2].exp(), target[:, 2].exp()
    return prediction, target, torch.rand(b, 1, h, w, generator=generator) < share


# ---------------------------------------------------------------- depth


def slow_trimmed(prediction: Tensor, target: Tensor, mask: Tensor, keep: float) -> float:
    errors = sorted(
        abs(float(p) - float(t)) for p, t, m in zip(prediction.ravel(), target.ravel(), mask.ravel(), strict=True) if m
    )
    kept = errors[: math.ceil(len(errors) * keep - 1e-6)] if errors else []
    return sum(kept) / len(kept) if kept else 0.0


@given(shapes, shares, seeds, st.sampled_from([0.5, 0.8, 1.0]))
def test_trimmed_l1(shape: tuple[int, int, int], share: float, seed: int, keep: float) -> None:
    prediction, target, mask = maps(shape, share, seed)
    keeps = torch.tensor([keep, 1.0, 0.8])[: len(prediction)]
    result = trimmed_l1(prediction, target, mask, keeps)
    expected = [slow_trimmed(p, t, m, float(k)) for p, t, m, k in zip(prediction, target, mask, keeps, strict=True)]
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_trimmed_l1_ignores_the_worst_fifth() -> None:
    target = torch.zeros(1, 1, 2, 5)
    prediction = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 1e6, 1e6]).view(1, 1, 2, 5)
    everywhere = torch.ones(1, 1, 2, 5, dtype=torch.bool)
    assert trimmed_l1(prediction, target, everywhere, torch.tensor([0.8])).item() == 4.5
    assert trimmed_l1(prediction, target, everywhere, torch.tensor([1.0])).item() > 1e5


def slow_gradient(prediction: Tensor, target: Tensor, mask: Tensor, scales: int) -> float:
    d, m = (prediction - target)[0].numpy(), mask[0].numpy()
    total = 0.0
    for _ in range(scales):
        h, w = d.shape
        dx = [abs(d[i, j + 1] - d[i, j]) for i in range(h) for j in range(w - 1) if m[i, j] and m[i, j + 1]]
        dy = [abs(d[i + 1, j] - d[i, j]) for i in range(h - 1) for j in range(w) if m[i, j] and m[i + 1, j]]
        total += (sum(dx) / len(dx) if dx else 0.0) + (sum(dy) / len(dy) if dy else 0.0)
        d, m = d[::2, ::2], m[::2, ::2]
    return total / scales


@given(shapes, shares, seeds, st.sampled_from([1, 2, 4]))
def test_gradient_l1(shape: tuple[int, int, int], share: float, seed: int, scales: int) -> None:
    prediction, target, mask = maps(shape, share, seed)
    expected = [slow_gradient(p, t, m, scales) for p, t, m in zip(prediction, target, mask, strict=True)]
    np.testing.assert_allclose(gradient_l1(prediction, target, mask, scales), expected, rtol=1e-9, atol=1e-12)


def test_gradient_l1_does_not_see_a_constant() -> None:
    prediction, target, mask = maps((2, 9, 8), 0.7, 0)
    torch.testing.assert_close(gradient_l1(prediction + 5, target, mask), gradient_l1(prediction, target, mask))
    assert (gradient_l1(target + 5, target, mask) < 1e-12).all()


@given(shapes, shares, seeds)
def test_mask_bce(shape: tuple[int, int, int], share: float, seed: int) -> None:
    logit, other, known = maps(shape, share, seed)
    finite = other > 0
    expected = []
    for z, f, k in zip(logit, finite, known, strict=True):
        terms = [
            -math.log(1 / (1 + math.exp(-float(a))) if b else 1 / (1 + math.exp(float(a))))
            for a, b, c in zip(z.ravel(), f.ravel(), k.ravel(), strict=True)
            if c
        ]
        expected.append(sum(terms) / len(terms) if terms else 0.0)
    np.testing.assert_allclose(mask_bce(logit, finite, known), expected, rtol=1e-9)


# ---------------------------------------------------------------- points


@given(shapes, st.sampled_from([0.4, 0.8, 1.0]), seeds)
def test_alignment_is_the_least_squares_solution(shape: tuple[int, int, int], share: float, seed: int) -> None:
    """Against numpy's solver on the stacked weighted system, one row per coordinate."""
    prediction, target, mask = maps(shape, share, seed, channels=3)
    target = 0.5 * target + prediction * torch.tensor([2.0, 2.0, 2.0]).view(3, 1, 1)  # so that scales are positive
    scale, shift = align_scale_shift(prediction, target, mask)
    for i in range(len(prediction)):
        p, q = prediction[i].permute(1, 2, 0)[mask[i, 0]].numpy(), target[i].permute(1, 2, 0)[mask[i, 0]].numpy()
        if len(p) == 0:
            assert (scale[i], shift[i]) == (0, 0)
            continue
        w = np.repeat(1 / np.maximum(q[:, 2], 1e-3), 3)
        system = np.stack([p.ravel(), np.tile([0.0, 0.0, 1.0], len(p))], axis=1) * w[:, None]
        solution = np.linalg.lstsq(system, q.ravel() * w, rcond=None)[0]
        if solution[0] <= 0:
            assert (scale[i], shift[i]) == (0, 0)
        else:
            np.testing.assert_allclose([scale[i], shift[i]], solution, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", ["no pixel", "one ray", "mirrored"])
def test_degenerate_alignment_has_no_gradient(case: str) -> None:
    _, target, mask = maps((2, 4, 5), 1.0, 0, channels=3)
    points = target.clone()
    if case == "no pixel":
        mask[:] = False
    elif case == "one ray":  # only z, all alike: scale and shift cannot be told apart
        points[:, :2], points[:, 2] = 0, 2
    else:
        points = -points
    points.requires_grad_()
    scale, shift = align_scale_shift(points, target, mask)
    assert scale.tolist() == shift.tolist() == [0, 0]
    log_scale = torch.full((2,), 2.0, dtype=points.dtype, requires_grad=True)
    counted = global_points(points, target, mask, scale, shift) + metric_scale(
        log_scale, scale, torch.tensor([True] * 2)
    )
    assert counted.tolist() == [0, 0]  # nothing aligned, nothing to learn
    (scale.sum() + shift.sum() + counted.sum()).backward()
    assert (points.grad == 0).all()
    assert (log_scale.grad == 0).all()


@given(shapes, shares, seeds)
def test_global_points(shape: tuple[int, int, int], share: float, seed: int) -> None:
    prediction, target, mask = maps(shape, share, seed, channels=3)
    scale, shift = torch.tensor([0.5, 2.0, 1.0])[: len(mask)], torch.tensor([0.3, -0.1, 0.0])[: len(mask)]
    expected = []
    for p, q, m, a, b in zip(prediction, target, mask, scale.tolist(), shift.tolist(), strict=True):
        terms = [
            sum(abs(a * p[c, i, j] + (b if c == 2 else 0) - q[c, i, j]) for c in range(3)) / max(q[2, i, j], 1e-3)
            for i in range(m.shape[1])
            for j in range(m.shape[2])
            if m[0, i, j]
        ]
        expected.append(float(sum(terms) / len(terms)) if terms else 0.0)
    np.testing.assert_allclose(global_points(prediction, target, mask, scale, shift), expected, rtol=1e-6)


@given(st.floats(0.05, 20), st.floats(-3, 3), seeds)
def test_aligned_point_loss_is_scale_and_shift_invariant(factor: float, offset: float, seed: int) -> None:
    prediction, target, mask = maps((2, 6, 7), 0.6, seed, channels=3)
    prediction = target + 0.1 * prediction  # near enough for a positive scale
    moved = factor * prediction + torch.tensor([0.0, 0.0, offset]).view(3, 1, 1)
    first = global_points(prediction, target, mask, *align_scale_shift(prediction, target, mask))
    second = global_points(moved, target, mask, *align_scale_shift(moved, target, mask))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)
    perfect = factor * target + torch.tensor([0.0, 0.0, offset]).view(3, 1, 1)
    assert (global_points(perfect, target, mask, *align_scale_shift(perfect, target, mask)) < 1e-7).all()


def test_metric_scale() -> None:
    log_scale = torch.tensor([0.5, 0.5, -1.0], requires_grad=True)
    scale = torch.tensor([math.e, math.e, 1.0], requires_grad=True)
    result = metric_scale(log_scale, scale, torch.tensor([True, False, True]))
    np.testing.assert_allclose(result.detach(), [0.25, 0, 1], rtol=1e-6)
    result.sum().backward()
    np.testing.assert_allclose(log_scale.grad, [-1, 0, -2], rtol=1e-6)
    assert scale.grad is None  # the alignment is the target, not to be moved


# ---------------------------------------------------------------- every loss

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, tuple[int, Loss]] = {
    "masked_mean": (1, lambda p, t, m: masked_mean(p, m)),
    "trimmed_l1": (1, lambda p, t, m: trimmed_l1(p, t, m, torch.full((len(p),), 0.8))),
    "gradient_l1": (1, gradient_l1),
    "mask_bce": (1, lambda p, t, m: mask_bce(p, t > 0, m)),
    "scale": (3, lambda p, t, m: align_scale_shift(p, t, m)[0]),
    "shift": (3, lambda p, t, m: align_scale_shift(p, t, m)[1]),
    "global_points": (3, lambda p, t, m: global_points(p, t, m, *align_scale_shift(p, t, m))),
}
every_loss = pytest.mark.parametrize(("channels", "loss"), LOSSES.values(), ids=list(LOSSES))


@every_loss
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30, 0.0])
@pytest.mark.parametrize("where", ["target", "prediction"])
def test_unsupervised_pixels_reach_neither_loss_nor_gradient(
    channels: int, loss: Loss, garbage: float, where: str
) -> None:
    prediction, target, mask = (x.float() if x.is_floating_point() else x for x in maps((3, 6, 5), 0.6, 4, channels))
    prediction = target + 0.3 * prediction
    mask[2] = False
    results = []
    for value in (1.0, garbage):
        p = torch.where(mask, prediction, value if where == "prediction" else prediction).requires_grad_()
        t = torch.where(mask, target, value if where == "target" else target)
        result = loss(p, t, mask)
        result.sum().backward()
        results.append((result.detach(), p.grad))
    (clean, clean_grad), (spoilt, spoilt_grad) = results
    assert torch.isfinite(spoilt).all()
    torch.testing.assert_close(spoilt, clean, rtol=0, atol=0)
    torch.testing.assert_close(spoilt_grad, clean_grad, rtol=0, atol=0)
    assert (spoilt_grad[~mask.expand_as(spoilt_grad)] == 0).all()
    assert clean_grad.abs().sum() > 0


@every_loss
def test_nothing_supervised_is_zero(channels: int, loss: Loss) -> None:
    prediction, target, mask = maps((2, 4, 4), 0.0, 0, channels)
    prediction.requires_grad_()
    result = loss(prediction, target * math.nan, mask)
    assert result.tolist() == [0, 0]
    result.sum().backward()
    assert (prediction.grad == 0).all()


@every_loss
def test_images_of_a_batch_are_independent(channels: int, loss: Loss) -> None:
    prediction, target, mask = maps((3, 6, 5), 0.6, 7, channels)
    prediction = target + 0.3 * prediction
    together = loss(prediction, target, mask)
    assert together.shape == (3,)
    for i in range(3):
        alone = loss(prediction[i : i + 1], target[i : i + 1], mask[i : i + 1])
        torch.testing.assert_close(alone[0], together[i])
