"""Faults planted on real frames, for benchmarks and tests of the curation rules.

Every fault is a function of a frame, another frame of the same source and a random generator, and gives the frame as
a source with that fault would have delivered it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame

Rng = np.random.Generator
Fault = Callable[[Frame, Frame, Rng], Frame]


def _resized(values: NDArray, height: int, width: int) -> NDArray:
    """Nearest values of a map or an image on another grid."""
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    return values[np.ix_(rows, columns)]


def _moved(depth: NDArray[np.float32], down: int, across: int) -> NDArray[np.float32]:
    height, width = depth.shape
    moved = np.full_like(depth, np.nan)
    moved[max(down, 0) : height + min(down, 0), max(across, 0) : width + min(across, 0)] = depth[
        max(-down, 0) : height - max(down, 0), max(-across, 0) : width - max(across, 0)
    ]
    return moved


def thousandfold(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """Millimetres labelled as metres."""
    return replace(frame, depth=frame.depth * np.float32(1000))


def thousandth(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """Metres taken for millimetres."""
    return replace(frame, depth=frame.depth / np.float32(1000))


def misaligned(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """Depth moved by 8 pixels of the image in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return replace(frame, depth=_moved(frame.depth, round(8 * np.sin(angle)), round(8 * np.cos(angle))))


def focal(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """Focal lengths 20 % too long or too short."""
    camera, factor = frame.camera, rng.choice([1.2, 1 / 1.2])
    params = (camera.fx * factor, camera.fy * factor, *camera.params[2:])
    return replace(frame, camera=Camera(camera.model, params, camera.width, camera.height))


def frozen(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """The depth of another (earlier) frame again."""
    return replace(frame, depth=np.ascontiguousarray(_resized(other.depth, frame.height, frame.width)))


def swapped(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """The image of another frame."""
    return replace(frame, image=np.ascontiguousarray(_resized(other.image, frame.height, frame.width)))


def outliers(frame: Frame, other: Frame, rng: Rng) -> Frame:
    """15 % of the measured pixels anywhere in the range of the frame, evenly in log depth."""
    depth, valid = frame.depth.copy(), frame.valid
    chosen = valid & (rng.random(valid.shape) < 0.15)
    low, high = np.log(np.quantile(depth[valid], [0.01, 0.99]))
    depth[chosen] = np.exp(rng.uniform(low, high, chosen.sum())).astype(np.float32)
    return replace(frame, depth=depth)


FAULTS: dict[str, Fault] = {
    "depth x 1000": thousandfold,
    "depth / 1000": thousandth,
    "misaligned by 8 px": misaligned,
    "focal length 20 % off": focal,
    "frozen depth": frozen,
    "image of another frame": swapped,
    "15 % outliers": outliers,
}
