"""From what a network says to a prediction in metres, at the size of the image, with the camera it holds for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from metricanything.core.camera import Camera
from metricanything.core.geometry import depth_to_points
from metricanything.core.prediction import CameraSource, Prediction
from metricanything.core.recovery import grid_samples, recover_focal_shift, recover_shift, view_plane_uv
from metricanything.inference.inputs import Prepared
from metricanything.models.outputs import DepthOutput

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
    item: Prepared,
    view: View,
    depth: NDArray[np.float32],
    mask: NDArray[np.bool_],
    record: dict[str, Any],
    **more: NDArray[np.float32] | None,
) -> Prediction:
    """The depth with its points; pixels that look sideways, or have no point, are not to be trusted."""
    points = depth_to_points(depth, view.camera)
    made = {
        "model": record,
        "network_size": list(item.size),
        "prompt_points": 0 if item.prompt is None else len(item.prompt),
        "warnings": list(view.warnings),
    }
    x, y, z = np.moveaxis(points, 2, 0)
    with np.errstate(invalid="ignore"):
        mask = mask & (z > 0) & (z * z > _MIN_RAY_Z**2 * (x * x + y * y + z * z))  # False where a point is NaN
    return Prediction(depth, points, mask, view.camera, view.source, item.image, record=made, **more)


def upsample(map_CHW: Tensor, item: Prepared) -> NDArray[np.float32]:
    """A map (C, h, w) at the size of the image (C, H, W), bilinear."""
    size = item.image.shape[:2]
    # Channels as images of one channel: less than half of the time.
    return F.interpolate(map_CHW[:, None], size=size, mode="bilinear", align_corners=False)[:, 0].numpy()


# ---------------------------------------------------------------- depth maps


def depth_of_log(item: Prepared, view: View, output: DepthOutput, index: int, record: dict[str, Any]) -> Prediction:
    """Depth from log canonical inverse depth, D = focal / C with the focal length in image widths.

    Confidence is one over the relative error that the network expects of itself.
    """
    found = (output.log_c_B1HW, output.mask_logit_B1HW, output.log_confidence_B1HW)
    log_c, logit, *rest = upsample(torch.cat([one[index] for one in found if one is not None]), item)
    focal = view.camera.fx / view.camera.width
    depth = (focal * np.exp(-np.clip(log_c, -15, 15))).astype(np.float32)
    confidence = np.exp(np.clip(rest[0], -15, 15)) if rest else None
    return _prediction(item, view, depth, logit > 0, record, confidence=confidence)


def depth_of_inverse(
    item: Prepared, view: View, c_1SS: Tensor, limits: tuple[float, float], record: dict[str, Any]
) -> Prediction:
    """Depth from canonical inverse depth as published: inverse depth is resized, then clamped to `limits` (1/m).

    What lies beyond the farthest depth that the clamp leaves is not to be trusted.
    """
    inverse = upsample(c_1SS * (view.camera.width / view.camera.fx), item)[0]
    depth = (1 / np.clip(inverse, *limits)).astype(np.float32)
    return _prediction(item, view, depth, inverse > limits[0], record)


# ---------------------------------------------------------------- point maps


@dataclass(frozen=True)
class PointsOf:
    """A network's affine points (H, W, 3) of one image, its mask, log metric scale, and normals if it has them."""

    item: Prepared
    affine: NDArray[np.float32]
    mask: NDArray[np.bool_]
    log_scale: float
    normals: NDArray[np.float32] | None = None


def points_predictions(maps: Sequence[PointsOf], record: dict[str, Any]) -> list[Prediction]:
    """Recover z-shifts, and focal lengths where no camera is known; reproject metric depth through the cameras."""
    planes = [view_plane_uv(*m.mask.shape) if m.item.camera is None else _view_plane(m.item.camera) for m in maps]
    masks = [m.mask & np.isfinite(plane).all(axis=-1) for m, plane in zip(maps, planes, strict=True)]
    samples = [_samples(m.affine, plane, mask) for m, plane, mask in zip(maps, planes, masks, strict=True)]
    unknown = [m.item.camera is None for m in maps]
    focal, shift = np.ones(len(maps)), np.zeros(len(maps))
    for chosen in (np.flatnonzero(unknown), np.flatnonzero(np.logical_not(unknown))):
        if len(chosen):
            stacked: list[NDArray[Any]] = [np.stack([samples[i][k] for i in chosen]) for k in range(3)]
            if unknown[chosen[0]]:
                focal[chosen], shift[chosen] = recover_focal_shift(*stacked)
            else:
                shift[chosen] = recover_shift(*stacked)
    predictions = []
    for i, (m, mask) in enumerate(zip(maps, masks, strict=True)):
        view = find_view(m.item) if m.item.camera is not None else _estimated_view(m.item, focal[i])
        z = m.affine[..., 2] + np.float32(shift[i])
        depth = (np.maximum(z, 1e-6) * math.exp(m.log_scale)).astype(np.float32)
        predictions.append(_prediction(m.item, view, depth, mask & (z > 0), record, normals=m.normals))
    return predictions


def _samples(
    affine: NDArray[np.float32], plane: NDArray[np.float32], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """What the solvers look at; all points where the mask leaves none."""
    keep = grid_samples(mask).reshape(-1)
    keep = keep if keep.any() else np.ones_like(keep)
    return grid_samples(affine).reshape(-1, 3), grid_samples(plane).reshape(-1, 2), keep


def _estimated_view(item: Prepared, focal: float) -> View:
    """The pinhole camera of a recovered focal length (in half image diagonals), if it makes sense."""
    height, width = item.image.shape[:2]
    if not (math.isfinite(focal) and 0.05 < focal < 50):
        return find_view(item)
    return View(Camera.centred(focal * math.hypot(width, height) / 2, width, height), "model")


def _view_plane(camera: Camera) -> NDArray[np.float32]:
    """x / z and y / z (H, W, 2) of the camera's rays, as the network was trained with; NaN where z is too small."""
    rays = camera.rays()
    z = np.where(rays[..., 2:] > _MIN_RAY_Z, rays[..., 2:], np.float32(np.nan))
    return np.asarray(rays[..., :2] / z, dtype=np.float32)
