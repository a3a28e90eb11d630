"""Losses on derivatives, confidence and normals against slow references in float64, and their invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from metricanything.core.camera import Camera
from metricanything.core.geometry import depth_to_normals
from metricanything.losses.confidence import confidence_l1
from metricanything.losses.gradients import gradient_l1, mage, male, msge
from metricanything.losses.normals import normal_angle

shapes = st.tuples(st.integers(1, 2), st.integers(1, 14), st.integers(1, 14))
shares = st.sampled_from([0.0, 0.7, 0.95, 1.0])
seeds = st.integers(0, 1000)
Loss = Callable[..., Tensor]
DERIVATIVES = {"mage": mage, "male": male, "msge": msge}
every_derivative = pytest.mark.parametrize("loss", DERIVATIVES.values(), ids=list(DERIVATIVES))


def maps(shape: tuple[int, int, int], share: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target (B, 1, H, W) float64 and mask."""
    b, h, w = shape
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, b, 1, h, w, generator=generator, dtype=torch.float64)
    return prediction, target, torch.rand(b, 1, h, w, generator=generator) < share


# ---------------------------------------------------------------- derivatives

Grid = NDArray[np.float64]
SCHARR_X = np.array([[-3, 0, 3], [-10, 0, 10], [-3, 0, 3]]) / 32
LAPLACE = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
SLOW = {"mage": ([SCHARR_X, SCHARR_X.T], 1), "male": ([LAPLACE], 1), "msge": ([SCHARR_X, SCHARR_X.T], 2)}


def slow_halve(values: list[Grid], mask: NDArray[np.bool_]) -> tuple[list[Grid], NDArray[np.bool_]]:
    """Each map blurred over its known pixels, every second one kept."""
    h, w = mask.shape
    out, known = [np.zeros((h // 2, w // 2)) for _ in values], np.zeros((h // 2, w // 2), bool)
    for i, j in product(range(h // 2), range(w // 2)):
        window = [
            (2 * i + a - 1, 2 * j + b - 1, (1, 3, 3, 1)[a] * (1, 3, 3, 1)[b]) for a, b in product(range(4), repeat=2)
        ]
        window = [(r, c, k) for r, c, k in window if 0 <= r < h and 0 <= c < w and mask[r, c]]
        total = sum(k for _, _, k in window)
        known[i, j] = total >= 32  # of 64
        if known[i, j]:
            for result, value in zip(out, values, strict=True):
                result[i, j] = sum(k * value[r, c] for r, c, k in window) / total
    return out, known


def slow_derivative(name: str, prediction: Tensor, target: Tensor, mask: Tensor, scales: int) -> float:
    """Derivatives of prediction and target apart, then their difference."""
    kernels, power = SLOW[name]
    p, t, m = prediction[0].numpy(), target[0].numpy(), mask[0].numpy()
    total = 0.0
    for _ in range(scales):
        terms = []
        for i, j in product(range(1, m.shape[0] - 1), range(1, m.shape[1] - 1)):
            window = np.s_[i - 1 : i + 2, j - 1 : j + 2]
            if m[window].all():
                terms.append(sum(abs((k * p[window]).sum() - (k * t[window]).sum()) ** power for k in kernels))
        total += sum(terms) / len(terms) if terms else 0.0
        (p, t), m = slow_halve([p, t], m)
    return total / scales


@pytest.mark.parametrize("name", list(DERIVATIVES))
@given(shape=shapes, share=shares, seed=seeds, scales=st.sampled_from([1, 2, 6]))
def test_derivatives(name: str, shape: tuple[int, int, int], share: float, seed: int, scales: int) -> None:
    prediction, target, mask = maps(shape, share, seed)
    expected = [slow_derivative(name, *images, scales) for images in zip(prediction, target, mask, strict=True)]
    np.testing.assert_allclose(DERIVATIVES[name](prediction, target, mask, scales), expected, rtol=1e-9, atol=1e-12)


def test_six_scales_of_a_large_map() -> None:
    """Every scale has pixels, and coarse ones weigh in."""
    prediction, target, mask = maps((1, 96, 100), 0.97, 0)
    for name, loss in DERIVATIVES.items():
        expected = slow_derivative(name, prediction[0], target[0], mask[0], 6)
        np.testing.assert_allclose(loss(prediction, target, mask), [expected], rtol=1e-9)
        assert loss(prediction, target, mask, 6) * 6 > loss(prediction, target, mask, 5) * 5


def test_units_of_the_operators() -> None:
    """Per pixel at full size: a ramp has its slope, x^2 has the Laplacian 2."""
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    flat, everywhere = torch.zeros(1, 1, 7, 9), torch.ones(1, 1, 7, 9, dtype=torch.bool)
    ramp = (2 * x - 0.5 * y)[None, None]
    assert mage(ramp, flat, everywhere, 1).item() == pytest.approx(2.5)
    assert msge(ramp, flat, everywhere, 1).item() == pytest.approx(4.25)
    assert male(ramp, flat, everywhere, 1).item() == pytest.approx(0, abs=1e-6)
    assert male((x * x)[None, None], flat, everywhere, 1).item() == pytest.approx(2)


@pytest.mark.parametrize("loss", [*DERIVATIVES.values(), gradient_l1], ids=[*DERIVATIVES, "gradient_l1"])
@given(offset=st.floats(-5, 5), seed=seeds)
def test_derivatives_do_not_see_a_constant(loss: Loss, offset: float, seed: int) -> None:
    prediction, target, mask = maps((2, 13, 12), 0.9, seed)
    torch.testing.assert_close(loss(prediction + offset, target, mask), loss(prediction, target, mask))
    assert (loss(target + offset, target, mask) < 1e-12).all()
    assert (loss(prediction, target, mask) > 0.01).all()


@every_derivative
def test_derivatives_are_alike_in_a_mirror(loss: Loss) -> None:
    """Even sizes: the coarse pixels of the mirrored map are those of the map, mirrored."""
    images = maps((2, 16, 24), 0.9, 3)
    torch.testing.assert_close(loss(*(image.flip(-1) for image in images)), loss(*images))
    torch.testing.assert_close(loss(*(image.flip(-2) for image in images)), loss(*images))
    torch.testing.assert_close(loss(*(image.mT for image in images)), loss(*images))


def test_sparse_supervision_has_no_derivatives() -> None:
    """Points apart from each other say nothing about edges, at any scale."""
    prediction, target, mask = maps((1, 64, 64), 1.0, 0)
    mask[:] = False
    mask[..., ::5, ::5] = True
    for loss in DERIVATIVES.values():
        assert loss(prediction, target, mask).tolist() == [0]


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


# ---------------------------------------------------------------- confidence


@given(shapes, shares, seeds, st.floats(0.1, 3))
def test_confidence(shape: tuple[int, int, int], share: float, seed: int, strength: float) -> None:
    prediction, target, mask = maps(shape, share, seed)
    log_confidence = maps(shape, share, seed + 1)[0]
    expected = []
    for p, t, m, s in zip(prediction, target, mask, log_confidence, strict=True):
        terms = [
            math.exp(d) * abs(float(a) - float(b)) - strength * float(d)
            for a, b, c, d in zip(p.ravel(), t.ravel(), m.ravel(), s.ravel(), strict=True)
            if c
        ]
        expected.append(sum(terms) / len(terms) if terms else 0.0)
    result = confidence_l1(prediction, target, mask, log_confidence, strength)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_best_confidence_is_the_inverse_of_the_error(strength: float) -> None:
    prediction, target, mask = maps((2, 4, 5), 1.0, 2)
    best = (strength / (prediction - target).abs()).log().requires_grad_()
    loss = confidence_l1(prediction, target, mask, best, strength)
    loss.sum().backward()
    assert best.grad.abs().max() < 1e-12
    for other in (best + 0.1, best - 0.1):
        assert (confidence_l1(prediction, target, mask, other, strength) > loss).all()


# ---------------------------------------------------------------- normals

CAMERA = Camera.opencv(11.0, 13.0, 5.2, 6.1, 12, 11, distortion=(-0.1, 0.02, 0.01, 0.0))


def plane_of(camera: Camera, batch: int) -> Tensor:
    rays = torch.from_numpy(camera.rays()).double()
    return (rays[..., :2] / rays[..., 2:]).expand(batch, -1, -1, -1)


def surface(plane: Tensor, normal: tuple[float, float, float], distance: float) -> Tensor:
    """z-depth (B, 1, H, W) of the plane normal . X = distance."""
    return distance / (plane @ torch.tensor(normal[:2]).double() + normal[2])[:, None]


def slow_angle(depth: Tensor, target: Tensor, mask: Tensor, plane: Tensor) -> float:
    z, q, m = (x[0].numpy() for x in (depth, target, mask))
    rays = np.concatenate([plane.numpy(), np.ones((*z.shape, 1))], axis=-1)
    angles = []
    for i, j in product(range(1, z.shape[0] - 1), range(1, z.shape[1] - 1)):
        cross = [(i, j), (i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        if not all(m[c] and np.isfinite(rays[c]).all() and abs(q[c] - q[i, j]) <= 0.1 * q[i, j] for c in cross):
            continue
        n, k = (
            np.cross(d[i + 1, j] * rays[i + 1, j] - d[i - 1, j] * rays[i - 1, j],
                     d[i, j + 1] * rays[i, j + 1] - d[i, j - 1] * rays[i, j - 1])
            for d in (z, q)
        )  # fmt: skip
        angles.append(math.atan2(np.linalg.norm(np.cross(n, k)), n @ k))
    return sum(angles) / len(angles) if angles else 0.0


@given(seeds, shares, st.sampled_from([0.002, 0.05, 0.3]))
def test_normals(seed: int, share: float, roughness: float) -> None:
    noise, other, mask = maps((2, 11, 12), share, seed)
    plane = plane_of(CAMERA, 2).clone()
    plane[0, 4, 5] = math.nan
    target = surface(plane_of(CAMERA, 2), (0.2, -0.3, 1.0), 4.0) * (1 + 0.03 * other)
    depth = target * (roughness * noise).exp()
    expected = [slow_angle(*images) for images in zip(depth, target, mask, plane, strict=True)]
    np.testing.assert_allclose(normal_angle(depth, target, mask, plane), expected, rtol=1e-7, atol=1e-9)


def test_angle_between_planes() -> None:
    """Exact between planes, through any lens; the same for any unit; zero at equality."""
    plane = plane_of(CAMERA, 1)
    a, b = np.array([0.2, -0.3, 1.0]), np.array([-0.1, 0.2, 1.0])
    depth, target = surface(plane, tuple(a), 2.0), surface(plane, tuple(b), 5.0)
    mask = torch.ones(1, 1, 11, 12, dtype=torch.bool)
    expected = math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    np.testing.assert_allclose(normal_angle(depth, target, mask, plane), [expected], rtol=1e-6)
    np.testing.assert_allclose(normal_angle(1e-4 * depth, 1e3 * target, mask, plane), [expected], rtol=1e-6)
    assert normal_angle(3 * target, target, mask, plane).item() < 1e-7


def test_normals_are_those_of_the_geometry() -> None:
    _, noise, mask = maps((1, 11, 12), 1.0, 5)
    plane = plane_of(CAMERA, 1)
    target = surface(plane, (0.1, 0.2, 1.0), 3.0)
    depth = target * (1 + 0.02 * noise)
    n, m = (depth_to_normals(x[0, 0].numpy(), CAMERA).astype(np.float64) for x in (depth, target))
    expected = np.nanmean(np.arccos(np.clip((n * m).sum(axis=-1), -1, 1)))
    np.testing.assert_allclose(normal_angle(depth, target, mask, plane), [expected], rtol=1e-4)


def test_edges_of_objects_have_no_normal() -> None:
    """A step in the true depth costs the prediction nothing; on both sides of it, all counts."""
    plane = plane_of(CAMERA, 1)
    target = surface(plane, (0.0, 0.0, 1.0), 3.0)
    target[..., 6:] *= 2
    wrong, right = target.clone(), torch.ones(1, 1, 11, 12, dtype=torch.bool)
    wrong[..., 5:7] += 0.2  # read by the pixels in columns 4 to 7; 5 and 6 are beside the step
    only_step = right.clone()
    only_step[..., :4], only_step[..., 8:] = False, False
    assert normal_angle(wrong, target, only_step, plane).item() == 0
    assert normal_angle(wrong, target, right, plane).item() > 0.01
