"""One frame -> one training view: crop, resize, flip and colour, with the camera carried along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.core.geometry import scatter_min

_DENSE = 0.3  # a map with more known pixels than this is resampled by nearest pixel, a sparser one point by point


@dataclass(frozen=True)
class View:
    """An augmented frame at training size: image uint8 (H, W, 3), depth float32 (H, W) and the camera of both."""

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: Camera


def crop_and_resize(frame: Frame, box: tuple[float, float, float, float], height: int, width: int) -> View:
    """The window `box` (left, top, right, bottom in pixels) of a frame, resampled to (height, width).

    The image is area-filtered. Depth is never interpolated: dense maps take the nearest pixel, sparse ones are
    scattered point by point with the nearest winning.
    """
    from PIL import Image

    left, top, right, bottom = box
    resampled = Image.fromarray(frame.image).resize((width, height), Image.Resampling.BILINEAR, box=box)
    sx, sy = width / (right - left), height / (bottom - top)
    fx, fy, cx, cy, *rest = frame.camera.params
    params = (fx * sx, fy * sy, (cx - left) * sx, (cy - top) * sy, *rest)
    known = ~np.isnan(frame.depth)
    if known.mean() > _DENSE:
        rows = np.clip((top + (np.arange(height) + 0.5) / sy).astype(int), 0, frame.height - 1)
        columns = np.clip((left + (np.arange(width) + 0.5) / sx).astype(int), 0, frame.width - 1)
        depth = frame.depth[rows[:, None], columns[None]]
    else:
        v, u = np.nonzero(np.isfinite(frame.depth))
        uv = np.stack([(u + 0.5 - left) * sx, (v + 0.5 - top) * sy], axis=-1)
        depth = scatter_min(uv, frame.depth[v, u], height, width)
    return View(np.asarray(resampled), depth, Camera(frame.camera.model, params, width, height))


def random_view(frame: Frame, rng: np.random.Generator, height: int, width: int) -> View:
    """A random crop of 60–100 % of the largest window with the wanted aspect, mirrored half of the time, recoloured.

    The aspect varies by 5 %, as it does when images are resized to sides that are multiples of 32.
    """
    aspect = width / height * np.exp(rng.uniform(-0.05, 0.05))
    crop_width = min(frame.width, frame.height * aspect) * rng.uniform(0.6, 1.0)
    crop_height = crop_width / aspect
    left = rng.uniform(0, frame.width - crop_width)
    top = rng.uniform(0, max(frame.height - crop_height, 0))
    right, bottom = min(left + crop_width, frame.width), min(top + crop_height, frame.height)
    view = crop_and_resize(frame, (left, top, right, bottom), height, width)
    image, depth, camera = view.image, view.depth, view.camera
    if rng.random() < 0.5:
        image, depth, camera = image[:, ::-1], depth[:, ::-1], camera.flip()
    return View(recolour(image, rng), np.ascontiguousarray(depth), camera)


def recolour(image: NDArray[Any], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random gamma, exposure, white balance and saturation of a uint8 image."""
    x = image.astype(np.float32) / 255
    x = x ** np.exp(rng.uniform(-0.3, 0.3)) * np.exp(rng.uniform(-0.25, 0.25))
    x *= np.exp(rng.uniform(-0.1, 0.1, size=3)).astype(np.float32)
    grey = x.mean(axis=-1, keepdims=True)
    x = grey + (x - grey) * rng.uniform(0.5, 1.3)
    return (np.clip(x, 0, 1) * 255 + 0.5).astype(np.uint8)
