"""Focal length and shift of point maps: against truth, against scipy's solver, and batched as one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import least_squares

from metricanything.core.camera import Camera
from metricanything.core.recovery import grid_samples, recover_focal_shift, recover_shift, view_plane_uv


def affine_cloud(focal: float, shift: float, height: int, width: int, seed: int) -> np.ndarray:
    """Points that a camera of this relative focal length sees at their pixels, with z (1 to 6) too small by `shift`."""
    z = np.random.default_rng(seed).uniform(1, 6, (height, width))
    xy = view_plane_uv(height, width) / focal * z[..., None]
    return np.concatenate([xy, (z - shift)[..., None]], axis=-1).astype(np.float32)


def samples(points: np.ndarray, plane: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """A batch of one, as the solvers take it."""
    keep = np.ones(points.shape[:2], bool) if mask is None else mask
    return tuple(grid_samples(x).reshape(1, 64 * 64, *x.shape[2:]) for x in (points, plane, keep))


def noisy(seed: int, count: int, noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch of noisy point maps with random focal lengths and shifts, and one uv for all."""
    rng = np.random.default_rng(seed)
    clouds = [affine_cloud(rng.uniform(0.5, 3), rng.uniform(-2, 0.8), 48, 64, seed + i) for i in range(count)]
    points = np.stack([grid_samples(c).reshape(-1, 3) for c in clouds])
    points[..., :2] *= 1 + rng.normal(0, noise, points[..., :2].shape).astype(np.float32)
    uv = np.broadcast_to(grid_samples(view_plane_uv(48, 64)).reshape(-1, 2), (*points.shape[:2], 2))
    return points, uv, rng.random(points.shape[:2]) < 0.8


def scipy_solution(points: np.ndarray, plane: np.ndarray, mask: np.ndarray, focal: float | None) -> tuple[float, float]:
    """The published solver, residuals f xy / (z + s) - plane, "lm" from 0, ftol 1e-3: shift and squared residual."""
    xy, z, target = points[mask][:, :2].astype(float), points[mask][:, 2].astype(float), plane[mask].astype(float)

    def residuals(shift: np.ndarray) -> np.ndarray:
        p = xy / (z + shift)[:, None]
        f = (p * target).sum() / (p * p).sum() if focal is None else focal
        return (f * p - target).ravel()

    found = least_squares(residuals, x0=0, method="lm", ftol=1e-3).x
    return float(found[0]), float((residuals(found) ** 2).sum())


def cost(points: np.ndarray, plane: np.ndarray, mask: np.ndarray, focal: float, shift: float) -> float:
    p = points[mask][:, :2].astype(float) / (points[mask][:, 2].astype(float) + shift)[:, None]
    return float(((focal * p - plane[mask]) ** 2).sum())


@given(st.floats(0.5, 4), st.floats(-2, 0.8), st.integers(10, 150), st.integers(10, 150), st.integers(0, 99))
def test_focal_and_shift_are_recovered(focal: float, shift: float, height: int, width: int, seed: int) -> None:
    points = affine_cloud(focal, shift, height, width, seed)
    found = recover_focal_shift(*samples(points, view_plane_uv(height, width)))
    np.testing.assert_allclose(np.ravel(found), (focal, shift), rtol=5e-3, atol=5e-3)
    plane = view_plane_uv(height, width) / np.float32(focal)
    assert recover_shift(*samples(points, plane))[0] == pytest.approx(shift, abs=1e-4)


@given(st.integers(0, 999), st.sampled_from([0.001, 0.02, 0.1]))
def test_the_solution_is_that_of_the_published_solver(seed: int, noise: float) -> None:
    """Not only an equal residual: the same iterates, so the same numbers (scipy's derivatives are differences)."""
    points, uv, mask = noisy(seed, 3, noise)
    focal, shift = recover_focal_shift(points, uv, mask)
    known = recover_shift(points, uv / np.float32(1.5), mask)
    for i in range(3):
        expected, residual = scipy_solution(points[i], uv[i], mask[i], None)
        assert shift[i] == pytest.approx(expected, abs=2e-5)
        assert cost(points[i], uv[i], mask[i], focal[i], shift[i]) <= residual * (1 + 1e-6)
        assert known[i] == pytest.approx(scipy_solution(points[i], uv[i] / np.float32(1.5), mask[i], 1.0)[0], abs=2e-5)


def test_entries_of_a_batch_do_not_see_each_other() -> None:
    batch = noisy(5, 6, 0.05)
    batch[2][4] = False  # one without any point
    focal, shift = recover_focal_shift(*batch)
    known = recover_shift(*batch)
    for i in range(6):
        alone = [x[i : i + 1] for x in batch]
        assert (focal[i], shift[i]) == tuple(x[0] for x in recover_focal_shift(*alone))
        assert known[i] == recover_shift(*alone)[0]
    assert (focal[4], shift[4], known[4]) == (1, 0, 0)


def test_a_tighter_tolerance_finds_the_minimum() -> None:
    points, uv, mask = noisy(3, 4, 0.05)
    focal, shift = recover_focal_shift(points, uv, mask, ftol=1e-14)
    for i in range(4):
        for other in (-1e-3, 1e-3):
            p = points[i][mask[i]][:, :2].astype(float) / (points[i][mask[i]][:, 2:].astype(float) + shift[i] + other)
            best = (p * uv[i][mask[i]]).sum() / (p * p).sum()
            assert cost(points[i], uv[i], mask[i], focal[i], shift[i]) < cost(
                points[i], uv[i], mask[i], best, shift[i] + other
            )


def test_masked_and_unknown_points_do_not_count() -> None:
    points = affine_cloud(1.3, 0.7, 64, 48, 0)
    mask = np.ones((64, 48), bool)
    points[:20] = 1e3
    mask[:20] = False
    points[30:35] = np.nan
    points[40] = np.inf
    uv = view_plane_uv(64, 48)
    np.testing.assert_allclose(np.ravel(recover_focal_shift(*samples(points, uv, mask))), (1.3, 0.7), atol=5e-3)
    plane = uv / np.float32(1.3)
    assert recover_shift(*samples(points, plane, mask))[0] == pytest.approx(0.7, abs=1e-4)
    plane[:20] = np.nan
    assert recover_shift(*samples(points, plane))[0] == pytest.approx(0.7, abs=1e-4)


@pytest.mark.parametrize(
    "camera",
    [
        Camera.pinhole(60, 66, 30, 25, 64, 48),
        Camera.opencv(60, 60, 32, 24, 64, 48, distortion=(-0.2, 0.05, 0.001, -0.002)),
        Camera.kannala_brandt(25, 25, 32, 24, 64, 48, distortion=(0.02, -0.01, 0, 0)),
        Camera.equirectangular(64, 32),
    ],
    ids=lambda camera: camera.model,
)
def test_shift_agrees_with_the_rays_of_any_camera(camera: Camera) -> None:
    """With noise the answer is that of the least-squares problem: no shift near it is better."""
    rng = np.random.default_rng(0)
    rays = camera.rays().astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        plane = np.where(rays[..., 2:] > 0.05, rays[..., :2] / rays[..., 2:], np.nan)
    z = rng.uniform(1, 6, plane.shape[:2])
    points = np.concatenate([plane * z[..., None], z[..., None] - 0.7], axis=-1)
    assert recover_shift(*samples(points, plane))[0] == pytest.approx(0.7, abs=1e-6)
    points += rng.normal(0, 0.02, points.shape)
    batch = samples(points, plane)
    found = recover_shift(*batch, ftol=1e-10)[0]
    keep = np.isfinite(batch[1][0]).all(axis=-1)
    at = [cost(batch[0][0], batch[1][0], keep, 1.0, found + d) for d in (-1e-3, 0, 1e-3)]
    assert found == pytest.approx(0.7, abs=0.1)
    assert at[1] <= min(at[0], at[2])


def test_nonsense_points_end_without_an_error() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 50, 3)).astype(np.float32)  # depths of both signs: poles everywhere
    uv = np.broadcast_to(rng.normal(size=(50, 2)), (20, 50, 2))
    focal, shift = recover_focal_shift(points, uv, np.ones((20, 50), bool))
    assert np.isfinite(focal).all()
    assert np.isfinite(shift).all()
    assert np.isfinite(recover_shift(points * 0, uv, np.ones((20, 50), bool))).all()


def test_view_plane_is_in_half_diagonals() -> None:
    uv = view_plane_uv(30, 40)
    assert uv.shape == (30, 40, 2)
    np.testing.assert_allclose(uv[0, 0], [(0.5 - 20) / 25, (0.5 - 15) / 25], rtol=1e-6)
    np.testing.assert_allclose(uv + uv[::-1, ::-1], 0, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (64, 64), (30, 7), (1000, 65)])
def test_samples_are_those_of_nearest_interpolation(height: int, width: int) -> None:
    import torch

    values = np.arange(height * width, dtype=np.float32).reshape(height, width)
    expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], (64, 64), mode="nearest")[0, 0]
    np.testing.assert_array_equal(grid_samples(values), expected.numpy())
