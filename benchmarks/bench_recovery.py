"""Focal length and shift of point maps: our batched solver beside one scipy call per image, in one run.

    python benchmarks/bench_recovery.py [--images 64] [--repeats 9]

Points of random scenes with noise, 64x64 samples an image, as the published code takes them. Prints milliseconds per
image (median of the repeats, one thread), the ratio, and how far the solutions and their residuals differ.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from metricanything.core.recovery import grid_samples, recover_focal_shift, view_plane_uv


def scenes(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Affine points (count, 4096, 3), their uv and mask."""
    rng, uv = np.random.default_rng(0), grid_samples(view_plane_uv(480, 640)).reshape(-1, 2)
    z = rng.uniform(1, 6, (count, len(uv), 1))
    xy = uv / rng.uniform(0.5, 3, (count, 1, 1)) * z * (1 + rng.normal(0, 0.03, (count, len(uv), 2)))
    points = np.concatenate([xy, z - rng.uniform(-2, 0.8, (count, 1, 1))], axis=-1).astype(np.float32)
    return points, np.broadcast_to(uv, (count, *uv.shape)), rng.random((count, len(uv))) < 0.9


def by_scipy(
    points: NDArray[np.float32], uv: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The published procedure: for every image, `least_squares` with method "lm" and ftol 1e-3."""

    def solve(xyz: NDArray[np.float32], target: NDArray[np.float32]) -> tuple[float, float]:
        xy, z = xyz[:, :2].astype(np.float64), xyz[:, 2].astype(np.float64)

        def focal(shift: float) -> tuple[float, NDArray[np.float64]]:
            plane = xy / (z + shift)[:, None]
            return float((plane * target).sum() / np.square(plane).sum()), plane

        def residuals(shift: NDArray[np.float64]) -> NDArray[np.float64]:
            f, plane = focal(float(shift[0]))
            return (f * plane - target).ravel()

        shift = float(np.float32(least_squares(residuals, x0=0, method="lm", ftol=1e-3).x[0]))
        return focal(shift)[0], shift

    found = [solve(p[m], u[m].astype(np.float64)) for p, u, m in zip(points, uv, mask, strict=True)]
    return np.array([f for f, _ in found]), np.array([s for _, s in found])


def squared_residual(
    points: NDArray[np.float32], uv: NDArray[np.float32], mask: NDArray[np.bool_], focal: NDArray, shift: NDArray
) -> NDArray[np.float64]:
    """Of every image, with its focal length and shift."""
    plane = points[..., :2] / (points[..., 2:] + shift[:, None, None])
    return (np.square(focal[:, None, None] * plane - uv) * mask[..., None]).sum(axis=(1, 2))


def median_ms(run: Callable[[], object], repeats: int, images: int) -> float:
    """Milliseconds per image."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e3 / images


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="images that our solver sees together")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    data = scenes(args.images)

    def ours() -> tuple[NDArray, NDArray]:
        parts = [recover_focal_shift(*(x[i : i + args.batch] for x in data)) for i in range(0, args.images, args.batch)]
        return np.concatenate([f for f, _ in parts]), np.concatenate([s for _, s in parts])

    (f, s), (f_scipy, s_scipy) = ours(), by_scipy(*data)
    scipy_ms = median_ms(lambda: by_scipy(*data), args.repeats, args.images)
    ours_ms = median_ms(ours, args.repeats, args.images)
    residual = squared_residual(*data, f, s) / squared_residual(*data, f_scipy, s_scipy)
    report = {
        "scipy_ms_per_image": round(scipy_ms, 3),
        "ours_ms_per_image": round(ours_ms, 3),
        "ratio": round(scipy_ms / ours_ms, 1),
        "batch": args.batch,
        "largest_focal_difference": float(np.abs(f / f_scipy - 1).max()),
        "largest_shift_difference": float(np.abs(s - s_scipy).max()),
        "largest_residual_ratio": float(residual.max()),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
