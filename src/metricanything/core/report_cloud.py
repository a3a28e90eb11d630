"""Point clouds of a report: quantised, embedded, and drawn by the page's own viewer."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.report_format import Numbering, escape

MAX_CLOUD_POINTS = 150_000


@dataclass(frozen=True)
class PointCloud:
    """Points (N, 3) in metres in the OpenCV camera frame with colours (N, 3) uint8, to be turned by hand.

    The first view is that of the camera at the origin. Points that are not finite are left out; more than
    `MAX_CLOUD_POINTS` are thinned out evenly. Positions are stored to 1/65535 of the extent.
    """

    points: NDArray[np.floating[Any]]
    colours: NDArray[np.uint8]
    caption: str = ""

    def __post_init__(self) -> None:
        shape, colours = np.shape(self.points), np.asarray(self.colours)
        if len(shape) != 2 or shape[1] != 3 or colours.shape != shape or colours.dtype != np.uint8:
            raise InputError(
                f"point cloud {self.caption!r}: points must be (N, 3) and colours uint8 (N, 3), "
                f"got {shape} and {colours.dtype} {colours.shape}"
            )

    def html(self, numbering: Numbering) -> str:
        finite = np.flatnonzero(np.isfinite(self.points).all(axis=1))
        if not finite.size:
            note = '<p class="note">No point to show.</p>'
            return f'<figure class="cloud">{note}{numbering.caption("Figure", self.caption)}</figure>'
        kept = finite[_thinned(finite.size)]
        points = np.asarray(self.points[kept], dtype=np.float64)
        low, extent = points.min(axis=0), np.maximum(np.ptp(points, axis=0), 1e-9)
        steps = np.round((points - low) / extent * 65535).astype("<u2")
        view = {"count": len(points), "low": low.tolist(), "extent": extent.tolist(), **_first_view(points)}
        thinned = f" {len(points):,} of {finite.size:,} points are shown." if len(points) < finite.size else ""
        data = base64.b64encode(steps.tobytes() + np.ascontiguousarray(self.colours[kept]).tobytes()).decode()
        return (
            f'<figure class="cloud"><div class="stage" data-view="{escape(json.dumps(view))}">'
            f'<canvas role="img" aria-label="{escape(self.caption or "point cloud")}"></canvas>'
            '<p class="hint"><span class="mouse">Drag to turn · wheel to zoom · right button to move</span>'
            '<span class="touch">Drag to turn · pinch to zoom · two fingers to move</span></p>'
            '<button class="reset" type="button">Reset view</button></div>'
            f'<script type="text/plain">{data}</script>{numbering.caption("Figure", (self.caption + thinned).strip())}'
            "</figure>"
        )


def _thinned(count: int) -> NDArray[np.intp]:
    """Places of at most `MAX_CLOUD_POINTS` of `count` points: one drawn from each of as many equal stretches.

    Points of a depth map come row by row, so this thins them evenly and leaves fewer holes than drawing freely.
    """
    if count <= MAX_CLOUD_POINTS:
        return np.arange(count)
    edges = np.linspace(0, count, MAX_CLOUD_POINTS + 1).astype(np.intp)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:], dtype=np.intp)


def _first_view(points: NDArray[np.float64]) -> dict[str, Any]:
    """Pivot, distance of the eye from it and half field of view (tangents across and down) of the first view.

    `by_depth` says that points stand for pixels of the first view, so that their size grows with their depth.
    """
    z = points[:, 2]
    if np.mean(z > 0) > 0.98:  # a depth map: look as its camera did
        front = points[z > 0]
        low, high = np.percentile(front[:, :2] / front[:, 2:], (1, 99), axis=0)
        depth = float(np.median(front[:, 2]))
        target = np.array([*(low + high) / 2 * depth, depth])
        tangents = np.clip((high - low) / 2, 0.05, 2.0)
        return {"target": target.tolist(), "distance": depth, "tangents": tangents.tolist(), "by_depth": True}
    target = np.median(points, axis=0)
    radius = max(float(np.percentile(np.linalg.norm(points - target, axis=1), 95)), 1e-6)
    return {"target": target.tolist(), "distance": 2.5 * radius, "tangents": [0.45, 0.45], "by_depth": False}
