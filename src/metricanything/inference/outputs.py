"""From what a network says to a prediction in metres, at the size of the image, with the camera it holds for."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from metricanything.core.camera import Camera
from metricanything.core.geometry import depth_to_points, recover_focal_shift, recover_shift
from metricanything.core.prediction import CameraSource, Prediction
from metricanything.inference.inputs import Prepared

_MIN_RAY_Z = 0.05  # of unit rays: beyond 87 degrees off the axis z-depth says nothing


@dataclass(frozen=True)
class View:
    """The camera that a prediction uses, where it came from, and what the user has to know of it."""

    camera: Camera
    source: CameraSource
    warnings: tuple[str, ...] = ()


def find_view(item: Prepared) -> View:
    """The camera of the input, else an assumed one: focal length = image width, the published code's default."""
    if item.camera is not None and item.source is not None:
        return View(item.camera, item.source)
    height, width = item.image.shape[:2]
    warning = "no camera given, beside the image or in its EXIF: assuming a field of view of 53 degrees; " + (
        "without a prompt, depth is only as good as that guess"
        if item.prompt is None
        else "depth follows the prompt, but the points are only as good sideways as that guess"
    )
    warnings.warn(warning, stacklevel=5)
    return View(Camera.centred(width, width, height), "assumed", (warning,))


def _prediction(
    item: Prepared, view: View, depth: NDArray[np.float32], mask: NDArray[np.bool_], record: dict[str, Any]
) -> Prediction:
    """The depth with its points; pixels that look sideways, or have no point, are not to be trusted."""
    points = depth_to_points(depth, view.camera)
    made = {
        "model": record,
        "network_size": list(item.size),
        "prompt_points": 0 if item.prompt is None else len(item.prompt),
        "warnings": list(view.warnings),
    }
    mask = mask & (points[..., 2] > _MIN_RAY_Z * np.linalg.norm(points, axis=-1))  # False where a point is NaN
    return Prediction(depth, points, mask, view.camera, view.source, item.image, record=made)


def _upsample(map_CHW: Tensor, item: Prepared) -> NDArray[np.float32]:
    size = item.image.shape[:2]
    return F.interpolate(map_CHW[None], size=size, mode="bilinear", align_corners=False)[0].numpy()


def depth_prediction(
    item: Prepared, view: View, log_c_1HW: Tensor, logit_1HW: Tensor, focal: float, record: dict[str, Any]
) -> Prediction:
    """Depth from log canonical inverse depth, D = focal / C with the focal length in image widths."""
    log_c = _upsample(log_c_1HW, item)[0]
    depth = (focal * np.exp(-np.clip(log_c, -15, 15))).astype(np.float32)
    return _prediction(item, view, depth, _upsample(logit_1HW, item)[0] > 0, record)


def points_prediction(
    item: Prepared, points_3HW: Tensor, logit_1HW: Tensor, log_scale: float, record: dict[str, Any]
) -> Prediction:
    """Recover the z-shift, and the focal length where no camera is known; reproject metric depth through the camera."""
    affine = np.moveaxis(_upsample(points_3HW, item), 0, 2)
    mask = _upsample(logit_1HW, item)[0] > 0
    if item.camera is None:
        view, shift = _estimated_view(item, affine, mask)
    else:
        view, plane = find_view(item), _view_plane(item.camera)
        mask &= np.isfinite(plane).all(axis=-1)
        shift = recover_shift(affine, plane, mask if mask.any() else None)
    z = affine[..., 2] + shift
    depth = (np.maximum(z, 1e-6) * math.exp(log_scale)).astype(np.float32)
    return _prediction(item, view, depth, mask & (z > 0), record)


def _estimated_view(item: Prepared, affine: NDArray[np.float32], mask: NDArray[np.bool_]) -> tuple[View, float]:
    """A pinhole camera that fits the affine points (H, W, 3), and their z-shift."""
    height, width = item.image.shape[:2]
    focal, shift = recover_focal_shift(affine, mask if mask.any() else None)
    if not (math.isfinite(focal) and 0.05 < focal < 50):
        return find_view(item), shift
    focal_px = focal * math.hypot(width, height) / 2
    return View(Camera.centred(focal_px, width, height), "model"), shift


def _view_plane(camera: Camera) -> NDArray[np.float32]:
    """x / z and y / z (H, W, 2) of the camera's rays, as the network was trained with; NaN where z is too small."""
    rays = camera.rays()
    z = np.where(rays[..., 2:] > _MIN_RAY_Z, rays[..., 2:], np.float32(np.nan))
    return np.asarray(rays[..., :2] / z, dtype=np.float32)
