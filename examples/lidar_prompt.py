"""A camera and a LiDAR: from calibrated points to dense metric depth.

    python examples/lidar_prompt.py compact-teacher out

Uses the street scene that comes with the package. With your own sensors, replace the three inputs: an image, a camera,
and points with the transform that takes them to the camera frame.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import metricanything as ma
from metricanything import samples
from metricanything.sources import kitti_raw


def main(checkpoint: str, output: str) -> None:
    day = samples.path("lidar_street") / "2020_01_01"
    drive = next(day.glob("*_sync"))
    image = next((drive / "image_02" / "data").iterdir())

    calibration = kitti_raw.read_calibration(day, "02")
    xyz = kitti_raw.read_sweep(next((drive / "velodyne_points" / "data").iterdir()))[:, :3]

    # Points behind the camera or outside the image are left out, and so are those that shine through nearer surfaces.
    prompt = ma.SparsePrompt.from_points(xyz, calibration.camera, cam_from_points=calibration.cam_from_velo)
    print(f"{len(prompt)} of {len(xyz)} points are seen by the camera")

    model = ma.load(checkpoint)
    prediction = model.predict(image, prompt=prompt, camera=calibration.camera)
    near, far = np.quantile(prediction.depth, [0.01, 0.99])
    print(f"depth {near:.1f}–{far:.1f} m, {prediction.mask.mean():.0%} of the pixels trusted")

    for file in prediction.save(Path(output), formats=["png16", "ply", "colour"]):
        print(file)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
