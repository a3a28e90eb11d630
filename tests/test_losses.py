"""Losses on depth and on points against slow references in float64, and their invariances."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from metricanything.losses.depth import image_mean, mask_bce, ssi_l1, standardise, trimmed_l1, trimmed_relative

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


@given(shapes, shares, seeds, st.sampled_from([0.5, 0.8, 1.0]))
def test_trimmed_relative_is_the_relative_error_of_depth(
    shape: tuple[int, int, int], share: float, seed: int, keep: float
) -> None:
    """|D / D* - 1| up to a ratio of e, and e log ratio - 1 beyond; the smallest are kept."""
    prediction, target, mask = maps(shape, share, seed)
    result = trimmed_relative(prediction, target, mask, torch.full((len(target),), keep))
    for i, found in enumerate(result.tolist()):
        ratios = [
            math.exp(t - p) for p, t in zip(prediction[i][mask[i]].tolist(), target[i][mask[i]].tolist(), strict=True)
        ]
        errors = sorted(abs(r - 1) if r <= math.e else math.e * math.log(r) - 1 for r in ratios)
        kept = errors[: math.ceil(len(errors) * keep - 1e-6)]
        np.testing.assert_allclose(found, sum(kept) / len(kept) if kept else 0.0, rtol=1e-9)


def test_least_relative_error_lies_below_the_median() -> None:
    """Of depths 1 and 3, each as likely, AbsRel is least at 1: the median weighted by 1 / D."""
    target = -torch.tensor([1.0, 3.0]).log().view(1, 1, 1, 2)
    guesses = [0.8, 1.0, 1.2, 1.7, 2.5, 3.0]
    mask, keep = torch.ones(1, 1, 1, 2, dtype=torch.bool), torch.ones(1)
    costs = [trimmed_relative(torch.full_like(target, -math.log(d)), target, mask, keep).item() for d in guesses]
    assert min(costs) == costs[1]


def test_trimmed_l1_ignores_the_worst_fifth() -> None:
    target = torch.zeros(1, 1, 2, 5)
    prediction = torch.tensor([1.0, 2, 3, 4, 5, 6, 7, 8, 1e6, 1e6]).view(1, 1, 2, 5)
    everywhere = torch.ones(1, 1, 2, 5, dtype=torch.bool)
    assert trimmed_l1(prediction, target, everywhere, torch.tensor([0.8])).item() == 4.5
    assert trimmed_l1(prediction, target, everywhere, torch.tensor([1.0])).item() > 1e5


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=3), seeds)
def test_trimming_ignores_the_worst_fifth_whatever_their_size(sizes: list[float], seed: int) -> None:
    """Neither the loss nor the gradient of any pixel depends on how wrong the worst 20 % are."""
    prediction, target, mask = maps((1, 6, 5), 0.8, seed)
    order = torch.where(mask, (prediction - target).abs(), -torch.inf).flatten().argsort(descending=True)
    worst = order[: int(mask.sum()) // 5]
    results = []
    for size in (1.0, *sizes):
        p = prediction.clone().flatten()
        p[worst] += size * (p[worst] - target.flatten()[worst]).sign()
        p = p.view_as(prediction).requires_grad_()
        loss = trimmed_l1(p, target, mask, torch.tensor([0.8]))
        loss.sum().backward()
        assert (p.grad.flatten()[worst] == 0).all()
        results.append((loss.detach(), p.grad))
    for loss, gradient in results[1:]:
        assert torch.equal(loss, results[0][0])
        assert torch.equal(gradient, results[0][1])


def test_mean_absolute_error_vanishes_at_equality_alone() -> None:
    _, target, mask = maps((2, 5, 4), 0.7, 1)
    keep = torch.tensor([0.8, 1.0])
    assert trimmed_l1(target, target, mask, keep).tolist() == [0, 0]
    torch.testing.assert_close(trimmed_l1(target + 0.25, target, mask, keep), torch.full((2,), 0.25).double())


def slow_standardise(value: Tensor, mask: Tensor) -> list[float | None]:
    """Flat list, None outside the mask."""
    inside = [float(v) for v, m in zip(value.ravel(), mask.ravel(), strict=True) if m]
    middle = statistics.median(inside)
    spread = sum(abs(v - middle) for v in inside) / len(inside)
    return [(float(v) - middle) / spread if m else None for v, m in zip(value.ravel(), mask.ravel(), strict=True)]


@given(st.tuples(st.integers(1, 3), st.integers(2, 7), st.integers(2, 7)), shares, seeds)
def test_standardise_and_ssi(shape: tuple[int, int, int], share: float, seed: int) -> None:
    prediction, target, mask = maps(shape, share, seed)
    keep = torch.tensor([0.8, 1.0, 0.5])[: len(mask)]
    result, usable = standardise(prediction, mask)
    centred, _ = standardise(prediction, mask, divide=False)
    loss = ssi_l1(prediction, target, mask, keep)
    for i, (p, t, m) in enumerate(zip(prediction, target, mask, strict=True)):
        assert (result[i][~m] == 0).all()
        assert usable[i] == (m.sum() > 1)  # a single pixel is constant
        if m.sum() < 2:
            assert (result[i] == 0).all()
            assert loss[i] == 0
            continue
        slow_p, slow_t = slow_standardise(p, m), slow_standardise(t, m)
        np.testing.assert_allclose(result[i].ravel(), [v or 0.0 for v in slow_p], atol=1e-12)
        np.testing.assert_allclose(centred[i][m], p[m] - np.median(p[m]), atol=1e-12)
        errors = sorted(abs(a - b) for a, b in zip(slow_p, slow_t, strict=True) if a is not None and b is not None)
        kept = errors[: math.ceil(len(errors) * float(keep[i]) - 1e-6)]
        np.testing.assert_allclose(loss[i], sum(kept) / len(kept), rtol=1e-9)


@given(st.floats(0.05, 20), st.floats(-5, 5), seeds)
def test_ssi_sees_neither_scale_nor_shift(factor: float, offset: float, seed: int) -> None:
    prediction, target, mask = maps((2, 6, 7), 0.6, seed)
    keep = torch.tensor([0.8, 1.0])
    expected = ssi_l1(prediction, target, mask, keep)
    assert (expected > 0.1).all()
    torch.testing.assert_close(ssi_l1(factor * prediction + offset, target, mask, keep), expected)
    torch.testing.assert_close(ssi_l1(prediction, factor * target + offset, mask, keep), expected)
    assert (ssi_l1(factor * target + offset, target, mask, keep) < 1e-9).all()


@pytest.mark.parametrize("constant", ["prediction", "target"])
def test_constants_cannot_be_standardised(constant: str) -> None:
    prediction, target, mask = (x.float() if x.is_floating_point() else x for x in maps((2, 4, 5), 0.7, 0))
    (prediction if constant == "prediction" else target)[0] = 0.1
    prediction.requires_grad_()
    loss = ssi_l1(prediction, target, mask, torch.ones(2))
    assert loss[0] == 0
    assert loss[1] > 0
    loss.sum().backward()
    assert (prediction.grad[0] == 0).all()
    assert (prediction.grad[1][mask[1]] != 0).any()


def test_image_mean_leaves_out_images_without_pixels() -> None:
    mask = torch.tensor([True, False, True]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    values = torch.tensor([1.0, math.nan, 4.0])
    assert image_mean(values, mask) == 2.5
    assert image_mean(values, mask & False) == 0


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
