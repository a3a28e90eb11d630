"""Pictures of depth, of errors and of prompt points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError

Image8 = NDArray[np.uint8]

NEUTRAL = 255  # unknown and infinite pixels are white, as in the published code's pictures
_QUANTILES = (0.001, 0.99)  # of the inverse depth, the published code's


def colourise_depth(
    depth: NDArray[Any], near: float | None = None, far: float | None = None, cmap: str = "turbo_r"
) -> Image8:
    """Picture uint8 (H, W, 3) of depth (H, W): inverse depth from `near` to `far` (metres) along a matplotlib map.

    Bounds left out are the 99 % and 0.1 % quantiles of the inverse depth. With `turbo_r`, near is red and far blue;
    pixels without a finite positive depth are white. Raises InputError for an unknown colour map.
    """
    known = np.isfinite(depth) & (depth > 0)
    inverse = 1 / np.where(known, depth, 1).astype(np.float64)
    low, high = np.quantile(inverse[known], _QUANTILES) if known.any() else (0.0, 1.0)
    low, high = (1 / far if far else low), (1 / near if near else high)
    span = high - low if high > low else 1.0
    return _paint(1 - (inverse - low) / span, known, cmap)


def colourise_error(rel_error: NDArray[Any], limit: float = 0.2, cmap: str = "inferno") -> Image8:
    """Picture uint8 (H, W, 3) of relative errors (H, W), dark for 0 to bright for `limit` and above; NaN is white."""
    return _paint(np.abs(rel_error) / limit, ~np.isnan(rel_error), cmap)


def overlay_points(
    image: Image8,
    uv: NDArray[Any],
    depth: NDArray[Any],
    radius: int = 2,
    near: float | None = None,
    far: float | None = None,
    cmap: str = "turbo_r",
) -> Image8:
    """The image uint8 (H, W, 3) with a dot of `radius` pixels at every pixel position `uv` (N, 2), coloured by depth.

    Colours are those of `colourise_depth` with the same bounds; nearer dots lie on top, parts outside are cut off.
    """
    picture: Image8 = image.copy()
    height, width = image.shape[:2]
    seen = np.isfinite(uv).all(axis=-1) & np.isfinite(depth)
    uv, depth = uv[seen], depth[seen]
    order = np.argsort(-depth, kind="stable")  # of repeated indices the last assignment stays: nearest last
    colours = colourise_depth(depth[None], near, far, cmap)[0][order]
    down, across = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = down**2 + across**2 <= radius**2
    # Clipped before the conversion: far outside, a float does not fit an integer.
    pixels = np.floor(np.clip(uv[order], -radius - 2, max(height, width) + radius + 2)).astype(np.int64)
    rows, columns = pixels[:, 1:] + down[disc], pixels[:, :1] + across[disc]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    picture[rows[inside], columns[inside]] = np.broadcast_to(colours[:, None], (*rows.shape, 3))[inside]
    return picture


def _paint(value: NDArray[Any], known: NDArray[np.bool_], cmap: str) -> Image8:
    """Values in 0..1 (clipped) as uint8 (..., 3) colours of a matplotlib map; `NEUTRAL` where not known."""
    from matplotlib import colormaps

    if cmap not in colormaps:
        raise InputError(f"colour map {cmap!r} is unknown; use a matplotlib name such as turbo_r, magma or Spectral")
    table = (colormaps[cmap](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)
    index = (np.clip(np.where(known, value, 0), 0, 1) * 255).round().astype(np.uint8)
    painted: Image8 = np.where(known[..., None], table[index], np.uint8(NEUTRAL))
    return painted
