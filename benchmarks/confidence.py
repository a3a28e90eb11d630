"""Does a teacher's confidence mean error? Errors of its least confident pixels against the rest, on real frames.

    python benchmarks/confidence.py FRAMES… --model runs/quickstart/models/compact-teacher.safetensors

FRAMES are folders that the `folder` reader understands. For every pattern, AbsRel over known pixels outside the
prompt: of the 20 % least confident pixels of each frame, of all others, and their ratio; means over frames. The last
columns are the ratio for an oracle that knows the errors, and for the distance to the nearest prompt point in the
confidence's place.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import metricanything as ma
from metricanything import sources
from metricanything.core.errors import InputError
from metricanything.patterns import draw_prompt

PATTERNS = ("uniform-500", "uniform-100", "lidar-8", "grid-16", "hole", "fov-50")
SHARE = 0.2


def split(error: NDArray, doubt: NDArray) -> tuple[float, float]:
    """Mean error of the pixels with the largest doubt, and of the rest."""
    order = np.argsort(doubt, kind="stable")
    count = round(len(order) * (1 - SHARE))
    return float(error[order[count:]].mean()), float(error[order[:count]].mean())


def main() -> None:
    """Measure and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="+")
    parser.add_argument("--model", required=True)
    args = parser.parse_args()
    left_out: list[object] = []
    frames = [f for folder in args.frames for f in sources.read("folder", folder, on_error=left_out.append)]
    model = ma.load(args.model)
    print("| pattern | frames | AbsRel, 20 % least confident | the rest | ratio | oracle | distance to the prompt |")
    print("|---|---|---|---|---|---|---|")
    for pattern in PATTERNS:
        rows = []
        for index, frame in enumerate(frames):
            try:
                prompt = draw_prompt(frame.depth, pattern, seed=index)
            except InputError:
                continue
            out = model.predict(frame.image, prompt=prompt, camera=frame.camera)
            measured = frame.valid & np.isnan(prompt.rasterise(frame.height, frame.width))
            if out.confidence is None or measured.sum() < 500:
                continue
            error = np.abs(out.depth - frame.depth)[measured] / frame.depth[measured]
            v, u = np.nonzero(measured)
            far, _ = cKDTree(prompt.uv).query(np.stack([u + 0.5, v + 0.5], axis=1))
            rows.append([*split(error, -out.confidence[measured]), *split(error, error), *split(error, far)])
        low, rest, worst, best, off, near = np.mean(rows, axis=0)
        print(
            f"| {pattern} | {len(rows)} | {100 * low:.2f} % | {100 * rest:.2f} % | {low / rest:.2f} "
            f"| {worst / best:.1f} | {off / near:.2f} |"
        )


if __name__ == "__main__":
    main()
