"""Streets and open country: buildings, cars, poles, wires, trees, fences, rocks and grass under the sky."""

from __future__ import annotations

import numpy as np
import torch

from metricanything.sources.procedural import terrain
from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.furniture import Mask
from metricanything.sources.procedural.layout import Layout, daylight
from metricanything.sources.procedural.parts import Parts, assorted, material, random_rotation, vec
from metricanything.sources.procedural.shapes import BOX, ELLIPSOID, PLANE


def trees(parts: Parts, draw: Draws, base: Floats, valid: Mask, crowns: int = 6) -> None:
    """Trees at `base` (B, n, 3): a trunk, branches, a crown of leafy balls; the slim ones are conifers."""
    n = base.shape[1]
    tall, r = draw(3, 11, n), draw(0.06, 0.25, n)
    bark = material(draw, "bark", n, period=(0.5, 1.5))
    trunk = base + vec(draw(-0.3, 0.3, n), draw(-0.3, 0.3, n), 0.7 * tall)
    parts.rod(base - vec(0, 0, 0.5), trunk, r, bark, valid)
    conifer = draw.chance(0.3, n)[..., None]
    level = (np.arange(crowns) + 0.5) / crowns
    spread = np.where(conifer, 0.03, 0.18) * tall[..., None]
    place = vec(draw(-1, 1, n, crowns) * spread, draw(-1, 1, n, crowns) * spread,
                (0.35 + 0.65 * np.where(conifer, level, draw(0.2, 1, n, crowns))) * tall[..., None])  # fmt: skip
    size = tall[..., None] * np.where(conifer, 0.22 * (1.15 - level), draw(0.1, 0.22, n, crowns))
    half = size[..., None] * np.where(conifer[..., None], [1, 1, 0.6], [1, 1, 0.8])
    leaves = material(draw, "leaf", n, 1, period=(0.8, 2.5))
    bare = draw.chance(0.15, n)[..., None]
    parts.add(ELLIPSOID, base[:, :, None] + place, half, leaves, valid=valid[..., None] & ~bare)
    start = base[:, :, None] + (trunk - base)[:, :, None] * draw(0.4, 1.0, n, crowns)[..., None]
    parts.rod(start, base[:, :, None] + place * [1.5, 1.5, 1.2], 0.25 * r[..., None], bark[:, :, None],
              valid[..., None])  # fmt: skip


def cars(parts: Parts, draw: Draws, base: Floats, yaw: Floats, valid: Mask) -> None:
    """Cars and vans at `base` (B, n, 3): body, cabin with dark glass, four wheels."""
    n = base.shape[1]
    length, w = draw(1.8, 2.4, n), draw(0.8, 0.95, n)
    van = draw.chance(0.2, n)
    paint, glass = material(draw, "car", n, 1), material(draw, "dark", n, 1)
    paint[..., -3], glass[..., -3] = 0.5, 0.5
    ok = valid[..., None]
    parts.group(
        BOX, base, yaw, vec(0, 0, np.full_like(w, 0.6))[:, :, None], vec(length, w, 0.32)[:, :, None], paint, ok
    )
    high = np.where(van, 0.6, 0.28)
    cabin = vec(np.where(van, -0.1, -0.15) * length, 0, 0.92 + high)[:, :, None]
    cabin_half = vec(np.where(van, 0.88, 0.55) * length, w - 0.08, high)[:, :, None]
    parts.group(BOX, base, yaw, cabin, cabin_half * [0.97, 0.97, 0.8], glass, ok)
    parts.group(BOX, base, yaw, cabin + cabin_half * [0, 0, 0.9], cabin_half * [0.9, 1, 0.15], paint, ok)
    corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)
    centre = base[:, :, None] + _turn_xy(corner * np.stack([0.62 * length, w], -1)[:, :, None], yaw) + vec(0, 0, 0.33)
    across = _turn_xy(np.broadcast_to([0.0, 0.1], (len(draw), n, 4, 2)), yaw)
    parts.rod(centre - across, centre + across, 0.33, glass, ok)


def _turn_xy(xy: Floats, yaw: Floats) -> Floats:
    c, s = np.cos(yaw)[..., None], np.sin(yaw)[..., None]
    return vec(c * xy[..., 0] - s * xy[..., 1], s * xy[..., 0] + c * xy[..., 1], 0)


def people(parts: Parts, draw: Draws, base: Floats, valid: Mask) -> None:
    """Standing figures at `base` (B, n, 3): head, torso, two arms, two legs."""
    n = base.shape[1]
    tall, turn = draw(1.5, 1.95, n), draw(0, 2 * np.pi, n)
    across = vec(np.cos(turn), np.sin(turn), 0)
    step = vec(-np.sin(turn), np.cos(turn), 0) * draw(-0.25, 0.25, n)[..., None]
    up = vec(0, 0, tall)
    shirt, trousers = material(draw, "fabric", n, period=(0.2, 0.6)), material(draw, "fabric", n, period=(0.2, 0.6))
    skin = material(draw, "bark", n, period=(0.3, 1))
    parts.add(ELLIPSOID, base + 0.93 * up, vec(0.1, 0.1, 0.13 + 0 * tall), skin, valid=valid)
    parts.add(ELLIPSOID, base + 0.65 * up, vec(0.2, 0.2, 0.19 * tall), shirt, valid=valid)
    for sign in (-1, 1):
        side = sign * across
        parts.rod(base + 0.09 * side + sign * step, base + 0.52 * up + 0.08 * side, 0.075, trousers, valid)
        parts.rod(base + 0.42 * up + 0.3 * side - sign * step, base + 0.8 * up + 0.2 * side, 0.05, shirt, valid)


def _street_furniture(parts: Parts, draw: Draws, kerb: Floats, side: Floats) -> None:
    """Poles with wires and lamps, signs, fences and bollards along both kerbs at x = side * kerb (B, n)."""
    b, n = side.shape
    y = np.arange(n) // 2 * draw(14, 26)[:, None] + draw(2, 12)[:, None]
    x = side * (kerb[:, None] + 0.6)
    foot, tall = vec(x, y, 0), draw(5, 9)[:, None] * np.ones((b, n))
    metal, exists = material(draw, "metal", 1), draw.chance(0.8)[:, None]
    top = foot + vec(0, 0, tall)
    parts.rod(foot, top, draw(0.05, 0.14, 1), metal, exists)
    parts.rod(top, top - vec(side * 1.6, 0, 0), 0.035, metal, exists)
    parts.add(BOX, top - vec(side * 1.6, 0, 0.03), [0.3, 0.12, 0.06], metal, valid=exists)
    wires = exists & draw.chance(0.5)[:, None]
    for height in (0.3, 0.7):
        parts.rod(top[:, :-2] - [0, 0, height], top[:, 2:] - [0, 0, height], 0.012, material(draw, "dark", 1), wires)
    m = 6
    sign_foot = vec(draw.pick((-1, 1), m) * (kerb[:, None] + draw(0.3, 1.2, m)), draw(3, 45, m), 0)
    some, high, disc = draw.chance(0.6, m), draw(1.8, 2.8, m), draw.chance(0.5, m)
    parts.rod(sign_foot, sign_foot + vec(0, 0, high), 0.03, metal, some)
    plate = sign_foot + vec(0, -0.05, high)
    parts.add(BOX, plate, vec(draw(0.2, 0.5, m), 0.01, draw(0.2, 0.4, m)), material(draw, "print", m, period=(0.6, 1)),
              valid=some & disc)  # fmt: skip
    parts.rod(plate, plate - [0, 0.02, 0], 0.33, material(draw, "print", m, period=(0.6, 1)), some & ~disc)
    fence(parts, draw, (kerb + draw(0.3, 3)) * draw.pick((-1, 1)), draw(2, 12), draw.chance(0.5))


def fence(
    parts: Parts, draw: Draws, x: Floats, y: Floats, valid: Mask, posts: int = 12, z: Floats | float = 0.0
) -> None:
    """A fence along y from (x, y) (B,): thin posts and two or three rails or wires."""
    gap, tall = draw(1, 2.5)[:, None], draw(0.8, 1.6)[:, None]
    foot = vec(x[:, None], y[:, None] + gap * np.arange(posts), np.asarray(z)[..., None] if np.ndim(z) else z)
    look = material(draw, "any", 1)
    parts.rod(foot - [0, 0, 0.5], foot + vec(0, 0, tall), draw(0.02, 0.06, 1), look, valid[:, None])
    for height in (0.4, 0.7, 0.95):
        rail = foot[:, [0, -1]] + vec(0, 0, height * tall)
        parts.rod(rail[:, :1], rail[:, 1:], draw.log(0.004, 0.03, 1), look, valid[:, None] & draw.chance(0.8, 1))


def street(draw: Draws) -> Layout:
    """Streets between facades, seen by a car, a robot or someone on the pavement."""
    b = len(draw)
    parts = Parts(b)
    kerb, pavement = draw(3, 9), draw(1.5, 5)
    parts.add(PLANE, vec(np.zeros((b, 1)), 0, 0), 1, material(draw, "asphalt", 1, period=(2, 6)), structure=True)
    dash = vec(0, np.arange(8) * 6.0 + draw(-6, 0)[:, None], 0.003)
    parts.add(BOX, dash, [0.07, 1.2, 0.003], material(draw, "white", 1), valid=draw.chance(0.6)[:, None])
    for sign in (-1, 1):
        low, high = sign * kerb, sign * (kerb + pavement + 60)
        parts.box(vec(np.minimum(low, high), -40, -0.2), vec(np.maximum(low, high), 200, draw(0.06, 0.18)),
                  material(draw, "paving", period=(1, 3)))  # fmt: skip
        n = 7
        front = draw(7, 18, n)
        y = front.cumsum(-1) - draw(10, 25)[:, None]
        depth, tall = draw(4, 9, n), draw(2.5, 12, n)
        back = draw(0, 1, n) ** 3 * 8
        centre = vec(sign * (kerb[:, None] + pavement[:, None] + back + depth), y, tall)
        half = vec(depth, front / 2 * draw(0.8, 1.0, n), tall)
        exists = draw.chance(0.8, n)
        parts.add(BOX, centre, half, material(draw, "facade", n, period=(4, 10)), valid=exists)
        ledge = centre + vec(0, 0, tall * draw.pick((0, 1), n))
        parts.add(BOX, ledge, half * [1, 1, 0] + [0.35, 0.1, 0.12], material(draw, "paint", n), valid=exists)
        balcony = centre - vec(sign * depth, 0, draw(0.1, 0.5, n) * tall)
        parts.add(
            BOX, balcony, vec(0.9, draw(0.8, 2, n), 0.45), material(draw, "any", n), valid=exists & draw.chance(0.4, n)
        )
    far = vec(draw(-90, 90, 6), draw(70, 170, 6), 0)
    parts.add(BOX, far, draw(6, 30, 6, 3), material(draw, "facade", 6, period=(8, 14)), valid=draw.chance(0.6, 6))
    side = np.tile([-1.0, 1.0], 4)[None] * np.ones((b, 1))
    _street_furniture(parts, draw, kerb, side)
    place = vec(
        side * (kerb - draw(1.1, 1.6))[:, None], np.arange(8) // 2 * 7 + draw(2, 12)[:, None] + draw(-0.7, 0.7, 8), 0
    )
    cars(parts, draw, place, np.pi / 2 + 0.05 * draw(-1, 1, 8), draw.chance(0.5, 8))
    moving = vec(draw(-0.5, 0.5, 2) * kerb[:, None], draw(8, 50, 2), 0)
    cars(parts, draw, moving, np.pi / 2 + draw(-0.3, 0.3, 2), draw.chance(0.6, 2))
    trees(parts, draw, vec(side * (kerb + 1)[:, None], np.arange(8) // 2 * 9 + draw(3, 20, 8), 0), draw.chance(0.35, 8))
    people(parts, draw, vec(draw(-1.2, 1.2, 5) * kerb[:, None], draw(3, 25, 5), 0.1), draw.chance(0.5, 5))
    bins = vec(draw.pick((-1, 1), 5) * (kerb[:, None] + draw(0.3, 1.5, 5)), draw(2, 25, 5), 0.1)
    assorted(parts, draw, bins, (0.4, 1.2), ("any", "metal"), draw.chance(0.5, 5))
    on_road = draw.chance(0.6)
    tall = np.where(draw.chance(0.6), draw(1.2, 2.2), draw(0.3, 1.2))
    eye = vec(np.where(on_road, 0.5 * kerb, kerb + 1) * draw(-1, 1), draw(-3, 3), tall)
    heading = np.deg2rad(draw(-1, 1) ** 3 * 75)
    target = eye + vec(np.sin(heading), np.cos(heading), np.tan(np.deg2rad(draw(-14, 8))))
    sun, ambient, sky, cloud = daylight(draw)
    return Layout(parts, eye, target, np.stack([sun, 0 * sun], 1), ambient, sky, cloud, draw(0, 1) ** 3 * 0.01)


def _field(draw: Draws) -> torch.Tensor:
    """Heights (B, G, G): waves of random lattices at the grid's nodes, higher towards the horizon in some scenes."""
    b = len(draw)
    nodes = terrain.node_coordinates()
    x, y = torch.meshgrid(nodes, nodes, indexing="xy")
    total = torch.zeros(b, terrain.NODES, terrain.NODES)
    rough, hill = draw(0.35, 0.65), draw.log(0.6, 9)
    for octave, wave in enumerate((80.0, 40.0, 20.0, 10.0, 5.0, 2.5)):
        cells = round(2 * terrain.EXTENT / wave) + 4
        lattice = torch.from_numpy(draw(-1, 1, 1, cells, cells)).float()
        grid = (torch.stack([x, y], -1) / wave / (cells - 1) * 2)[None].expand(b, -1, -1, -1)
        layer = torch.nn.functional.grid_sample(lattice, grid, "bicubic", "reflection", align_corners=True)[:, 0]
        total += layer * torch.from_numpy(hill * rough**octave).float()[:, None, None]
    rise = torch.from_numpy(draw(0, 1) ** 2 * 45).float()[:, None, None]
    return total + rise * ((x.hypot(y) - 50) / 110).clamp(0, 1.5) ** 2


def country(draw: Draws) -> Layout:
    """Open country on a height field: trees, rocks, grass, fences, a house, hills on the horizon."""
    b = len(draw)
    field = _field(draw)

    def ground(xy: Floats) -> Floats:
        """Places (B, n, 3) on the surface."""
        flat = torch.from_numpy(xy.reshape(-1, 2)).float()
        scene = torch.arange(b).repeat_interleave(xy.shape[1])
        z = terrain.heights(field, scene, flat[:, 0], flat[:, 1]).numpy().reshape(xy.shape[:-1])
        return np.concatenate([xy, z[..., None]], -1)

    def around(n: int, low: float, high: float, cone: float = 1.0) -> Floats:
        distance, angle = draw.log(low, high, n), draw(-cone, cone, n)
        return ground(np.stack([distance * np.sin(angle), distance * np.cos(angle)], -1))

    parts = Parts(b)
    trees(parts, draw, around(12, 4, 110), draw.chance(0.7, 12))
    n = 16
    rocks = around(n, 1.5, 40)
    half = draw.log(0.08, 0.9, n, 1) * draw(0.5, 1, n, 3)
    turn, boulder = random_rotation(draw, n), draw.chance(0.6, n)
    stone = material(draw, "stone", n, period=(0.5, 2))
    parts.add(ELLIPSOID, rocks, half, stone, turn, boulder & draw.chance(0.7, n))
    parts.add(BOX, rocks, half, stone, turn, ~boulder & draw.chance(0.5, n))
    blades = around(40, 0.7, 6, 0.9)
    parts.rod(blades, blades + draw(-1, 1, 40, 3) * [0.15, 0.15, 0.1] + vec(0, 0, draw(0.15, 0.6, 40)),
              draw(0.003, 0.008, 40), material(draw, "leaf", 1), draw.chance(0.5)[:, None])  # fmt: skip
    bushes = around(8, 2, 50)
    size = draw(0.25, 1.2, 8)
    parts.add(ELLIPSOID, bushes, vec(size, size, 0.8 * size), material(draw, "leaf", 8, period=(0.4, 1.2)),
              valid=draw.chance(0.6, 8))  # fmt: skip
    start = ground(np.stack([draw(-9, 9, 1), draw(3, 8, 1)], -1))[:, 0]
    fence(parts, draw, start[:, 0], start[:, 1], draw.chance(0.5), z=start[:, 2])
    house, wide = around(2, 15, 90, 0.7), draw(2.5, 7, 2, 3)
    parts.add(BOX, house, wide, material(draw, "facade", 2, period=(3, 6)), valid=draw.chance(0.5, 2))
    people(parts, draw, around(3, 3, 25, 0.6), draw.chance(0.4, 3))
    pole = around(2, 5, 40, 0.6)
    parts.rod(
        pole, pole + vec(0, 0, draw(3, 9, 2)), draw(0.04, 0.12, 2), material(draw, "bark", 2), draw.chance(0.5, 2)
    )
    eye = ground(np.zeros((b, 1, 2)))[:, 0] + vec(0, 0, np.where(draw.chance(0.3), draw(0.3, 0.8), draw(1, 2.2)))
    target = eye + vec(draw(-0.4, 0.4), 1, np.tan(np.deg2rad(draw(-16, 8))))
    sun, ambient, sky, cloud = daylight(draw)
    return Layout(parts, eye, target, np.stack([sun, 0 * sun], 1), ambient, sky, cloud, draw(0, 1) ** 3 * 0.01,
                  field.numpy().astype(np.float64), material(draw, "ground", period=(1.5, 5)))  # fmt: skip
