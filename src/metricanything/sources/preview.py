"""A contact sheet of frames: whether calibration and scale are right is seen at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from metricanything.core.colour import colourise_depth, overlay_points
from metricanything.core.frame import Frame

Image8 = NDArray[np.uint8]

_WIDTH = 400  # of one picture on the sheet, pixels
_LABEL = 18  # height of the line above a row
_SPARSE = 0.3  # a smaller share of known pixels is drawn as dots
_STEP = 1.1  # ratio of depths beside each other that makes an edge
_EDGE = (255, 40, 40)


def contact_sheet(frames: Sequence[Frame]) -> Image8:
    """A picture uint8 (H, W, 3) with a row for each frame: the image, its depth, and the depth over the image.

    Depth is coloured by its inverse, near red and far blue, unknown white, within each frame. Over the image are drawn
    the edges of dense depth, or the points of sparse depth in their colours: where calibration and time are right, they
    lie on the image's own edges. The line above says name, sensor, scale, the quantiles 2 % and 98 % of the depth,
    the share of known pixels and the camera.
    """
    rows = [_row(frame) for frame in frames]
    return np.concatenate(rows, axis=0)


def _row(frame: Frame) -> Image8:
    dense = frame.valid.mean() > _SPARSE
    depth_picture = colourise_depth(frame.depth) if dense else _dots(np.full_like(frame.image, 255), frame)
    over = _outlined(frame) if dense else _dots(frame.image, frame)
    pictures = [_fit(picture) for picture in (frame.image, depth_picture, over)]
    label = Image.new("RGB", (3 * _WIDTH, _LABEL), "white")
    ImageDraw.Draw(label).text((4, 3), _text(frame), fill="black")
    return np.concatenate([np.asarray(label), np.concatenate(pictures, axis=1)], axis=0)


def _fit(picture: Image8) -> Image8:
    height = max(1, round(picture.shape[0] * _WIDTH / picture.shape[1]))
    return np.asarray(Image.fromarray(picture).resize((_WIDTH, height), Image.Resampling.BOX))


def _dots(canvas: Image8, frame: Frame) -> Image8:
    """The known pixels as dots that are still seen when the picture is made small."""
    rows, columns = np.nonzero(frame.valid)
    uv = np.stack([columns, rows], axis=1) + 0.5
    return overlay_points(canvas, uv, frame.depth[rows, columns], radius=max(1, round(frame.width / _WIDTH)))


def _outlined(frame: Frame) -> Image8:
    """The image with the edges between known depths, as wide as a pixel of the sheet."""
    known = frame.valid
    near = ndimage.minimum_filter(np.where(known, frame.depth, np.inf), 3)
    far = ndimage.maximum_filter(np.where(known, frame.depth, 0), 3)
    edges = ndimage.maximum_filter(known & (far > _STEP * near), max(1, round(frame.width / _WIDTH)))
    picture: Image8 = np.where(edges[..., None], np.array(_EDGE, np.uint8), frame.image)
    return picture


def _text(frame: Frame) -> str:
    known = frame.depth[frame.valid]
    unit = "m" if frame.scale == "metric" else f"({frame.scale})"
    low, high = np.quantile(known, [0.02, 0.98]) if known.size else (np.nan, np.nan)
    span = f"{low:.2f}-{high:.2f} {unit}"
    camera = f"{frame.camera.model} {frame.camera.fov_x:.0f} deg"
    share = f"{100 * frame.valid.mean():.1f} % known"
    text = f"{frame.name}   {frame.sensor}, {span}, {share}, {frame.width}x{frame.height} {camera}"
    return text.encode("ascii", "replace").decode()  # Pillow's built-in font has no more
