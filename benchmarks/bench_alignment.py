"""The alignment of a training batch of point maps: all problems at once beside a loop over images, in one run.

    python benchmarks/bench_alignment.py [--repeats 5]

Scale and z-shift by truncated absolute error, as MoGe trains with. The loop solves every image by itself, one anchor
after the other, each with numpy's sort and a sweep. `all anchors` tries the same in batches; `shortlist` is what
training uses: all anchors on a few samples, the best on all. Random points with 20 % outliers. Prints seconds per batch
(the least of the repeats, one thread), the ratio to the loop, and the largest and mean excess of the cost that is
minimised over the loop's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metricanything.losses.alignment import Shortlist, align

CASES = ((8, 144), (16, 144), (8, 576), (4, 2304))  # images of a batch, samples of an image: 12, 24, 48 a side
SHIFTED = (False, False, True)
SLOW = 1000  # samples beyond which the loop runs once, and batches of all anchors not at all

Result = tuple[Tensor, Tensor]


def problems(batch: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions and truths (B, N, 3), weights 1 / z (B, N)."""
    g = torch.Generator().manual_seed(0)
    p = torch.randn(batch, samples, 3, generator=g) + torch.tensor([0.0, 0.0, 4.0])
    q = 2 * p + 0.1 * torch.randn(batch, samples, 3, generator=g) + torch.tensor([0.0, 0.0, 0.3])
    q = torch.where(torch.rand(batch, samples, 1, generator=g) < 0.2, 3 * q, q)
    return p, q, 1 / q[..., 2].clamp_min(0.3)


def loop(p: Tensor, q: Tensor, w: Tensor) -> Result:
    """One image after the other, one anchor after the other."""
    scales, shifts = [], []
    for points, truths, weights in zip(p.numpy(), q.numpy(), w.numpy(), strict=True):
        best, scale, shift = np.inf, 0.0, 0.0
        repeated = np.repeat(weights, 3)
        for k in range(len(points)):
            x, y = points.copy(), truths.copy()
            x[:, 2] -= points[k, 2]
            y[:, 2] -= truths[k, 2]
            a = one_scale(x.ravel(), y.ravel(), repeated)
            cost = np.minimum(repeated * np.abs(a * x.ravel() - y.ravel()), 1).sum()
            if cost < best:
                best, scale, shift = cost, a, truths[k, 2] - a * points[k, 2]
        scales.append(scale)
        shifts.append([0.0, 0.0, shift])
    return torch.tensor(np.array(scales)), torch.tensor(np.array(shifts))


def one_scale(x: NDArray[np.float32], y: NDArray[np.float32], w: NDArray[np.float32]) -> float:
    """Scale of least sum min(1, w |a x - y|), at one of the ratios y / x."""
    tells = x != 0
    slope, ratio = w[tells] * np.abs(x[tells]), y[tells] / x[tells]
    place = np.concatenate([ratio - 1 / slope, ratio, ratio + 1 / slope])
    order = np.argsort(place)
    bend, place = np.concatenate([-slope, 2 * slope, -slope])[order], place[order]
    cost = np.concatenate([[0], np.cumsum(np.cumsum(bend)[:-1] * np.diff(place))])
    return float(place[np.argmin(cost)])


def cost(p: Tensor, q: Tensor, w: Tensor, result: Result) -> Tensor:
    """What is minimised (B,)."""
    scale, shift = (x.double() for x in result)
    residual = w[..., None] * (scale[:, None, None] * p + shift[:, None] - q).abs()
    return residual.clamp_max(1.0).sum(dim=(1, 2))


def timed(run: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """The least seconds of the repeats, and the result."""
    least = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        least = min(least, time.perf_counter() - start)
    return float(least), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| images | samples | solver | s | times as fast | cost, worst | cost, mean |\n|---|---|---|---|---|---|---|")
    for batch, samples in CASES:
        p, q, w = problems(batch, samples)
        slow = samples > SLOW
        solvers: dict[str, Callable[[], Result]] = {"loop": lambda p=p, q=q, w=w: loop(p, q, w)}
        if not slow:
            solvers["all anchors"] = lambda p=p, q=q, w=w: align(p, q, w, SHIFTED, 1.0)
        solvers["shortlist"] = lambda p=p, q=q, w=w: align(p, q, w, SHIFTED, 1.0, Shortlist())
        reference: tuple[float, Tensor] | None = None
        for name, solver in solvers.items():
            seconds, result = timed(solver, 1 if slow and name == "loop" else repeats)
            found = cost(p, q, w, result)
            reference = reference or (seconds, found)
            excess = (found / reference[1] - 1).numpy()
            numbers = f"{seconds:.4f} | {reference[0] / seconds:.1f} | {excess.max():+.2%} | {excess.mean():+.2%}"
            print(f"| {batch} | {samples} | {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
