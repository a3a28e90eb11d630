"""What a frame looks like in the report on shards: image, depth, and the edges of the depth on the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metricanything.core.colour import colourise_depth, overlay_points
from metricanything.core.frame import Frame
from metricanything.core.report import Figure
from metricanything.curate.edges import depth_edges, grid_step
from metricanything.curate.quality import is_sparse, on_grid, reduced

PICTURE_HEADS = ("image", "depth", "depth edges on the image")
_COLOURS = ((255, 40, 40), (40, 255, 40))  # across rows, across columns


def frame_pictures(frame: Frame) -> tuple[Figure, Figure, Figure]:
    """Image, depth and edges of a frame on the grid on which edges are measured."""
    step = grid_step(frame.width)
    image = reduced(frame.image, step)
    if is_sparse(frame.valid):
        v, u = np.nonzero(frame.valid)
        uv = (np.stack([u, v], axis=-1) + 0.5) / step
        dots = [overlay_points(ground, uv, frame.depth[v, u], radius=1) for ground in (_white(image), image)]
        return Figure(image), Figure(dots[0]), Figure(dots[1])
    depth = on_grid(frame.depth, step)
    marked = image // 2 + 64
    for (rows, columns), colour in zip(depth_edges(depth), _COLOURS, strict=True):
        marked[rows, columns] = colour
    return Figure(image), Figure(colourise_depth(depth)), Figure(marked)


def _white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.full_like(image, 255)
