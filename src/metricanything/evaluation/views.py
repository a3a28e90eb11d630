"""How a frame is brought to the view of a protocol: resized, warped to a centred principal point, cut.

What belongs to a frame, prompt, segments and matte, goes the same way. Depth is never interpolated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.protocol import Protocol

Map = NDArray[np.float32]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A frame with what lies beside it, all (H, W), each None where the data has none.

    prompt: float32 metres, NaN without a point. segments: int32, 0 = no object. matte: float32, 0..1.
    """

    frame: Frame
    prompt: Map | None = None
    segments: NDArray[np.int32] | None = None
    matte: Map | None = None

    def beside(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
        """Segments and matte, changed."""
        return {
            name: None if (value := getattr(self, name)) is None else change(value) for name in ("segments", "matte")
        }


def seen(view: View, protocol: Protocol) -> View:
    """The view that a protocol measures; InputError when its crop leaves nothing or the camera cannot be centred."""
    if protocol.view == "centred":
        assert protocol.size is not None  # see `Protocol`
        view = centred(view, *protocol.size)
    elif protocol.size is not None:
        view = resized(view, *protocol.size)
    return _cut(view, protocol)


def resized(view: View, height: int, width: int) -> View:
    """The image area-averaged, depth and maps of the nearest pixel, prompts point by point."""
    frame = view.frame
    if (height, width) == (frame.height, frame.width):
        return view
    from PIL import Image

    image = np.array(Image.fromarray(frame.image).resize((width, height), Image.Resampling.BOX))
    index = _nearest((frame.height, frame.width), (height, width))
    depth = np.ascontiguousarray(frame.depth[index])
    prompt = view.prompt
    if prompt is not None:
        prompt = SparsePrompt.from_depth(prompt, unit="m").rasterise(height, width)
    camera = frame.camera.resize(width, height)
    frame = replace(frame, image=image, depth=depth, camera=camera, sigma=None)
    return View(frame, prompt, **view.beside(lambda values: values[index]))


def centred(view: View, height: int, width: int) -> View:
    """MoGe's view: turned so that the image's centre lies on the optical axis, the widest that the image fills.

    Image and depth are first brought to the pixel size of the view (the image with Lanczos' filter; of several known
    depths in a pixel the one nearest to its centre, none elsewhere), then read through the homography (the image
    bilinearly, the rest at the nearest pixel). Depth is carried as distance, since z changes with the turn. Raises
    InputError for a camera that is no pinhole. Source: moge/test/dataloader.py.
    """
    from PIL import Image
    from scipy.ndimage import map_coordinates

    frame = view.frame
    if frame.camera.model != "pinhole":
        raise InputError(f"has a {frame.camera.model} camera, and only a pinhole can be centred; undistort it")
    turn, camera = _centred_camera(frame.camera, height, width)
    near = frame.camera.resize(
        max(int(frame.width / frame.camera.fx * camera.fx), 1), max(int(frame.height / frame.camera.fy * camera.fy), 1)
    )
    small = np.array(Image.fromarray(frame.image).resize((near.width, near.height), Image.Resampling.LANCZOS))
    uv = near.project(camera.unproject(camera.pixel_grid()) @ turn)
    row, column = uv[..., 1] - 0.5, uv[..., 0] - 0.5
    planes = [map_coordinates(small[..., c], [row, column], order=1, mode="nearest") for c in range(3)]
    index = _inside(row, near.height), _inside(column, near.width)
    distance = _shrunk(frame.depth, near.height, near.width) * _ray_length(near)
    depth = (distance[index] / _ray_length(camera)).astype(np.float32)
    frame = replace(frame, image=np.stack(planes, -1), depth=depth, camera=camera, world_from_cam=None, sigma=None)
    resize = _nearest(view.frame.depth.shape, (near.height, near.width))
    return View(frame, None, **view.beside(lambda values: values[resize][index]))


def _centred_camera(camera: Camera, height: int, width: int) -> tuple[Array, Camera]:
    """Rotation (3, 3) from the camera to the view, and the view's camera of `width` x `height` pixels."""
    turn = _rotation(camera.unproject([[camera.width / 2, camera.height / 2]])[0])
    corners = camera.unproject(np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * [camera.width, camera.height]) @ turn.T
    corners = corners[:, :2] / corners[:, 2:]
    aspect = width / height
    across = min(camera.width / camera.fx, camera.height / camera.fy * aspect)
    # The view's corners lie on two diagonals through the centre: how far along each are the borders of the image?
    for diagonal in ((aspect, 1.0), (aspect, -1.0)):
        for start, end in zip(np.roll(corners, 1, axis=0), corners, strict=True):
            (dx, dy), (ex, ey) = diagonal, end - start
            along = (start[0] * ey - start[1] * ex) / (dx * ey - dy * ex) if dx * ey != dy * ex else np.inf
            across = min(across, 2 * abs(along) * aspect)
    return turn, Camera.centred(width / across, width, height)


def _rotation(direction: Array) -> Array:
    """Rotation (3, 3) by the shortest way that takes a unit direction to the z axis."""
    x, y, z = direction
    k = np.array([[0, 0, -x], [0, 0, -y], [x, y, 0]])  # of direction x (0, 0, 1)
    return np.eye(3) + k + k @ k / (1 + z)


def _shrunk(depth: Map, height: int, width: int) -> Map:
    """Depth at another size: in each pixel the known depth nearest to its centre, NaN where none falls.

    A pixel centre on the border of two belongs to the left or upper one.
    """
    row, column = np.nonzero(np.isfinite(depth))
    v, u = (row + 0.5) * height / depth.shape[0], (column + 0.5) * width / depth.shape[1]
    i, j = (np.ceil(x - 1e-6).astype(np.intp) - 1 for x in (v, u))
    far = (v - i - 0.5) ** 2 * (depth.shape[0] / height) ** 2 + (u - j - 0.5) ** 2 * (depth.shape[1] / width) ** 2
    order = np.argsort(-far, kind="stable")
    result = np.full((height, width), np.nan, dtype=np.float32)
    result[i[order], j[order]] = depth[row[order], column[order]]  # the last written, the nearest, stays
    return result


def _nearest(size: tuple[int, ...], wanted: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices that resize a map of `size` to `wanted` by the nearest pixel."""
    rows, columns = (((np.arange(n) + 0.5) * full / n).astype(np.intp) for n, full in zip(wanted, size, strict=True))
    return np.ix_(rows, columns)  # type: ignore[return-value]


def _inside(place: Array, length: int) -> NDArray[np.intp]:
    return np.clip(np.rint(place), 0, length - 1).astype(np.intp)


def _ray_length(camera: Camera) -> Map:
    """Length (H, W) of rays with z = 1."""
    return np.asarray(1 / camera.rays()[..., 2], dtype=np.float32)


def _cut(view: View, protocol: Protocol) -> View:
    frame = view.frame
    top, bottom, left, right = protocol.input_crop.box(frame.height, frame.width)
    if (bottom - top, right - left) == (frame.height, frame.width):
        return view
    window = np.s_[top:bottom, left:right]
    camera = frame.camera.crop(left, top, right - left, bottom - top)
    image, depth = np.ascontiguousarray(frame.image[window]), np.ascontiguousarray(frame.depth[window])
    frame = replace(frame, image=image, depth=depth, camera=camera, sigma=None)
    prompt = None if view.prompt is None else view.prompt[window]
    return View(frame, prompt, **view.beside(lambda values: values[window]))
