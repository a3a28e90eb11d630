"""Filters from raw 3D to honest depth: each a pure function that says which points or pixels are not to be trusted.

They return a mask of what to remove; `drop` removes and counts, and the counts travel in `Frame.notes["removed"]`.
The filter for LiDAR points that shine through nearer surfaces is `core.geometry.visible_points`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.geometry import depth_to_points, pixel_index

Bool = NDArray[np.bool_]
Float32 = NDArray[np.float32]

_EIGHT = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx)


def drop(depth: Float32, **bad: Bool) -> tuple[Float32, dict[str, int]]:
    """`depth` (H, W) with NaN at the finite pixels of every mask, and how many each mask took, by its name.

    A pixel in several masks counts for the first of them.
    """
    left = np.isfinite(depth)
    counts = {}
    for name, mask in bad.items():
        counts[name] = int(np.count_nonzero(left & mask))
        left = left & ~mask
    keep = left | ~np.isfinite(depth)
    return np.where(keep, depth, np.float32(np.nan)), counts


def flying_pixels(depth: Float32, rtol: float = 0.03) -> Bool:
    """(H, W) bool: pixels between foreground and background, whose value is a mixture of both.

    Either steps of more than `rtol` lead away from the pixel in opposite directions of depth on its two sides (in a row
    or a column), each more than twice as large as the step after it, where a slanted surface would go on as it came;
    or the pixel stands alone: at most one of its eight neighbours lies within `rtol`. Steps are of the inverse depth,
    which is linear on planes, relative to that of the pixel. Unknown neighbours count as no support and as no step.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(np.isfinite(depth), 1 / depth.astype(np.float64), np.nan)
        padded = np.pad(inverse, 2, constant_values=np.nan)
        height, width = depth.shape

        def at(dy: int, dx: int) -> NDArray[np.float64]:
            return padded[2 + dy : 2 + dy + height, 2 + dx : 2 + dx + width]

        mixed = np.zeros(depth.shape, dtype=bool)
        for dy, dx in ((0, 1), (1, 0)):
            before, after = (at(-dy, -dx) - inverse) / inverse, (at(dy, dx) - inverse) / inverse
            flat = (at(-2 * dy, -2 * dx) - at(-dy, -dx)) / inverse, (at(2 * dy, 2 * dx) - at(dy, dx)) / inverse
            between = (before * after < 0) & (np.abs(before) > rtol) & (np.abs(after) > rtol)
            mixed |= between & (np.abs(flat[0]) < np.abs(before) / 2) & (np.abs(flat[1]) < np.abs(after) / 2)
        support = np.sum([np.abs(at(dy, dx) - inverse) <= rtol * inverse for dy, dx in _EIGHT], axis=0)
    return np.isfinite(depth) & (mixed | (support <= 1))


def low_confidence(confidence: NDArray[Any], minimum: float) -> Bool:
    """(H, W) bool: pixels of a sensor's confidence map (H, W) below `minimum`, in the unit of the map."""
    return np.asarray(~(confidence >= minimum))


def clean_tof(
    depth: Float32, confidence: NDArray[Any] | None, minimum: float, flying: bool
) -> tuple[Float32, dict[str, int]]:
    """Depth (H, W) of a ToF sensor without pixels of low confidence, where there is a map of it, and flying ones."""
    bad = {} if confidence is None else {"low_confidence": low_confidence(confidence, minimum)}
    if flying:
        bad["flying_pixels"] = flying_pixels(depth)
    return drop(depth, **bad)


def ghost_points(points: NDArray[Any], reference: NDArray[Any], *, step: float = 0.6, rtol: float = 0.1) -> Bool:
    """(N,) bool: points of other sweeps that lie where the `reference` sweep (M, 3) saw free space.

    All are in the frame of the sensor at the time of `reference`, metres. Directions are binned in cells of `step`
    degrees. A point is a ghost (something that has moved since) when the reference has returns in its cell or the
    eight around it and the nearest of them is farther than the point by more than the share `rtol` of its own range:
    the beams would have been stopped. Where the reference has no return nothing is known, and the point stays.
    """
    columns, rows = round(360 / step), round(180 / step) + 2

    def cells(xyz: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        x, y, z = np.asarray(xyz, dtype=np.float64).T
        column = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * columns).astype(np.int64) % columns
        row = ((np.arctan2(z, np.hypot(x, y)) / np.pi + 0.5) * (rows - 2)).astype(np.int64) + 1
        return np.minimum(row, rows - 2), column, np.sqrt(x * x + y * y + z * z)

    seen = np.full((rows, columns), np.inf)
    row, column, distance = cells(reference)
    np.minimum.at(seen, (row, column), distance)
    # The first and last row stay empty, so that rolling them around does no harm; columns do go around.
    nearest = np.min([np.roll(seen, (dy, dx), axis=(0, 1)) for dy, dx in (*_EIGHT, (0, 0))], axis=0)
    row, column, distance = cells(points)
    limit = nearest[row, column]
    return np.asarray(np.isfinite(limit) & (limit > (1 + rtol) * distance))


@dataclass(frozen=True)
class View:
    """A depth map (H, W) with its camera and pose `world_from_cam` (4, 4), all in one unit of length."""

    depth: Float32
    camera: Camera
    world_from_cam: NDArray[np.float64]


def inconsistent(
    view: View, others: Sequence[View], *, pixels: float = 1.0, rtol: float = 0.01, agreeing: int = 2
) -> Bool:
    """(H, W) bool: finite pixels of `view` that fewer than `agreeing` of the `others` confirm.

    The geometric check of MVSNet (Yao et al., ECCV 2018, section 4.2) with the true camera models: a pixel's point is
    looked up in the other depth map (at the pixel that holds it), and the point seen there is brought back; it has to
    fall within `pixels` of where it came from, with a depth that differs by at most the share `rtol`.
    """
    finite = np.isfinite(view.depth)
    here = depth_to_points(view.depth, view.camera)[finite].astype(np.float64)
    origin = view.camera.pixel_grid()[finite]
    votes = np.zeros(len(here), dtype=np.int64)
    for other in others:
        other_from_view = np.linalg.inv(other.world_from_cam) @ view.world_from_cam
        there = here @ other_from_view[:3, :3].T + other_from_view[:3, 3]
        uv = other.camera.project(there)
        index, inside = pixel_index(uv, *other.depth.shape)
        surface = depth_to_points(other.depth, other.camera).reshape(-1, 3)[index].astype(np.float64)
        back = (surface - other_from_view[:3, 3]) @ other_from_view[:3, :3]
        with np.errstate(invalid="ignore"):
            shift = np.linalg.norm(view.camera.project(back) - origin, axis=1)
            votes += inside & (shift <= pixels) & (np.abs(back[:, 2] - here[:, 2]) <= rtol * here[:, 2])
    result = np.zeros(view.depth.shape, dtype=bool)
    result[finite] = votes < agreeing
    return result
