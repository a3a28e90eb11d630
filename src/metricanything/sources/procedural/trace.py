"""Nearest hits and shadows of all pixels of a batch of scenes, by testing tiles of rays against bounding capsules.

Rays are grouped in tiles of 8x8 pixels. For each tile the primitives whose bounding capsule meets the tile's beam
(a cone from the camera, or the swept ball of its surface points towards a light) are listed; only those are
intersected, so that a scene can hold hundreds of primitives.
Letters: B scenes, T tiles of a scene, N primitives of a scene, P pixels of a tile, R pairs (tile, primitive).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.sources.procedural import shapes

TILE = 8
_SLACK = 1e-5  # relative widening of squared distances, well above float32 cancellation in them


@dataclass(frozen=True)
class Primitives:
    """The solids of B scenes, relative to the camera's centre, axes of the world (z up), metres.

    `kind` (B, N) int64, see `shapes`, -1 = no primitive; `object_from_world` (B, N, 3, 4); `half` (B, N, 3) half
    extents; `centre`, `axis` (B, N, 3) and `radius` (B, N): bounding capsule from centre - axis to centre + axis.
    """

    kind: Tensor
    object_from_world: Tensor
    half: Tensor
    centre: Tensor
    axis: Tensor
    radius: Tensor


@dataclass(frozen=True)
class Beam:
    """What a tile's rays sweep: from `origin` along `direction` (B, T, 3) up to `length` (B, T), within `radius` +
    `spread` * distance of that line, for the tiles that are `active` (B, T); `extent` (B, T, 3) are the half sizes of
    the box that `radius` goes around."""

    origin: Tensor
    direction: Tensor
    length: Tensor
    radius: Tensor
    extent: Tensor
    spread: Tensor
    active: Tensor


def to_tiles(x: Tensor) -> Tensor:
    """(B, H, W, C) to (B, T, C, P); H and W must be multiples of the tile."""
    b, h, w, c = x.shape
    x = x.view(b, h // TILE, TILE, w // TILE, TILE, c).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(b, -1, c, TILE * TILE)


def from_tiles(x: Tensor, height: int, width: int) -> Tensor:
    """(B, T, C, P) to (B, H, W, C), the inverse of `to_tiles`."""
    b, _, c, _ = x.shape
    x = x.view(b, height // TILE, width // TILE, c, TILE, TILE).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(b, height, width, c)


def camera_beam(rays_BT3P: Tensor) -> Beam:
    """The cone of each tile's viewing rays; rays of zero length (pixels that see nothing) do not count."""
    total = rays_BT3P.sum(-1)
    active = rays_BT3P.square().sum(2).amax(-1) > 0.5
    axis = torch.nn.functional.normalize(total, dim=-1)
    cosine = (rays_BT3P * axis[..., None]).sum(2)
    cosine = torch.where(rays_BT3P.square().sum(2) > 0.5, cosine, 1.0).amin(-1).clamp(0, 1)
    zero = torch.zeros_like(cosine)
    spread = (1 - cosine.square()).sqrt() + 1e-5
    return Beam(torch.zeros_like(axis), axis, torch.full_like(zero, 1e5), zero, torch.zeros_like(axis), spread, active)


def shadow_beam(points_BT3P: Tensor, wanted_BTP: Tensor, light_B4: Tensor) -> Beam:
    """The ball around each tile's wanted surface points, swept towards the light: see `light_rays` for `light`."""
    small = torch.where(wanted_BTP[:, :, None], points_BT3P, torch.inf).amin(-1)
    big = torch.where(wanted_BTP[:, :, None], points_BT3P, -torch.inf).amax(-1)
    active = wanted_BTP.any(-1)
    centre = torch.where(active[..., None], (big + small) / 2, 0.0)
    extent = torch.where(active[..., None], (big - small) / 2, 0.0) + 1e-3
    radius = extent.norm(dim=-1)
    ray, length = light_rays(centre[..., None], light_B4)
    return Beam(centre, ray[..., 0] / length, length[..., 0], radius, extent, torch.zeros_like(radius), active)


def light_rays(points_BT3P: Tensor, light_B4: Tensor) -> tuple[Tensor, Tensor]:
    """Rays (B, T, 3, P) from points to a light, of its distance's length, and that distance (B, T, 1 or P).

    A light is (x, y, z, w): w = 0 for a lamp at x, y, z in metres from the camera, 1 for the sun
    in the unit direction x, y, z.
    """
    place, sun = light_B4[:, None, :3, None], light_B4[:, None, 3:, None]
    ray = torch.where(sun > 0.5, place * 1e3, place - points_BT3P)
    return ray, ray.norm(dim=2).clamp_min(1e-6)


def candidates(beam: Beam, prims: Primitives) -> tuple[Tensor, Tensor]:
    """Pairs of a tile and a primitive that may meet: flat indices (R,) over B * T and over B * N.

    First the closest points of the beam's line and the capsule's axis (Ericson, Real-Time Collision Detection, 5.1.9)
    for all pairs; then, for those left, the line against the primitive's box grown by the beam's width.
    """
    d, q, a, c = beam.direction, beam.origin, prims.axis, prims.centre
    e = a.square().sum(-1)[:, None]  # B1N
    a_t, c_t = a.transpose(1, 2), c.transpose(1, 2)
    along = (d * q).sum(-1, keepdim=True) - d @ c_t  # d . (q - c)
    f = q @ a_t - (a * c).sum(-1)[:, None]
    r2 = q.square().sum(-1, keepdim=True) - 2 * (q @ c_t) + c.square().sum(-1)[:, None]
    b = d @ a_t
    length = beam.length[..., None]
    t = ((b * f - along * e) / (e - b * b).clamp_min(1e-9)).clamp_min(0).minimum(length)
    s = ((b * t + f) / e.clamp_min(1e-12)).clamp(-1, 1)
    t = (b * s - along).clamp_min(0).minimum(length)
    gap2 = r2 + t * t + s * s * e + 2 * (t * along - s * f - t * s * b)
    centre_distance = r2.clamp_min(0).sqrt()
    extent = e.sqrt() + prims.radius[:, None]
    spread = (centre_distance + extent) * beam.spread[..., None]
    mask = gap2 <= (prims.radius[:, None] + beam.radius[..., None] + spread).square() + _SLACK * (r2 + t * t)
    mask &= (prims.kind >= 0)[:, None] & beam.active[..., None]
    scene, tile, number = mask.nonzero(as_tuple=True)
    tile, primitive = scene * mask.shape[1] + tile, scene * prims.kind.shape[1] + number
    kept = _box_meets(beam, prims, tile, primitive, spread[mask]).nonzero()[:, 0]
    return tile[kept], primitive[kept]


def _box_meets(beam: Beam, prims: Primitives, tile_R: Tensor, primitive_R: Tensor, spread_R: Tensor) -> Tensor:
    """bool (R,): whether the beam's line meets the primitive's oriented box grown by the beam's width there."""
    matrix = prims.object_from_world.reshape(-1, 3, 4)[primitive_R]
    origin, direction = beam.origin.reshape(-1, 3)[tile_R], beam.direction.reshape(-1, 3)[tile_R]
    o = (matrix[:, :, :3] @ origin[:, :, None])[:, :, 0] + matrix[:, :, 3]
    d = shapes.nonzero((matrix[:, :, :3] @ direction[:, :, None])[:, :, 0])
    flat = torch.tensor([1e6, 1e6, 0.0], device=o.device)  # a plane is a box without ends or thickness
    extent = torch.where((prims.kind.reshape(-1)[primitive_R] == shapes.PLANE)[:, None], flat, 1.0)
    grown = (matrix[:, :, :3].abs() @ beam.extent.reshape(-1, 3)[tile_R][:, :, None])[:, :, 0]
    extent = extent * (1 + 1e-4) + grown + spread_R[:, None] / prims.half.reshape(-1, 3)[primitive_R]
    middle, half = -o / d, extent / d.abs()
    near, far = (middle - half).amax(1), (middle + half).amin(1)
    return (near <= far) & (far >= 0) & (near <= beam.length.reshape(-1)[tile_R])


def _chunks(
    tile_R: Tensor, primitive_R: Tensor, prims: Primitives, chunk: int
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield (kind, tile, primitive, map (chunk, 3, 4)) for up to `chunk` pairs of one kind of primitive at a time."""
    kinds = prims.kind.reshape(-1)[primitive_R]
    matrix = prims.object_from_world.reshape(-1, 3, 4)
    for kind in shapes.KINDS:
        of_kind = (kinds == kind).nonzero()[:, 0]
        for start in range(0, len(of_kind), chunk):
            some = of_kind[start : start + chunk]
            yield kind, tile_R[some], primitive_R[some], matrix[primitive_R[some]]


def nearest(rays_BT3P: Tensor, prims: Primitives, chunk: int) -> tuple[Tensor, Tensor]:
    """Distance (B, T, P) along each ray to the first primitive, +inf for none, and its index in B * N, -1 for none.

    Where two primitives lie at the very same distance the one with the higher index is seen. `chunk`: how many pairs
    are intersected at once.
    """
    b, t, _, p = rays_BT3P.shape
    rays = rays_BT3P.reshape(b * t, 3, p)
    distance = rays.new_full((b * t * p,), torch.inf)
    hits = []
    for kind, tile, primitive, m in _chunks(*candidates(camera_beam(rays_BT3P), prims), prims, chunk):
        hit = shapes.first_hit(kind, m[:, :, 3:], m[:, :, :3] @ rays[tile])
        pair, place = hit.isfinite().nonzero(as_tuple=True)
        pixel, found = tile[pair] * p + place, hit[pair, place]
        distance.scatter_reduce_(0, pixel, found, "amin")
        hits.append((pixel, found, primitive[pair]))
    owner = torch.full((b * t * p,), -1, dtype=torch.int64, device=rays.device)
    if hits:
        pixel, found, primitive = (torch.cat(column) for column in zip(*hits, strict=True))
        first = (found == distance[pixel]).nonzero()[:, 0]
        owner.scatter_reduce_(0, pixel[first], primitive[first], "amax")
    return distance.view(b, t, p), owner.view(b, t, p)


def lit(
    points_BT3P: Tensor, owner_BTP: Tensor, wanted_BTP: Tensor, light_B4: Tensor, prims: Primitives, chunk: int
) -> Tensor:
    """bool (B, T, P): which of the wanted surface points, of the primitives `owner`, see the light."""
    b, t, _, p = points_BT3P.shape
    tile, primitive = candidates(shadow_beam(points_BT3P, wanted_BTP, light_B4), prims)
    # A convex solid never shades the points of its own surface that face the light.
    highest = torch.where(wanted_BTP, owner_BTP, -1).amax(-1).reshape(-1)
    lowest = torch.where(wanted_BTP, owner_BTP, prims.kind.numel()).amin(-1).reshape(-1)
    kept = ((primitive != highest[tile]) | (primitive != lowest[tile])).nonzero()[:, 0]
    rays = light_rays(points_BT3P, light_B4)[0].expand(b, t, 3, p).reshape(b * t, 3, p)
    points = points_BT3P.reshape(b * t, 3, p)
    clear = wanted_BTP.reshape(-1).clone()
    for kind, some, _, m in _chunks(tile[kept], primitive[kept], prims, chunk):
        near, far = shapes.interval(kind, m[:, :, :3] @ points[some] + m[:, :, 3:], m[:, :, :3] @ rays[some])
        blocked = (near <= far) & (far > 0) & (torch.where(near > 0, near, far) < 1)
        pair, place = blocked.nonzero(as_tuple=True)
        clear[some[pair] * p + place] = False
    return clear.view(b, t, p)
