"""Height fields: a square grid of heights, denser near the camera, met by marching and bisection.

The grid is stored in warped coordinates g = sign(x) sqrt(|x| / EXTENT), so that 192 nodes a side resolve
centimetres at the camera's feet and metres on the horizon; between nodes the surface is bilinear in g.
Letters: B scenes, G nodes a side, K rays of any of the scenes.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXTENT = 160.0  # metres from the camera to the edge of the field; beyond it the edge's height goes on
NODES = 192
_STEPS = 120
_BISECTIONS = 14


def node_coordinates() -> Tensor:
    """Metres (NODES,) of the grid's nodes along either axis, relative to the camera."""
    g = torch.linspace(-1, 1, NODES)
    return g * g.abs() * EXTENT


def _grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """Lower node and fraction of a coordinate in metres."""
    unit = (x / EXTENT).clamp(-1, 1)
    node = (unit.abs().sqrt() * unit.sign() + 1) * ((NODES - 1) / 2)
    low = node.to(torch.int32).clamp(0, NODES - 2)
    return low, node - low


def heights(field_BGG: Tensor, scene_K: Tensor, x_K: Tensor, y_K: Tensor) -> Tensor:
    """Height (K,) in metres below (or above) points given relative to the camera, in the field of each one's scene."""
    (column, fx), (row, fy) = _grid(x_K), _grid(y_K)
    first = (scene_K.to(torch.int32) * NODES + row) * NODES + column
    index = torch.cat([first, first + 1, first + NODES, first + NODES + 1])
    a, b, c, d = field_BGG.reshape(-1).index_select(0, index).chunk(4)
    return torch.lerp(torch.lerp(a, b, fx), torch.lerp(c, d, fx), fy)


def _clearance(field: Tensor, scene: Tensor, start: Tensor, ray: Tensor, t: Tensor) -> Tensor:
    x, y, z = (start + t[:, None] * ray).unbind(-1)
    return z - heights(field, scene, x, y)


def march(
    field_BGG: Tensor, scene_K: Tensor, start_K3: Tensor, ray_K3: Tensor, limit_K: Tensor, growth: float = 0.06
) -> Tensor:
    """Distance (K,) along unit rays to the surface, +inf where it is not met before `limit`.

    A step is most of the clearance, but at least `growth` times the distance, so a crest thinner than that can be
    stepped over; a crossing, once found, is bisected to 1/16000 of its step.
    """
    top = field_BGG.amax((1, 2))
    alive = torch.arange(len(limit_K), device=limit_K.device)
    near, far = torch.zeros_like(limit_K), torch.full_like(limit_K, torch.inf)  # brackets of the crossings
    scene, start, ray, t = scene_K, start_K3, ray_K3, near.clone()
    clearance = _clearance(field_BGG, scene, start, ray, t)
    for _ in range(_STEPS):
        ahead = t + torch.maximum(0.8 * clearance, growth * t + 0.02)
        clearance = _clearance(field_BGG, scene, start, ray, ahead)
        crossed = clearance < 0
        near[alive], far[alive] = t, torch.where(crossed, ahead, torch.inf)
        gone = ((start[:, 2] + ahead * ray[:, 2] > top[scene]) & (ray[:, 2] >= 0)) | (ahead > limit_K[alive])
        keep = (~crossed & ~gone).nonzero()[:, 0]
        if not len(keep):
            break
        alive, scene, start, ray = alive[keep], scene[keep], start[keep], ray[keep]
        t, clearance = ahead[keep], clearance[keep]
    hit = far.isfinite().nonzero()[:, 0]
    scene, start, ray, near, far = scene_K[hit], start_K3[hit], ray_K3[hit], near[hit], far[hit]
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        below = _clearance(field_BGG, scene, start, ray, middle) < 0
        near, far = torch.where(below, near, middle), torch.where(below, middle, far)
    result = torch.full_like(limit_K, torch.inf)
    result[hit] = (near + far) / 2
    return torch.where(result < limit_K, result, torch.inf)


def normals(field_BGG: Tensor, scene_K: Tensor, points_K3: Tensor) -> Tensor:
    """Upward unit normals (K, 3) by central differences over 3 % of the distance: smooth where nodes are sparse."""
    x, y, _ = points_K3.unbind(-1)
    h = 0.05 + 0.03 * points_K3.norm(dim=-1)
    dx = heights(field_BGG, scene_K, x + h, y) - heights(field_BGG, scene_K, x - h, y)
    dy = heights(field_BGG, scene_K, x, y + h) - heights(field_BGG, scene_K, x, y - h)
    return torch.nn.functional.normalize(torch.stack([-dx, -dy, 2 * h], -1), dim=-1)
