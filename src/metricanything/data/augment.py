"""One frame -> one training view: crop, resize and flip with the camera carried along, and the colours to give it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.geometry import scatter_min

_DENSE = 0.3  # a map with more known pixels than this is resampled by nearest pixel, a sparser one point by point

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; ranges are drawn from uniformly, (low, high)."""

    zoom: tuple[float, float] = (0.6, 1.0)
    """Window over the largest one of the wanted aspect, in length. Above 1 the field of view is wider than the
    image's, and its border black and unknown."""
    aspect: float = 0.05
    """Largest stretch, as a logarithm; resizing to sides that are multiples of 32 stretches that much."""
    flip: float = 0.5
    """Probability of mirroring left to right."""
    gamma: float = 0.3
    """Largest logarithm of the exponent."""
    exposure: float = 0.25
    """Largest logarithm of the gain."""
    white_balance: float = 0.1
    """Largest logarithm of the gain of a channel."""
    saturation: tuple[float, float] = (0.5, 1.3)
    blur: float = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.3, 1.5)
    """In pixels of the view."""
    jpeg: float = 0.0
    """Probability of compression."""
    jpeg_quality: tuple[float, float] = (40, 95)

    def __post_init__(self) -> None:
        if not 0 < self.zoom[0] <= self.zoom[1] or not all(0 <= p <= 1 for p in (self.flip, self.blur, self.jpeg)):
            raise InputError(f"zoom must be positive (low, high), probabilities within 0 and 1; got {self}")


@dataclass(frozen=True)
class View:
    """An augmented frame at training size: image uint8 (H, W, 3), depth float32 (H, W) and the camera of both."""

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: Camera


def crop_and_resize(frame: Frame, box: Box, height: int, width: int) -> View:
    """The window `box` of a frame, resampled to (height, width); black and unknown where it leaves the frame.

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


def random_view(
    frame: Frame, rng: np.random.Generator, height: int, width: int, augmentation: Augmentation = Augmentation()
) -> View:
    """A random crop of a frame, mirrored or not."""
    aspect = width / height * np.exp(rng.uniform(-augmentation.aspect, augmentation.aspect))
    crop_width = min(frame.width, frame.height * aspect) * rng.uniform(*augmentation.zoom)
    crop_height = crop_width / aspect
    left = rng.uniform(0, frame.width - crop_width)
    top = rng.uniform(0, max(frame.height - crop_height, 0))
    right, bottom = min(left + crop_width, frame.width), min(top + crop_height, frame.height)
    view = crop_and_resize(frame, (left, top, right, bottom), height, width)
    image, depth, camera = view.image, view.depth, view.camera
    if rng.random() < augmentation.flip:
        image, depth, camera = image[:, ::-1], depth[:, ::-1], camera.flip()
    return View(image, np.ascontiguousarray(depth), camera)


def random_colours(rng: np.random.Generator, augmentation: Augmentation) -> NDArray[np.float32]:
    """Parameters (P,) of `photometric.develop`: gamma, gains of red, green, blue, saturation, blur, JPEG quality.

    Always the same number of draws, so that one setting does not change what another one does.
    """
    a = augmentation
    gamma, exposure = rng.uniform(-1, 1, 2) * (a.gamma, a.exposure)
    gains = np.exp(exposure + rng.uniform(-1, 1, 3) * a.white_balance)
    saturation, sigma, quality = (rng.uniform(*span) for span in (a.saturation, a.blur_sigma, a.jpeg_quality))
    blurred, compressed = rng.random(2) < (a.blur, a.jpeg)
    values = [np.exp(gamma), *gains, saturation, sigma * blurred, quality * compressed]
    return np.array(values, dtype=np.float32)


def plane(camera: Camera) -> NDArray[np.float32]:
    """x/z and y/z (H, W, 2) float32 of every pixel's ray; NaN where it sees nothing in front."""
    if camera.model == "pinhole":
        x = (np.arange(camera.width) + 0.5 - camera.cx) / camera.fx
        y = (np.arange(camera.height) + 0.5 - camera.cy) / camera.fy
        result = np.empty((camera.height, camera.width, 2), np.float32)
        result[..., 0], result[..., 1] = x, y[:, None]
        return result
    rays = camera.rays()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rays[..., 2:] > 0, rays[..., :2] / rays[..., 2:], np.float32(np.nan))
