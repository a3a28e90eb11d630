"""How well a camera was recovered from an image: pure functions of the recovered and the true camera.

Both cameras are for images of one size, and of any model. Errors of a focal length follow Depth Pro (arXiv 2410.02073:
share within 25 % and 50 %), of a field of view MoGe (degrees), of rays MapAnything (mean angle over the image, which no
camera model is needed for).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError

_RAYS_PER_SIDE = 64


def fov_error(recovered: Camera, truth: Camera) -> float:
    """Absolute difference of the horizontal fields of view in degrees."""
    _check(recovered, truth)
    return abs(recovered.fov_x - truth.fov_x)


def focal_error(recovered: Camera, truth: Camera) -> float:
    """|f - f_true| / f_true of the horizontal focal lengths."""
    _check(recovered, truth)
    return abs(recovered.fx / truth.fx - 1)


def ray_error(recovered: Camera, truth: Camera) -> float:
    """Mean angle in degrees between the two cameras' rays of the same pixels, over a grid of 64 x 64 of them.

    The angle is 2 asin(|r - r'| / 2) of unit rays, which is exact for small ones. Pixels that one of the cameras does
    not see are left out; NaN when none is left.
    """
    _check(recovered, truth)
    u = (np.arange(_RAYS_PER_SIDE) + 0.5) / _RAYS_PER_SIDE
    uv = np.stack(np.meshgrid(u * truth.width, u * truth.height), axis=-1).reshape(-1, 2)
    chord = np.linalg.norm(recovered.unproject(uv) - truth.unproject(uv), axis=-1)
    angle = np.rad2deg(2 * np.arcsin(np.clip(chord / 2, 0, 1)))
    known = angle[np.isfinite(angle)]
    return float(known.mean()) if len(known) else float("nan")


def camera_errors(recovered: Camera, truth: Camera) -> dict[str, float]:
    """All errors of one image by name: fov_deg, focal (relative), rays_deg."""
    return {
        "fov_deg": fov_error(recovered, truth),
        "focal": focal_error(recovered, truth),
        "rays_deg": ray_error(recovered, truth),
    }


def summarise(errors: Iterable[dict[str, float]]) -> dict[str, float]:
    """Means over images, and the shares of images whose relative focal error is below 25 % and 50 %."""
    rows: Sequence[dict[str, float]] = list(errors)
    if not rows:
        return {"images": 0.0}
    focal = np.array([row["focal"] for row in rows])
    return {
        "images": float(len(rows)),
        "fov_deg": float(np.mean([row["fov_deg"] for row in rows])),
        "fov_deg_median": float(np.median([row["fov_deg"] for row in rows])),
        "focal_25": float(np.mean(focal < 0.25)),
        "focal_50": float(np.mean(focal < 0.5)),
        "rays_deg": float(np.mean([row["rays_deg"] for row in rows])),
    }


def _check(recovered: Camera, truth: Camera) -> None:
    if (recovered.width, recovered.height) != (truth.width, truth.height):
        raise InputError(
            f"the recovered camera is for {recovered.width}x{recovered.height} pixels but the true one for "
            f"{truth.width}x{truth.height}; resize one of them"
        )
