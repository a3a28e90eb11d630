"""Frames of distorted and fisheye cameras as frames of a pinhole camera."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.core.geometry import pixel_index

#: Depth maps of these sensors are points: they are moved one by one. Those of the others are surfaces: looked up.
_POINTS = ("lidar", "radar", "sfm")
_MAX_TANGENT = 1.7  # of the angle off the axis (60 degrees); a pinhole image of more is mostly stretched border


def undistort(frame: Frame) -> Frame:
    """The same view through a pinhole camera of the same size and principal point; pinhole frames as they are.

    The focal length is that of the lens at its centre, shorter where the image's corners would be cut off beyond 60
    degrees. z-depth does not change, since the camera does not turn: points are moved to their new pixels, and of
    surfaces each new pixel takes the depth of the old pixel that holds it, so nothing is interpolated. Colours are
    interpolated linearly; pixels that the lens did not see are black, without depth. `notes["undistorted_from"]` holds
    the camera as it was.
    """
    old = frame.camera
    if old.model == "pinhole":
        return frame
    new = pinhole_of(old)
    grid = new.pixel_grid()
    rays = np.stack([(grid[..., 0] - new.cx) / new.fx, (grid[..., 1] - new.cy) / new.fy, np.ones(grid.shape[:2])], -1)
    source = old.project(rays)
    index, inside = pixel_index(source, old.height, old.width)
    flat_inside = inside.reshape(grid.shape[:2])
    if frame.sensor in _POINTS:
        depth, sigma = _moved(frame, new)
    else:
        depth = np.where(flat_inside, frame.depth.reshape(-1)[index].reshape(flat_inside.shape), np.float32(np.nan))
        sigma = frame.sigma
        if sigma is not None:
            sigma = np.where(flat_inside, sigma.reshape(-1)[index].reshape(flat_inside.shape), np.float32(np.nan))
    where = np.where(flat_inside[..., None], source - 0.5, 0.0)
    image = np.stack(
        [
            ndimage.map_coordinates(channel.astype(np.float32), [where[..., 1], where[..., 0]], order=1, mode="nearest")
            for channel in np.moveaxis(frame.image, -1, 0)
        ],
        axis=-1,
    )
    image8 = np.where(flat_inside[..., None], np.rint(image), 0).astype(np.uint8)
    notes: dict[str, Any] = {**frame.notes, "undistorted_from": old.to_dict()}
    return replace(frame, image=image8, depth=depth, sigma=sigma, camera=new, notes=notes)


def pinhole_of(camera: Camera) -> Camera:
    """The pinhole camera that `undistort` gives for `camera`."""
    grid = camera.pixel_grid()
    edge = np.concatenate([grid[0], grid[-1], grid[:, 0], grid[:, -1]])
    rays = camera.unproject(edge)
    with np.errstate(invalid="ignore", divide="ignore"):
        tangent = np.hypot(rays[:, 0], rays[:, 1]) / rays[:, 2]
        tangent = np.where(tangent >= 0, np.minimum(tangent, _MAX_TANGENT), _MAX_TANGENT)
        reach = np.hypot((edge[:, 0] - camera.cx) / camera.fx, (edge[:, 1] - camera.cy) / camera.fy)
        shrink = min(1.0, float(np.nanmin(reach / tangent)))
    return Camera.pinhole(camera.fx * shrink, camera.fy * shrink, camera.cx, camera.cy, camera.width, camera.height)


def _moved(frame: Frame, new: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Depth and sigma with every known pixel at its new place; the nearest wins."""
    known = frame.valid
    rays = frame.camera.unproject(frame.camera.pixel_grid()[known])
    uv = new.project(rays)
    index, inside = pixel_index(uv, new.height, new.width)
    order = np.argsort(-frame.depth[known][inside], kind="stable")  # of repeated indices the last stays: the nearest
    target = index[inside][order]
    maps: list[NDArray[np.float32] | None] = []
    for values in (frame.depth, frame.sigma):
        if values is None:
            maps.append(None)
            continue
        moved = np.full(new.height * new.width, np.nan, dtype=np.float32)
        moved[target] = values[known][inside][order]
        maps.append(moved.reshape(new.height, new.width))
    depth = maps[0]
    assert depth is not None
    return depth, maps[1]
