"""Angles between what is predicted and what is true: of surface normals, and of the way from pixel to pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from metricanything.losses.depth import masked_mean, working

_EDGE = 0.1


def normal_angle(depth: Tensor, target: Tensor, mask: Tensor, plane_BHW2: Tensor) -> Tensor:
    """Mean angle in radians between the normals n, m of predicted and true depth: 2 atan2(|n - m|, |n + m|).

    Normals are those of `core.geometry.depth_to_normals`: cross products of central differences of the points
    z (x/z, y/z, 1), with `plane_BHW2` (B, H, W, 2) the x/z and y/z of every pixel's ray (NaN: sees nothing), so that
    any camera model will do. The unit of either depth does not matter. The term is the normal loss of MoGe-2 (arXiv
    2507.02546) without its square; this formula for an angle (Kahan's) is exact, with bounded gradient, at all angles.

    A pixel counts where it and its four neighbours are supervised and their true depths differ by no more than 10 % of
    its own: across the edges of objects there is no surface. Shapes, masks and result are those of `losses.depth`, but
    `depth` and `target` are z-depth in metres.
    """
    rays = working(plane_BHW2).permute(0, 3, 1, 2)
    known = mask & torch.isfinite(rays).all(dim=1, keepdim=True)
    # The border has no normal. Where a value is not to be used, another one keeps the arithmetic finite.
    rays = torch.where(known, rays, 0.0)
    rays = torch.cat([rays, torch.ones_like(rays[:, :1])], dim=1)
    depth, target = (torch.where(known, working(x), 1.0) * rays for x in (depth, target))
    return point_normal_angle(depth, target, known)


def point_normal_angle(points: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """`normal_angle` of points (B, 3, H, W); scale and shift of either do not matter, where all lie before the camera.

    The true points tell where there is a surface.
    """
    points, target = (torch.where(mask, working(x), 1.0) for x in (points, target))
    counts = _surface(target[:, 2:], mask)
    return masked_mean(_angle(_normals(points, counts), _normals(target, counts)), counts)


def edge_angle(points: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean angle in radians between the way from a point to its right and lower neighbours, predicted and true.

    MoGe's edge loss: unlike normals it also sees the steps at the edges of objects. Scale and shift of either do not
    matter. Points are (B, 3, H, W); a pair counts where both pixels are supervised and both ways have a length.
    """
    points, target = (torch.where(mask, working(x), 0.0) for x in (points, target))
    total, number = points.new_zeros(len(points)), points.new_zeros(len(points))
    for dim in (-2, -1):
        ways = [x.diff(dim=dim) for x in (points, target)]
        lengths = [_length(way) for way in ways]
        both = mask.narrow(dim, 1, mask.shape[dim] - 1) & mask.narrow(dim, 0, mask.shape[dim] - 1)
        counts = both & (lengths[0] > 0) & (lengths[1] > 0)
        a, b = (torch.where(counts, w / torch.where(counts, n, 1.0), 0.0) for w, n in zip(ways, lengths, strict=True))
        total = total + torch.where(counts, _angle(a, b), 0.0).sum(dim=(1, 2, 3))
        number = number + counts.sum(dim=(1, 2, 3))
    return total / number.clamp_min(1)


def _angle(n: Tensor, m: Tensor) -> Tensor:
    return 2 * torch.atan2(_length(n - m), _length(n + m))


def _surface(depth: Tensor, known: Tensor) -> Tensor:
    """bool (B, 1, H - 2, W - 2): pixels on a surface that continues to their four neighbours."""
    centre, *others = _cross(depth)
    smooth = torch.stack([(other - centre).abs() <= _EDGE * centre for other in others]).all(dim=0)
    return smooth & torch.stack(_cross(known)).all(dim=0)


def _cross(value: Tensor) -> list[Tensor]:
    """Centre, left, right, upper and lower neighbour of every inner pixel."""
    inner = value[..., 1:-1, 1:-1]
    return [inner, value[..., 1:-1, :-2], value[..., 1:-1, 2:], value[..., :-2, 1:-1], value[..., 2:, 1:-1]]


def _normals(points_B3HW: Tensor, counts: Tensor) -> Tensor:
    """Unit normals (B, 3, H - 2, W - 2) of the pixels that count; (0, 0, 1) elsewhere and where there is none."""
    centre, left, right, up, down = _cross(points_B3HW)
    # In units of the pixel's own depth: products of tiny differences would underflow.
    unit = centre[:, 2:].detach().abs().clamp_min(torch.finfo(centre.dtype).tiny)
    normal = torch.linalg.cross((down - up) / unit, (right - left) / unit, dim=1)
    axis = torch.zeros_like(normal)
    axis[:, 2] = 1
    length = _length(normal)
    counts = counts & (length > 0)
    return torch.where(counts, normal / torch.where(counts, length, 1.0), axis)


def _length(vector: Tensor) -> Tensor:
    """Length (B, 1, H, W) over the channels; its gradient at 0 is 0."""
    return torch.linalg.vector_norm(vector, dim=1, keepdim=True)
