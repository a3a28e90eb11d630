"""One frame -> one training view: crop, resize and flip with the camera carried along, and the colours to give it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.geometry import scatter_min

_ROUNDING = 1e-6  # of a pixel; a window that ends with the frame does so to rounding
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


@dataclass(frozen=True)
class Window:
    """A part of a frame, `box` in its pixels, that becomes a view of height x width pixels, mirrored or not.

    The box may leave the frame; pixels of the view that lie within the frame are `inner` (left, top, right, bottom).
    """

    box: Box
    height: int
    width: int
    mirrored: bool = False

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the view per pixel of the frame, along x and y."""
        left, top, right, bottom = self.box
        return self.width / (right - left), self.height / (bottom - top)

    def camera(self, camera: Camera) -> Camera:
        """The camera of the view, of that of the frame."""
        sx, sy = self.scale
        fx, fy, cx, cy, *rest = camera.params
        params = (fx * sx, fy * sy, (cx - self.box[0]) * sx, (cy - self.box[1]) * sy, *rest)
        view = Camera(camera.model, params, self.width, self.height)
        return view.flip() if self.mirrored else view

    def inner(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The pixels of the view, before mirroring, that lie entirely within a frame of that size."""
        (left, top, _, _), (sx, sy) = self.box, self.scale
        x0, y0 = (max(math.ceil(start - _ROUNDING), 0) for start in (-left * sx, -top * sy))
        x1, y1 = (math.floor(end + _ROUNDING) for end in ((width - left) * sx, (height - top) * sy))
        return x0, y0, min(x1, self.width), min(y1, self.height)

    def source(self, inner: tuple[int, int, int, int], height: int, width: int) -> Box:
        """The pixels of a frame of that size which `inner` is made of."""
        (left, top, _, _), (sx, sy) = self.box, self.scale
        x0, y0, x1, y1 = inner
        return max(left + x0 / sx, 0), max(top + y0 / sy, 0), min(left + x1 / sx, width), min(top + y1 / sy, height)


def random_window(
    height: int, width: int, rng: np.random.Generator, size: tuple[int, int], augmentation: Augmentation
) -> Window:
    """A window of a frame of height x width pixels, for a view of `size` (height, width)."""
    aspect = size[1] / size[0] * np.exp(rng.uniform(-augmentation.aspect, augmentation.aspect))
    crop_width = min(width, height * aspect) * rng.uniform(*augmentation.zoom)
    crop_height = crop_width / aspect
    left, top = (rng.uniform(min(slack, 0), max(slack, 0)) for slack in (width - crop_width, height - crop_height))
    box = (left, top, left + crop_width, top + crop_height)
    return Window(box, *size, bool(rng.random() < augmentation.flip))


def resample(frame: Frame, window: Window) -> View:
    """The view of a frame through a window; black and unknown where it leaves the frame.

    The image is area-filtered. Depth is never interpolated: dense maps take the nearest pixel, sparse ones are
    scattered point by point with the nearest winning.
    """
    from PIL import Image

    def image_of(box: Box, height: int, width: int) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(frame.image).resize((width, height), Image.Resampling.BILINEAR, box=box))

    image = resample_image(image_of, window, frame.height, frame.width)
    return View(image, resample_depth(frame.depth, window), window.camera(frame.camera))


def resample_image(
    image_of: Callable[[Box, int, int], NDArray[np.uint8]], window: Window, height: int, width: int
) -> NDArray[np.uint8]:
    """Image (H, W, 3) of a window of a frame of height x width pixels; `image_of(box, h, w)` resamples within it."""
    x0, y0, x1, y1 = inner = window.inner(height, width)
    image = image_of(window.source(inner, height, width), y1 - y0, x1 - x0)
    if image.shape[:2] != (window.height, window.width):
        canvas = np.zeros((window.height, window.width, 3), np.uint8)
        canvas[y0:y1, x0:x1] = image
        image = canvas
    return image[:, ::-1] if window.mirrored else image


def resample_depth(depth: NDArray, window: Window, table: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Depth (H, W) of a window, of the depth of a frame or of codes with the depth that each stands for (0: NaN)."""
    height, width = depth.shape
    x0, y0, x1, y1 = window.inner(height, width)
    known = np.count_nonzero(depth) if table is not None else np.count_nonzero(~np.isnan(depth))
    (left, top, _, _), (sx, sy) = window.box, window.scale
    view = np.full((window.height, window.width), np.nan, np.float32)
    if known > _DENSE * depth.size:
        rows = np.clip((top + (np.arange(y0, y1) + 0.5) / sy).astype(int), 0, height - 1)
        columns = np.clip((left + (np.arange(x0, x1) + 0.5) / sx).astype(int), 0, width - 1)
        nearest = depth[rows][:, columns]
        view[y0:y1, x0:x1] = nearest if table is None else table[nearest]
    else:
        metres = depth if table is None else table[depth]
        v, u = np.nonzero(np.isfinite(metres))
        uv = np.stack([(u + 0.5 - left) * sx, (v + 0.5 - top) * sy], axis=-1)
        view[y0:y1, x0:x1] = scatter_min(uv, metres[v, u], window.height, window.width)[y0:y1, x0:x1]
    return view[:, ::-1] if window.mirrored else view


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
