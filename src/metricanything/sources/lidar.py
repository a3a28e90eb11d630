"""Point clouds seen by a camera, for every reader of LiDAR and radar: projection, see-through filter, what it took."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from metricanything.core.camera import Camera
from metricanything.core.geometry import depth_to_points, scatter_min, visible_points


def project_cloud(
    xyz: NDArray[Any], cam_from_points: NDArray[np.float64], camera: Camera, *, see_through: bool = True
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """z-depth (H, W) metres of points (N, 3) taken to the camera by `cam_from_points` (4, 4), and notes.

    The true camera model is used; the nearest point of a pixel wins, NaN where none falls. With `see_through`, points
    that shine through a nearer surface are left out (`visible_points`). The notes hold the numbers of points in the
    image and of those `removed` by name.
    """
    points = xyz.astype(np.float64) @ cam_from_points[:3, :3].T + cam_from_points[:3, 3]
    uv = camera.project(points)
    with np.errstate(invalid="ignore"):
        keep = np.isfinite(uv).all(axis=1) & (points[:, 2] > 0)
        keep &= ((uv >= 0) & (uv <= [camera.width, camera.height])).all(axis=1)
    uv, z = uv[keep], points[keep, 2]
    notes: dict[str, Any] = {"points": len(z)}
    if see_through:
        visible = visible_points(uv, z, camera.height, camera.width)
        notes["removed"] = {"see_through": int(np.count_nonzero(~visible))}
        uv, z = uv[visible], z[visible]
    return scatter_min(uv, z, camera.height, camera.width), notes


def rigid(rotation: NDArray[np.float64] | Rotation, translation: Any) -> NDArray[np.float64]:
    """The transform (4, 4) of a rotation (3, 3) and a translation (3,)."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix() if isinstance(rotation, Rotation) else rotation
    matrix[:3, 3] = translation
    return matrix


def inverse(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse (4, 4) of a transform (4, 4)."""
    return np.asarray(np.linalg.inv(transform), dtype=np.float64)


def rigid_wxyz(quaternion: Any, translation: Any) -> NDArray[np.float64]:
    """The transform (4, 4) of a quaternion (w, x, y, z) and a translation (3,)."""
    w, x, y, z = quaternion
    return rigid(Rotation.from_quat([x, y, z, w]), translation)


def register_depth(
    depth: NDArray[np.float32], depth_camera: Camera, cam_from_depth: NDArray[np.float64], camera: Camera
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Depth (h, w) of one camera as z-depth (H, W) of another, and notes as `project_cloud`.

    Every known pixel is a point; it is placed at the pixel that holds its image and never interpolated, so a colour
    image of more pixels gets gaps.
    """
    points = depth_to_points(depth, depth_camera)[np.isfinite(depth)]
    return project_cloud(points, cam_from_depth, camera)
