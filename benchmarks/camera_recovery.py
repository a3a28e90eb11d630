"""How well cameras are recovered from images: FoV, focal length and ray errors on real frames with known cameras.

    python benchmarks/camera_recovery.py FRAMES… [--model runs/quickstart/models/compact-pointmap.safetensors]

FRAMES are folders that the `folder` reader understands. Frames whose camera is not measured but assumed are left out.
Three methods: `assumed` (focal length = image width, what is used when nothing is known), `solver` (the focal solver on
the frame's own measured points with an unknown shift and 5 % noise sideways: what it can do with good points), and the
model, if one is given, from the image alone. Prints one table per method over all frames, and by source.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

import metricanything as ma
from metricanything import sources
from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_to_points
from metricanything.core.recovery import GRID, grid_samples, recover_focal_shift, view_plane_uv
from metricanything.evaluation.camera import camera_errors, summarise


def solved(frame: Frame, rng: np.random.Generator) -> Camera:
    """The camera that the solver finds from the frame's measured points, moved by an unknown shift and noisy."""
    points = grid_samples(depth_to_points(frame.depth, frame.camera)).reshape(1, GRID * GRID, 3).astype(np.float64)
    known = np.isfinite(points).all(axis=-1)
    points[..., :2] *= 1 + rng.normal(0, 0.05, points[..., :2].shape)
    nearest = points[known][:, 2].min()
    points[..., 2] -= rng.uniform(-1, 0.8) * nearest
    uv = grid_samples(view_plane_uv(frame.height, frame.width)).reshape(1, -1, 2)
    focal = float(recover_focal_shift(points, uv, known)[0][0])
    diagonal = math.hypot(frame.width, frame.height) / 2
    return Camera.centred(max(focal, 1e-3) * diagonal, frame.width, frame.height)


def main() -> None:
    """Measure and print markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="+")
    parser.add_argument("--model")
    args = parser.parse_args()
    left_out: list[object] = []
    frames = [f for folder in args.frames for f in sources.read("folder", folder, on_error=left_out.append)]
    frames = [frame for frame in frames if frame.notes.get("camera_source") != "assumed" and frame.valid.sum() > 500]
    print(f"{len(frames)} frames; {len(left_out)} without a camera left out\n")
    model = ma.load(args.model) if args.model else None
    rng = np.random.default_rng(0)
    methods = {
        "assumed": lambda frame: Camera.centred(frame.width, frame.width, frame.height),
        "solver": lambda frame: solved(frame, rng),
    }
    if model is not None:
        methods[model.spec.name] = lambda frame: model.predict(frame.image).camera
    print("| method | frames of | images | FoV error, mean | median | f within 25 % | 50 % | rays, mean |")
    print("|---|---|---|---|---|---|---|---|")
    for name, recover in methods.items():
        errors = [(frame.name.split("/")[0], camera_errors(recover(frame), frame.camera)) for frame in frames]
        for source in ["all", *sorted({source for source, _ in errors})]:
            row = summarise(e for s, e in errors if source in ("all", s))
            print(
                f"| {name} | {source} | {row['images']:.0f} | {row['fov_deg']:.1f}° | {row['fov_deg_median']:.1f}° "
                f"| {row['focal_25']:.0%} | {row['focal_50']:.0%} | {row['rays_deg']:.1f}° |"
            )


if __name__ == "__main__":
    main()
