"""Rays against primitives in their own coordinates: where they meet, the normal there, the texture coordinates.

Box: |x|, |y|, |z| <= 1. Ellipsoid: the unit ball. Cylinder: radius 1 about z, |z| <= 1, with caps. Plane: z = 0.
An affine map per primitive turns these into oriented solids of any size; the ray parameter stays in metres.
Letters: R pairs of (tile, primitive), P pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

BOX, ELLIPSOID, CYLINDER, PLANE = 0, 1, 2, 3
KINDS = (BOX, ELLIPSOID, CYLINDER, PLANE)
_TINY = 1e-9


def nonzero(x: Tensor) -> Tensor:
    """`x` kept away from zero, so that quotients stay finite (a ray parallel to a face)."""
    return torch.where(x.abs() < _TINY, _TINY, x)


def _slab(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    inverse = nonzero(d).reciprocal()
    middle, half = -o * inverse, inverse.abs()
    return middle - half, middle + half


def _round(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Entry and exit of the unit ball or circle over axis 1; the discriminant is taken from the perpendicular.

    The usual b^2 - 4ac cancels in float32 for far, thin things (Haines et al., Ray Tracing Gems, chapter 7).
    """
    a = d.square().sum(1).clamp_min(_TINY * _TINY)
    middle = -(o * d).sum(1) / a
    root = (1 - (o + middle[:, None] * d).square().sum(1)) / a
    half = root.sqrt()  # NaN, hence no hit, where the ray misses
    return middle - half, middle + half


def interval(kind: int, o_R31: Tensor, d_R3P: Tensor) -> tuple[Tensor, Tensor]:
    """Ray parameters (R, P) at which rays o + t d enter and leave a primitive; entry > exit or NaN: no meeting."""
    if kind == BOX:
        near, far = _slab(o_R31, d_R3P)
        return near.amax(1), far.amin(1)
    if kind == ELLIPSOID:
        return _round(o_R31, d_R3P)
    if kind == CYLINDER:
        near, far = _round(o_R31[:, :2], d_R3P[:, :2])
        low, high = _slab(o_R31[:, 2], d_R3P[:, 2])
        return torch.maximum(near, low), torch.minimum(far, high)
    t = -o_R31[:, 2] / nonzero(d_R3P[:, 2])
    return t, t


def first_hit(kind: int, o_R31: Tensor, d_R3P: Tensor, start: float = 0.0) -> Tensor:
    """Ray parameter (R, P) of the first meeting beyond `start`, +inf where there is none."""
    near, far = interval(kind, o_R31, d_R3P)
    t = torch.where(near > start, near, far)
    return torch.where((near <= far) & (t > start), t, torch.inf)


def surface(kind_P: Tensor, local_P3: Tensor, half_P3: Tensor) -> tuple[Tensor, Tensor]:
    """Outward normals (P, 3) in a primitive's own frame (not normalised) and texture coordinates (P, 2) in metres.

    `local`: points in the primitive's coordinates; `half`: its half extents in metres.
    """
    box, ball, tube = kind_P == BOX, kind_P == ELLIPSOID, kind_P == CYLINDER
    absolute = local_P3.abs()
    radial = local_P3[:, :2].norm(dim=1)
    cap = tube & (absolute[:, 2] > radial)
    axis = absolute.argmax(1)
    axis = torch.where(cap | (kind_P == PLANE), 2, axis)
    flat = torch.nn.functional.one_hot(axis, 3).to(local_P3.dtype)
    normal = flat * torch.where(local_P3 < 0, -1.0, 1.0)
    normal = torch.where((kind_P == PLANE)[:, None], flat, normal)
    side = torch.cat([local_P3[:, :2], torch.zeros_like(local_P3[:, :1])], 1)
    curved = (tube & ~cap) | ball
    normal = torch.where(curved[:, None], torch.where(ball[:, None], local_P3, side), normal)
    metres = local_P3 * half_P3
    u = torch.where((axis == 0) & box, metres[:, 1], metres[:, 0])
    v = torch.where((axis == 2) | ~box, metres[:, 1], metres[:, 2])
    around = torch.atan2(local_P3[:, 1], local_P3[:, 0]) * half_P3[:, 0]
    u, v = torch.where(curved, around, u), torch.where(curved, metres[:, 2], v)
    return normal, torch.stack([u, v], 1)
