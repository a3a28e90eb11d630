"""What a second view with pose tells of faults, on the posed RGB-D frames at hand.

    python benchmarks/bench_two_views.py RAW

RAW holds `slambook` and `open3d` as downloaded. For every frame and its neighbour, as it is and with each fault, prints
`view_depth` (median |log ratio| of depths) and `view_photo` (correlation of grey levels). "both" means that the fault
is in both views, as where a whole source is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import planted
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.curate.quality import measure

Pair = tuple[Frame, Frame]


def frame(image: Path, depth: Path, unit: float, camera: Camera, pose: NDArray) -> Frame:
    """A frame of an image file and a depth file with `unit` values per metre."""
    metres = np.asarray(Image.open(depth)).astype(np.float32) / unit
    metres[metres <= 0] = np.nan
    pixels = np.asarray(Image.open(image).convert("RGB"))
    return Frame(image.name, pixels, metres, camera, "captured", "rgbd", "posed", "", world_from_cam=pose)


def slambook(folder: Path, suffix: str, unit: float, camera: Camera, mirrored: bool) -> list[Frame]:
    """Five frames with poses as x y z qx qy qz qw; `mirrored` where the y axis points up, as in ICL-NUIM."""
    frames = []
    for i, row in enumerate(np.loadtxt(folder / "pose.txt"), 1):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = Rotation.from_quat(row[3:7]).as_matrix(), row[:3]
        flip = np.diag([1.0, -1.0 if mirrored else 1.0, 1.0, 1.0])
        image, depth = folder / "color" / f"{i}.png", folder / "depth" / f"{i}.{suffix}"
        frames.append(frame(image, depth, unit, camera, flip @ pose @ flip))
    return frames


def redwood(folder: Path) -> list[Frame]:
    """Five frames with an Open3D trajectory."""
    lines = (folder / "trajectory.log").read_text().splitlines()
    camera, frames = Camera.pinhole(525, 525, 320, 240, 640, 480), []
    for i in range(5):
        pose = np.array([[float(x) for x in line.split()] for line in lines[5 * i + 1 : 5 * i + 5]])
        frames.append(frame(folder / "color" / f"{i:05d}.jpg", folder / "depth" / f"{i:05d}.png", 1000, camera, pose))
    return frames


def longer(one: Frame) -> Frame:
    """Focal lengths 20 % too long."""
    camera = one.camera
    return replace(one, camera=Camera.pinhole(*(1.2 * f for f in camera.params[:2]), *camera.params[2:], 640, 480))


RNG = np.random.default_rng(0)
FAULTS: dict[str, Callable[[Frame, Frame], Pair]] = {
    "as it is": lambda a, b: (a, b),
    "focal length + 20 %": lambda a, b: (longer(a), b),
    "focal length + 20 %, both": lambda a, b: (longer(a), longer(b)),
    "depth + 20 %": lambda a, b: (replace(a, depth=a.depth * np.float32(1.2)), b),
    "depth + 20 %, both": lambda a, b: tuple(replace(x, depth=x.depth * np.float32(1.2)) for x in (a, b)),  # type: ignore[return-value]
    "misaligned by 8 px": lambda a, b: (planted.misaligned(a, b, RNG), b),
    "frozen depth": lambda a, b: (replace(a, depth=b.depth), b),
}


def main() -> None:
    """Print a line for every sequence and fault."""
    raw = Path(sys.argv[1])
    icl = Camera.pinhole(481.2, 480.0, 320.0, 240.0, 640, 480)
    kinect = Camera.pinhole(518.0, 519.0, 326.0, 254.0, 640, 480)
    sequences = {
        "ICL-NUIM": slambook(raw / "slambook/ch12/dense_RGBD/data", "png", 5000, icl, True),
        "ICL-NUIM, y axis not turned": slambook(raw / "slambook/ch12/dense_RGBD/data", "png", 5000, icl, False),
        "slambook ch5": slambook(raw / "slambook/ch5/rgbd", "pgm", 1000, kinect, False),
        "Redwood": redwood(raw / "open3d"),
    }
    for name, frames in sequences.items():
        for fault, plant in FAULTS.items():
            pairs = [plant(frames[i], frames[i - 1 if i else 1]) for i in range(len(frames))]
            found = [measure(*pair) for pair in pairs]
            depth, photo = (" ".join(f"{getattr(q, key):6.3f}" for q in found) for key in ("view_depth", "view_photo"))
            print(f"{name:28s} {fault:26s} depth {depth}  photo {photo}")


if __name__ == "__main__":
    main()
