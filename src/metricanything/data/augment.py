"""One frame -> one training view: crop, resize and flip with the camera carried along, and the colours to give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.geometry import scatter_min

_ROUNDING = 1e-6  # of a pixel: the largest window is as long as the frame
_DENSE = 0.3  # a map with more known pixels than this is resampled by nearest pixel, a sparser one point by point

Box = tuple[int, int, int, int]
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
    """A part of a frame, `box` in its whole pixels, that becomes a view of height x width pixels, mirrored or not.

    The box may leave the frame. It is a multiple of `reduction`: the part (1, 2, 4 or 8) of the frame's resolution that
    still is at least the view's.
    """

    box: Box
    height: int
    width: int
    mirrored: bool = False
    reduction: int = 1

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


def random_window(
    frame_size: tuple[int, int], size: tuple[int, int], rng: np.random.Generator, augmentation: Augmentation
) -> Window:
    """A window of a frame for a view; both sizes are (height, width)."""
    (frame_height, frame_width), (height, width) = frame_size, size
    aspect = width / height * np.exp(rng.uniform(-augmentation.aspect, augmentation.aspect))
    across = min(frame_width, frame_height * aspect) * rng.uniform(*augmentation.zoom)
    down = across / aspect
    reduction = next(r for r in (8, 4, 2, 1) if r <= max(across / width, 1) and r <= max(down / height, 1))
    spans = []
    for length, whole in ((across, frame_width), (down, frame_height)):
        # Whole pixels of the reduced frame. Rounding down keeps a window that fits the frame within it.
        pixels = max(int(length / reduction + _ROUNDING), 1)
        slack = whole // reduction - pixels
        start = int(rng.integers(min(slack, 0), max(slack, 0), endpoint=True))
        spans.append((start * reduction, (start + pixels) * reduction))
    (left, right), (top, bottom) = spans
    return Window((left, top, right, bottom), height, width, bool(rng.random() < augmentation.flip), reduction)


def resample(frame: Frame, window: Window) -> View:
    """The view of a frame through a window; black and unknown where it leaves the frame.

    The image is area-filtered. Depth is never interpolated: dense maps take the nearest pixel, sparse ones are
    scattered point by point with the nearest winning.
    """
    from PIL import Image

    image = resample_image(np.array(Image.fromarray(frame.image).crop(window.box)), window)
    return View(image, resample_depth(frame.depth, window), window.camera(frame.camera))


def resample_image(image: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    """The view (H, W, 3), channel by channel in memory, of the pixels of a window at any resolution."""
    # torch's filter for uint8: a third of Pillow's time, within one grey level of the exact result.
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    view = F.interpolate(x, size=(window.height, window.width), mode="bilinear", antialias=True)[0]
    return (view.flip(-1) if window.mirrored else view).permute(1, 2, 0).numpy()


def resample_depth(depth: NDArray, window: Window, table: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Depth (H, W) of a window, of the depth of a frame or of codes with the depth that each stands for (0: NaN)."""
    height, width = depth.shape
    (left, top, _, _), (sx, sy) = window.box, window.scale
    known = ~np.isnan(depth) if table is None else depth != 0
    if np.count_nonzero(known) > _DENSE * depth.size:
        rows = np.floor(top + (np.arange(window.height) + 0.5) / sy).astype(int)
        columns = np.floor(left + (np.arange(window.width) + 0.5) / sx).astype(int)
        if window.mirrored:
            columns = columns[::-1]
        nearest = depth.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
        view = nearest if table is None else table.take(nearest)
        view[(rows < 0) | (rows >= height)] = np.nan
        view[:, (columns < 0) | (columns >= width)] = np.nan
        return view
    place = np.flatnonzero(known)
    values = depth.ravel()[place]
    v, u = np.divmod(place, width)
    uv = np.stack([(u + 0.5 - left) * sx, (v + 0.5 - top) * sy], axis=-1)
    view = scatter_min(uv, values if table is None else table[values], window.height, window.width)
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


def planes(cameras: Sequence[Camera]) -> NDArray[np.float32]:
    """`Camera.plane` (B, H, W, 2) of cameras of one size."""
    return np.stack([camera.plane() for camera in cameras])
