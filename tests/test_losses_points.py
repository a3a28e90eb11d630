"""Losses on points against slow references in float64, and their invariances."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_losses import maps, seeds, shapes, shares
from torch import Tensor

from metricanything.evaluation import alignment_l1
from metricanything.losses.alignment import Shortlist, align
from metricanything.losses.normals import edge_angle, normal_angle, point_normal_angle
from metricanything.losses.point_combination import PointWeights, point_losses
from metricanything.losses.points import (
    align_points,
    draw_anchors,
    global_points,
    grid_pixels,
    local_points,
    metric_scale,
)

Z = (False, False, True)


# ---------------------------------------------------------------- alignment


def problems(seed: int, batch: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions, truths (B, N, 3) with outliers, and weights (B, N), a fifth of them 0."""
    g = torch.Generator().manual_seed(seed)
    p, noise = torch.randn(2, batch, samples, 3, generator=g, dtype=torch.float64)
    q = 2 * p + 0.1 * noise + torch.tensor([0.0, 0.0, 5.0])
    q = torch.where(torch.rand(batch, samples, 1, generator=g) < 0.2, 3 * q, q)
    return p, q, torch.rand(batch, samples, generator=g, dtype=torch.float64).sub(0.2).clamp_min(0)


def cost(p: Tensor, q: Tensor, w: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    residual = w[..., None] * (scale[:, None, None] * p + shift[:, None] - q).abs()
    return residual.clamp_max(1.0).sum(dim=(1, 2))


@given(seeds, st.integers(1, 12))
@settings(max_examples=15)
def test_a_batch_is_solved_like_each_problem(seed: int, samples: int) -> None:
    p, q, w = problems(seed, 4, samples)
    together = cost(p, q, w, *align(p, q, w, Z, 1.0))
    for i in range(4):
        one = [x[i].numpy() for x in (p, q, w)]
        scale, shift = alignment_l1.points_scale_z_shift(*one, 1.0)
        if math.isnan(scale):
            continue
        alone = cost(
            p[i : i + 1],
            q[i : i + 1],
            w[i : i + 1],
            torch.tensor([scale], dtype=torch.float64),
            torch.tensor(shift)[None],
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-12)


def test_shortlist_costs_little_more() -> None:
    p, q, w = problems(0, 16, 150)
    exact, quick = (cost(p, q, w, *align(p, q, w, Z, 1.0, shortlist)) for shortlist in (None, Shortlist()))
    assert (quick >= exact * (1 - 1e-12)).all()
    assert (quick / exact).max() < 1.05


def test_grid_takes_the_supervised_pixel_nearest_to_each_centre() -> None:
    mask = maps((2, 11, 13), 0.4, 3)[2]
    index, found = grid_pixels(mask, 3)
    for image, (i, j) in product(range(2), product(range(3), range(3))):
        centre = (i + 0.5) * 11 / 3, (j + 0.5) * 13 / 3
        inside = [
            (((r + 0.5 - centre[0]) * 3 / 11) ** 2 + ((c + 0.5 - centre[1]) * 3 / 13) ** 2, r * 13 + c)
            for r, c in product(range(11), range(13))
            if mask[image, 0, r, c] and int((r + 0.5) * 3 / 11) == i and int((c + 0.5) * 3 / 13) == j
        ]
        assert bool(found[image, 3 * i + j]) == bool(inside)
        if inside:
            assert int(index[image, 3 * i + j]) == min(inside)[1]


def test_outliers_do_not_move_the_alignment() -> None:
    _, target, mask = maps((1, 12, 12), 1.0, 1, channels=3)
    wrong = target.clone()
    wrong[:, :, :2] *= 20  # a sixth of the pixels
    scale, shift = align_points(0.5 * wrong - torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1), target, mask, 12)
    np.testing.assert_allclose([scale.item(), shift.item()], [2, 2], rtol=1e-6)


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
    scale, shift = align_points(points, target, mask, 5)
    assert scale.tolist() == shift.tolist() == [0, 0]
    log_scale = torch.full((2,), 2.0, dtype=points.dtype, requires_grad=True)
    counted = global_points(points, target, mask, scale, shift) + metric_scale(
        log_scale, scale, torch.tensor([True] * 2)
    )
    assert counted.tolist() == [0, 0]  # nothing aligned, nothing to learn
    (scale.sum() + shift.sum() + counted.sum()).backward()
    assert (points.grad == 0).all()
    assert (log_scale.grad == 0).all()


# ---------------------------------------------------------------- global and local


@given(shapes, shares, seeds)
def test_global_points(shape: tuple[int, int, int], share: float, seed: int) -> None:
    prediction, target, mask = maps(shape, share, seed, channels=3)
    scale, shift = torch.tensor([0.5, 2.0, 1.0])[: len(mask)], torch.tensor([0.3, -0.1, 0.0])[: len(mask)]
    expected = []
    for p, q, m, a, b in zip(prediction, target, mask, scale.tolist(), shift.tolist(), strict=True):
        pixels = [(i, j) for i, j in product(range(m.shape[1]), range(m.shape[2])) if m[0, i, j]]
        weights = [1 / max(float(q[2, i, j]), 1e-3) for i, j in pixels]
        most = 10 * sum(weights) / max(len(weights), 1)
        terms = [
            min(w, most) * sum(abs(float(a * p[c, i, j] + (b if c == 2 else 0) - q[c, i, j])) for c in range(3)) / 3
            for (i, j), w in zip(pixels, weights, strict=True)
        ]
        expected.append(sum(terms) / len(terms) if terms else 0.0)
    np.testing.assert_allclose(global_points(prediction, target, mask, scale, shift), expected, rtol=1e-6)


@given(st.floats(0.05, 20), st.floats(-3, 3), seeds)
@settings(max_examples=15)
def test_aligned_point_loss_is_scale_and_shift_invariant(factor: float, offset: float, seed: int) -> None:
    prediction, target, mask = maps((2, 6, 7), 0.6, seed, channels=3)
    prediction = target + 0.1 * prediction  # near enough for a positive scale
    moved = factor * prediction + torch.tensor([0.0, 0.0, offset]).view(3, 1, 1)
    first = global_points(prediction, target, mask, *align_points(prediction, target, mask, 7))
    second = global_points(moved, target, mask, *align_points(moved, target, mask, 7))
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-9)
    perfect = factor * target + torch.tensor([0.0, 0.0, offset]).view(3, 1, 1)
    assert (global_points(perfect, target, mask, *align_points(perfect, target, mask, 7)) < 1e-7).all()


def slow_local(p: Tensor, q: Tensor, m: Tensor, focal: float, whole: float, anchors: list[int], level: int) -> float:
    """One image (3, H, W), five samples a side."""
    height, width = m.shape[-2:]
    radius = 0.5 * math.hypot(height, width) / level
    steps = [round(s) for s in np.linspace(-radius, radius, 5).astype(np.float32).tolist()]
    depths = [float(q[2, i, j]) for i, j in product(range(height), range(width)) if m[0, i, j]]
    floor = 0.1 * len(depths) / sum(1 / max(z, 1e-3) for z in depths) if depths else 1.0
    errors: list[float] = []
    for anchor in anchors:
        i, j = divmod(anchor, width)
        if not m[0, i, j]:
            continue
        centre = q[:, i, j]
        reach = float(centre[2]) * radius / (focal * width)
        own = [
            (r, c)
            for r, c in product([i + s for s in steps], [j + s for s in steps])
            if 0 <= r < height and 0 <= c < width and m[0, r, c] and (q[:, r, c] - centre).norm() <= reach
        ]
        if len(own) < 0.25 * 25:
            continue
        x, y = (np.array([v[:, r, c].tolist() for r, c in own]) for v in (p, q))
        w = 1 / np.maximum(y[:, 2], floor)
        a, b = alignment_l1.points_scale_shift(x, y, w, 1.0)
        if whole > 0 and whole / 10 < a < whole * 10:
            errors += (np.abs(a * x + b - y).mean(axis=1) * w).tolist()
    return sum(errors) / len(errors) if errors else 0.0


@given(seeds, st.sampled_from([0.5, 1.0]), st.sampled_from([2, 3]))
@settings(max_examples=8)
def test_local_points(seed: int, share: float, level: int) -> None:
    noise, _, mask = maps((2, 12, 14), share, seed, channels=3)
    slope = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")).double() / 10
    target = torch.cat([slope, 2 + slope[:1]]).expand(2, -1, -1, -1) + 0.02 * noise
    prediction = 0.5 * target + 0.01 * noise.flip(0)
    focal, anchors = torch.tensor([0.4, 0.6]), torch.arange(0, 168, 9).expand(2, -1)
    scale = align_points(prediction, target, mask, 8)[0]
    expected = [
        slow_local(*image, float(f), float(a), anchors[0].tolist(), level)
        for *image, f, a in zip(prediction, target, mask, focal, scale, strict=True)
    ]
    assert max(expected) > 0
    result = local_points(prediction, target, mask, focal, scale, anchors, level=level, side=5)
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_parts_that_moved_apart_cost_the_whole_and_not_the_patches() -> None:
    """Two walls, each right up to its own scale and shift."""
    slope = torch.stack(torch.meshgrid(torch.arange(16.0), torch.arange(32.0), indexing="ij")).double() / 10
    target = torch.cat([slope, 2 + slope[:1] + 4 * (slope[1:] >= 1.6)])[None]
    prediction = torch.where(slope[1] >= 1.6, 1.3 * target + 0.4, target)
    mask = torch.ones(1, 1, 16, 32, dtype=torch.bool)
    scale, shift = align_points(prediction, target, mask, 16)
    anchors = (torch.arange(2, 14)[:, None] * 32 + torch.tensor([4, 27])).flatten()[None]
    focal = torch.tensor([1.0])
    assert local_points(prediction, target, mask, focal, scale, anchors, level=8, side=4).item() < 1e-6
    assert global_points(prediction, target, mask, scale, shift).item() > 0.02


def test_anchors_are_supervised_pixels() -> None:
    mask = maps((2, 9, 9), 0.5, 0)[2]
    torch.manual_seed(1)
    anchors = draw_anchors(mask, 12)
    assert mask.flatten(1).gather(1, anchors).all()
    assert all(len(set(row)) == 12 for row in anchors.tolist())


# ---------------------------------------------------------------- directions and scale


def test_normals_of_points_are_those_of_depth() -> None:
    depth, target, mask = (x[:, :1] for x in maps((2, 7, 8), 0.9, 3))
    depth, target = 4 + 0.05 * depth, 4 + 0.05 * target
    v, u = torch.meshgrid(torch.linspace(-0.5, 0.5, 7), torch.linspace(-0.6, 0.6, 8), indexing="ij")
    plane = torch.stack([u, v], dim=-1).double().expand(2, -1, -1, -1)
    rays = torch.cat([plane.permute(0, 3, 1, 2), torch.ones(2, 1, 7, 8)], dim=1)
    expected = normal_angle(depth, target, mask, plane)
    torch.testing.assert_close(point_normal_angle(rays * depth, rays * target, mask), expected)
    moved = 3 * rays * depth + torch.tensor([0.0, 0.0, 7.0]).view(3, 1, 1)
    torch.testing.assert_close(point_normal_angle(moved, rays * target, mask), expected, rtol=1e-6, atol=1e-9)


@given(shapes, shares, seeds)
def test_edge_angle(shape: tuple[int, int, int], share: float, seed: int) -> None:
    prediction, target, mask = maps(shape, share, seed, channels=3)
    expected = []
    for p, q, m in zip(prediction.numpy(), target.numpy(), mask[:, 0].numpy(), strict=True):
        angles = []
        for i, j in product(range(m.shape[0]), range(m.shape[1])):
            for r, c in ((i + 1, j), (i, j + 1)):
                if r < m.shape[0] and c < m.shape[1] and m[i, j] and m[r, c]:
                    a, b = (x[:, r, c] - x[:, i, j] for x in (p, q))
                    angles.append(math.atan2(np.linalg.norm(np.cross(a, b)), a @ b))
        expected.append(sum(angles) / len(angles) if angles else 0.0)
    result = edge_angle(prediction, target, mask)
    np.testing.assert_allclose(result, expected, rtol=1e-7, atol=1e-9)
    moved = 2 * prediction + torch.tensor([0.5, 0.0, 7.0]).view(3, 1, 1)
    torch.testing.assert_close(edge_angle(moved, target, mask), result, rtol=1e-6, atol=1e-9)


def test_metric_scale() -> None:
    log_scale = torch.tensor([0.5, 0.5, -1.0], requires_grad=True)
    scale = torch.tensor([math.e, math.e, 1.0], requires_grad=True)
    result = metric_scale(log_scale, scale, torch.tensor([True, False, True]))
    np.testing.assert_allclose(result.detach(), [0.25, 0, 1], rtol=1e-6)
    result.sum().backward()
    np.testing.assert_allclose(log_scale.grad, [-1, 0, -2], rtol=1e-6)
    assert scale.grad is None  # the alignment is the target, not to be moved


# ---------------------------------------------------------------- who gets which


@pytest.mark.parametrize(
    ("exact", "sparse", "named"),
    [
        (True, False, {"local 4", "local 16", "local 64", "edges", "normals"}),
        (False, False, {"local 4", "local 16", "edges", "normals"}),
        (False, True, {"local 4"}),
    ],
)
def test_terms_of_each_kind_of_label(exact: bool, sparse: bool, named: set[str]) -> None:
    """As in MoGe-2: rendered labels get all, sparse ones the coarsest patches alone."""
    noise, other, _ = maps((1, 96, 96), 1.0, 0, channels=3)
    slope = torch.stack(torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")).double() / 96
    target = (torch.cat([slope, 3 + slope[:1]]) + 1e-4 * noise).expand(1, -1, -1, -1)
    weights = PointWeights(samples=8, patches=(8, 8, 8), patch_samples=(4, 4, 3))
    flags = {"exact_B": torch.tensor([exact]), "sparse_B": torch.tensor([sparse]), "metric_B": torch.tensor([False])}
    mask = torch.ones(1, 1, 96, 96, dtype=torch.bool)
    terms = point_losses(
        target + 1e-3 * other, target, mask, torch.zeros(1), torch.tensor([0.2]), weights=weights, **flags
    )
    counted = {name for name, value in terms.items() if value > 0}
    assert counted == {"whole", *named}
