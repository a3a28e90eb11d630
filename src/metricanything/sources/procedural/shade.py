"""Colours of the hit points: textured albedo, lamps and sun with hard shadows, sky, haze, and the film.

Letters: B scenes, T tiles, P pixels of a tile, K = B * T * P pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from metricanything.sources.procedural import shapes, terrain, trace
from metricanything.sources.procedural.parts import MATERIAL
from metricanything.sources.procedural.scene import Scenes
from metricanything.sources.procedural.texture import FAMILIES, PROCEDURAL, Bank

_COLUMN = {name: i for i, name in enumerate(MATERIAL)}
_PHOTO_SHARE = 0.5  # of the surfaces, where photographs are given
_NOISE_SIZE = 256


@dataclass(frozen=True)
class Hits:
    """First surfaces along the rays: `distance` (B, T, P), +inf for sky; `owner` (B, T, P): index into B * N solids, -1
    for none or a height field; `ground` (G,): flat indices of pixels that see a height field; `field` (G,): its number.
    """

    distance: Tensor
    owner: Tensor
    ground: Tensor
    field: Tensor


def find_hits(rays_BT3P: Tensor, scenes: Scenes, chunk: int, far: float) -> Hits:
    """Nearest solid or height field along every ray, within `far` metres."""
    distance, owner = trace.nearest(rays_BT3P, scenes.prims, chunk)
    b, t, _, p = rays_BT3P.shape
    none = owner.new_zeros(0)
    hits = Hits(torch.where(distance < far, distance, torch.inf), owner, none, none)
    if not len(scenes.terrain):
        return hits
    pixel = torch.arange(b * t * p, device=owner.device).view(b, -1)[scenes.terrain]
    field = torch.arange(len(scenes.terrain), device=owner.device)[:, None].expand_as(pixel).reshape(-1)
    pixel = pixel.reshape(-1)
    rays = rays_BT3P.transpose(2, 3).reshape(-1, 3)[pixel]
    limit = hits.distance.reshape(-1)[pixel].clamp_max(far)
    found = terrain.march(scenes.field, field, torch.zeros_like(rays), rays, limit)
    seen = found.isfinite().nonzero()[:, 0]
    hits.distance.view(-1)[pixel[seen]] = found[seen]
    hits.owner.view(-1)[pixel[seen]] = -1
    return Hits(hits.distance, hits.owner, pixel[seen], field[seen])


def _surfaces(rays_K3: Tensor, hits: Hits, scenes: Scenes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, normals towards the viewer (K, 3), texture coordinates (K, 2) in metres and materials (K, M)."""
    distance = hits.distance.reshape(-1)
    points = rays_K3 * torch.where(distance.isfinite(), distance, 0.0)[:, None]
    owner = hits.owner.reshape(-1).clamp_min(0)
    prims = scenes.prims
    matrix = prims.object_from_world.reshape(-1, 3, 4).index_select(0, owner)
    local = (matrix[:, :, :3] @ points[:, :, None])[:, :, 0] + matrix[:, :, 3]
    half = prims.half.reshape(-1, 3).index_select(0, owner)
    normal, uv = shapes.surface(prims.kind.reshape(-1)[owner], local, half)
    normal = (normal[:, None] @ matrix[:, :, :3])[:, 0]
    normal = torch.nn.functional.normalize(normal, dim=-1)
    material = scenes.material.reshape(-1, len(MATERIAL)).index_select(0, owner)
    if len(hits.ground):
        at = points[hits.ground]
        normal[hits.ground] = terrain.normals(scenes.field, hits.field, at)
        uv[hits.ground] = at[:, :2]
        material[hits.ground] = scenes.ground[hits.field]
    facing = (normal * rays_K3).sum(-1, keepdim=True)
    return points, torch.where(facing > 0, -normal, normal), uv, material


def _albedo(material: Tensor, uv: Tensor, footprint_K: Tensor, bank: Bank) -> Tensor:
    """Reflectance (K, 3) from the material's colours and textures, or from a photograph."""

    def column(name: str) -> Tensor:
        return material[:, _COLUMN[name]]

    c, s = column("turn").cos(), column("turn").sin()
    u, v = uv.unbind(-1)
    period = column("period")
    x, y = (c * u - s * v) / period + column("u"), (s * u + c * v) / period + column("v")
    pattern, photo = column("pattern"), torch.zeros_like(x, dtype=torch.bool)
    if bank.photos:
        photo = column("photo") < _PHOTO_SHARE
        number = PROCEDURAL + (column("photo") / _PHOTO_SHARE * bank.photos).floor()
        pattern = torch.where(photo, number, pattern)
    texel = bank.sample(pattern, x, y, footprint_K / period)
    coarse = bank.sample(column("blotches"), y * 0.19, x * 0.19, footprint_K / period * 0.19)
    first, second = material[:, _COLUMN["r0"] : _COLUMN["b0"] + 1], material[:, _COLUMN["r1"] : _COLUMN["b1"] + 1]
    albedo = torch.lerp(first, second, (texel[:, :1] * column("mix")[:, None])) * texel[:, 1:2]
    albedo = torch.where(photo[:, None], texel, albedo)
    return albedo * (1 + column("blotch") * (coarse[:, 0] + coarse[:, 2] - 1))[:, None]


def _sky(rays_BT3P: Tensor, scenes: Scenes, bank: Bank) -> Tensor:
    """Radiance (B, T, P, 3): a gradient, clouds as noise on a plane overhead, the glow around the sun."""
    rays = rays_BT3P.transpose(2, 3)
    up = rays[..., 2]
    horizon, zenith = scenes.sky[:, 0, None, None], scenes.sky[:, 1, None, None]
    colour = torch.lerp(horizon, zenith, up.clamp(0, 1).sqrt()[..., None])
    plane = rays[..., :2] / (up.clamp_min(0) + 0.12)[..., None] * 0.23 + scenes.film[:, 8, None, None, None] * 0.37
    flat = plane.reshape(-1, 2)
    picked = (scenes.film[:, 8].long() % len(FAMILIES["plain"]))[:, None, None].expand(up.shape).reshape(-1)
    cloud = bank.sample(picked, flat[:, 0], flat[:, 1], torch.full_like(flat[:, 0], 1 / 256))[:, 2].view(up.shape)
    cover = ((cloud - 1 + scenes.cloud[:, None, None]) * 4).clamp(0, 0.9) * (up * 6).clamp(0, 1)
    colour = torch.lerp(colour, (horizon + 0.25).expand_as(colour), cover[..., None])
    sun = scenes.lights[:, :1].clone()
    sun = torch.where(scenes.lights[:, :1, 3:4] > 0.5, sun, scenes.lights[:, 1:2])[:, 0]
    near = (rays * sun[:, None, None, :3]).sum(-1).clamp(0, 1) * (sun[:, 3] > 0.5)[:, None, None]
    glow = 0.5 * near**40 + 4 * (near > 0.9994)
    return colour + (1 - cover)[..., None] * glow[..., None] * sun[:, None, None, 4:] * 0.4


def radiance(
    rays_BT3P: Tensor, hits: Hits, scenes: Scenes, bank: Bank, pixel_B: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Linear light (B, T, P, 3) towards the camera and normals (B, T, P, 3) in world axes, NaN for the sky.

    `pixel`: angle of a pixel in radians, for the filtering of textures.
    """
    b, t, _, p = rays_BT3P.shape
    rays = rays_BT3P.transpose(2, 3).reshape(-1, 3)
    points, normal, uv, material = _surfaces(rays, hits, scenes)
    seen = hits.distance.isfinite()
    facing = -(normal * rays).sum(-1)
    reach = torch.where(seen, hits.distance, 1.0)
    footprint = (reach * pixel_B[:, None, None]).reshape(-1) / facing.clamp_min(0.25)
    albedo = _albedo(material, uv, footprint, bank).view(b, t, p, 3)
    normal_BTP3, points_BTP3 = normal.view(b, t, p, 3), points.view(b, t, p, 3)
    sky_side = 0.5 + 0.5 * normal_BTP3[..., 2:]
    ambient = torch.lerp(scenes.ambient[:, 1, None, None], scenes.ambient[:, 0, None, None], sky_side)
    light = ambient * (0.7 + 0.3 * facing.view(b, t, p, 1))  # a headlight's share keeps flat shadows readable
    shine = torch.zeros_like(light)
    lifted = (points_BTP3 + normal_BTP3 * (2e-3 + 3e-4 * reach)[..., None]).transpose(2, 3)
    gloss = material[:, _COLUMN["gloss"]].view(b, t, p)
    for number in range(scenes.lights.shape[1]):
        lamp = scenes.lights[:, number]
        ray, length = trace.light_rays(lifted, lamp[:, :4])
        direction = (ray / length[:, :, None]).transpose(2, 3)
        cosine = (normal_BTP3 * direction).sum(-1)
        wanted = seen & (cosine > 0) & (lamp[:, 4:].amax(-1) > 0)[:, None, None]
        clear = trace.lit(lifted, hits.owner, wanted, lamp[:, :4], scenes.prims, chunk)
        clear = _unhidden(clear, lifted, direction, scenes)
        falloff = torch.where(lamp[:, 3, None, None] > 0.5, 1.0, 1 / (0.3 + length.square()))
        strength = (clear * falloff)[..., None] * lamp[:, None, None, 4:]
        light = light + cosine.clamp_min(0)[..., None] * strength
        middle = torch.nn.functional.normalize(direction - rays.view(b, t, p, 3), dim=-1)
        shine = shine + (gloss * (normal_BTP3 * middle).sum(-1).clamp_min(0) ** 40)[..., None] * strength
    glow = material[:, _COLUMN["glow"]].view(b, t, p, 1)
    colour = albedo * (light + 4 * glow) + shine
    sky = _sky(rays_BT3P, scenes, bank)
    air = torch.exp(-reach * scenes.haze[:, None, None])[..., None]
    colour = torch.where(seen[..., None], torch.lerp(scenes.sky[:, 0, None, None].expand_as(colour), colour, air), sky)
    return colour, torch.where(seen[..., None], normal_BTP3, torch.nan)


def _unhidden(clear_BTP: Tensor, points_BT3P: Tensor, direction_BTP3: Tensor, scenes: Scenes) -> Tensor:
    """`clear` without the points that lie in the shadow of a height field."""
    if not len(scenes.terrain):
        return clear_BTP
    chosen = clear_BTP[scenes.terrain]
    number, tile, pixel = chosen.nonzero(as_tuple=True)
    scene = scenes.terrain[number]
    start = points_BT3P[scene, tile, :, pixel] + torch.tensor([0.0, 0.0, 0.05], device=clear_BTP.device)
    ray = direction_BTP3[scene, tile, pixel]
    blocked = terrain.march(scenes.field, number, start, ray, torch.full_like(ray[:, 0], 60.0), 0.15).isfinite()
    clear_BTP = clear_BTP.clone()
    clear_BTP[scene, tile, pixel] = ~blocked
    return clear_BTP


@cache
def _noise() -> Tensor:
    """Fixed Gaussian numbers (size, size, 3), drawn on the CPU whatever the device."""
    return torch.randn(_NOISE_SIZE, _NOISE_SIZE, 3, generator=torch.Generator().manual_seed(0))


def develop(linear_BHW3: Tensor, film_B9: Tensor) -> Tensor:
    """uint8 sRGB (B, H, W, 3): exposure to the image's mean, white balance, vignetting, blur, noise, tone curve."""
    _, h, w, _ = linear_BHW3.shape
    exposure, contrast, blur = film_B9[:, 0], film_B9[:, 6], film_B9[:, 7]
    brightness = linear_BHW3.mean(-1).clamp(1e-4, 4)
    key = brightness.log().mean((1, 2)).exp() * 0.5 + brightness.mean((1, 2)) * 0.5
    gain = (0.3 * exposure / key)[:, None] * film_B9[:, 1:4]
    x = torch.linspace(-1, 1, w, device=linear_BHW3.device)
    y = torch.linspace(-1, 1, h, device=linear_BHW3.device)
    vignette = 1 - film_B9[:, 4, None, None] * (y[:, None].square() + x.square())[None]
    light = linear_BHW3.clamp_max(20) * gain[:, None, None] * vignette[..., None]
    k = blur[:, None, None, None]
    for dim in (1, 2):
        ends = light.narrow(dim, 0, 1), light.narrow(dim, light.shape[dim] - 1, 1)
        wide = torch.cat([ends[0], light, ends[1]], dim)
        size = light.shape[dim]
        light = (light + k * (wide.narrow(dim, 0, size) + wide.narrow(dim, 2, size))) / (1 + 2 * k)
    light = light / (1 + 0.25 * light) * 1.25  # a shoulder instead of clipping
    seed = film_B9[:, 8].long()
    rows = (torch.arange(h, device=seed.device) + seed[:, None]) % _NOISE_SIZE
    columns = (torch.arange(w, device=seed.device) + seed[:, None] // _NOISE_SIZE) % _NOISE_SIZE
    grain = _noise().to(seed.device)[rows[:, :, None], columns[:, None]] * film_B9[:, 5, None, None, None]
    light = (light.clamp_min(0) + 1e-6) ** (contrast[:, None, None, None] / 2.2) + grain
    return (light.clamp(0, 1) * 255).round().to(torch.uint8)
