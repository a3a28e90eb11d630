"""Rooms: walls with doors and windows, furniture, things on tables, plants, lamps and cables, in real sizes."""

from __future__ import annotations

import numpy as np

from metricanything.sources.procedural import furniture
from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.layout import Layout, daylight, lamplight
from metricanything.sources.procedural.parts import Parts, Valid, assorted, material, random_rotation, vec, yaw_rotation
from metricanything.sources.procedural.shapes import BOX, CYLINDER, ELLIPSOID, PLANE

_CELLS = 3  # furniture stands in different cells of a 3 x 3 grid of the floor


def _wall_box(
    parts: Parts, side: int, size: Floats, low: Floats, high: Floats, look: Floats, valid: Valid = True
) -> None:
    """A box given in a wall's own axes: x along the wall, y out of the room, z up."""
    w, d, _ = size.T

    def world(p: Floats) -> Floats:
        x, y, z = p.T
        return {0: vec(x, -y, z), 1: vec(w + y, x, z), 2: vec(x, d + y, z), 3: vec(-y, x, z)}[side]

    a, b = world(low), world(high)
    parts.box(np.minimum(a, b), np.maximum(a, b), look, valid)


def _wall(parts: Parts, draw: Draws, side: int, size: Floats, paint: Floats, trim: Floats) -> None:
    """One wall, possibly with a door to a corridor or a window, their frames, and a skirting board."""
    h, length = size[:, 2], size[:, side % 2]
    style = draw(0, 1)
    door, window = style < 0.22, (style >= 0.22) & (style < 0.62)
    wide = np.minimum(np.where(door, draw(0.75, 1.1), draw(0.3, 0.7) * length), length - 0.4)
    sill = np.where(door, 0.0, draw(0.3, 1.0))
    top = np.minimum(np.where(door, draw(1.95, 2.15), sill + draw(0.9, 1.6)), h - 0.1)
    start = draw(0.1, 0.9) * (length - wide)
    end, closed = start + wide, ~(door | window)
    zero = np.zeros_like(h)

    def box(x0: Floats, x1: Floats, y0: float, y1: float, z0: Floats, z1: Floats, look: Floats, valid: Valid) -> None:
        _wall_box(parts, side, size, vec(x0, y0, z0), vec(x1, y1, z1), look, valid)

    box(zero - 0.2, np.where(closed, length + 0.2, start), 0, 0.2, zero, h, paint, True)
    box(end, length + 0.2, 0, 0.2, zero, h, paint, ~closed)
    box(start, end, 0, 0.2, top, h, paint, ~closed)
    box(start, end, 0, 0.2, zero, sill, paint, window)
    skirting = draw(0.05, 0.12)
    box(zero, np.where(door, start, length), -0.015, 0, zero, skirting, trim, True)
    box(np.where(door, end, length), length, -0.015, 0, zero, skirting, trim, door)
    for x0, x1 in ((start - 0.03, start + 0.03), (end - 0.03, end + 0.03)):
        box(x0, x1, -0.02, 0.12, sill, top + 0.03, trim, ~closed)
    box(start, end, -0.02, 0.12, top - 0.03, top + 0.03, trim, ~closed)
    box(start - 0.05, end + 0.05, -0.12, 0.12, sill - 0.03, sill, trim, window)
    middle, bar = (start + end) / 2, sill + 0.68 * (top - sill)
    box(middle - 0.025, middle + 0.025, 0.04, 0.08, sill, top, trim, window & (wide > 0.8))
    box(start, end, 0.04, 0.08, bar - 0.015, bar + 0.015, trim, window & draw.chance(0.5))
    depth = draw(1.2, 4)  # the corridor behind a door
    far = np.asarray(depth)
    _wall_box(parts, side, size, vec(start - 1.5, far, 0), vec(end + 1.5, far + 0.1, h), paint, door)
    _wall_box(parts, side, size, vec(start - 1.5, 0.2, -0.1), vec(end + 1.5, far, 0), trim, door)
    _wall_box(parts, side, size, vec(start - 1.5, 0.2, h), vec(end + 1.5, far, h + 0.1), trim, door)
    for x in (start - 1.6, end + 1.5):
        _wall_box(parts, side, size, vec(x, 0.2, 0), vec(x + 0.1, far, h), paint, door)


def _shell(parts: Parts, draw: Draws, size: Floats) -> None:
    """Floor, ceiling, four walls, what hangs on them, and the world outside the windows."""
    w, d, h = size.T
    floor, ceiling = material(draw, "floor", period=(0.8, 2.5)), material(draw, "ceiling", period=(0.6, 2))
    parts.box(vec(-0.2 + 0 * w, -0.2, -0.2), vec(w + 0.2, d + 0.2, 0), floor)
    parts.box(vec(-0.2 + 0 * w, -0.2, h), vec(w + 0.2, d + 0.2, h + 0.2), ceiling)
    paint, accent = material(draw, "wall", period=(0.8, 3)), material(draw, "wall", period=(0.8, 3))
    trim = material(draw, "white", period=(0.8, 3))
    for side in range(4):
        chosen = draw.chance(0.2)[:, None]
        _wall(parts, draw, side, size, np.where(chosen, accent, paint), trim)
        along, half = size[:, side % 2, None] * draw(0.1, 0.9, 2), draw(0.12, 0.5, 2, 2)
        z = draw(1.2, 1.8, 2)
        for k in range(2):  # pictures, boards, screens
            centre = vec(along[:, k], -0.01, z[:, k])
            extent = vec(half[:, k, 0], 0.015, half[:, k, 1] * 0.8)
            _wall_box(parts, side, size, centre - extent, centre + extent, material(draw, "print", period=(0.5, 1.2)),
                      draw.chance(0.35))  # fmt: skip
    below = -draw(0.1, 12)
    parts.add(PLANE, vec(0, 0, below)[:, None], 1, material(draw, "ground", 1, period=(2, 6)), structure=True)
    angle, away = draw(0, 2 * np.pi, 8), draw(12, 60, 8)
    blocks = draw(2, 9, 8, 3)
    centre = vec(away * np.cos(angle), away * np.sin(angle), below[:, None] + blocks[..., 2])
    parts.add(BOX, centre, blocks, material(draw, "facade", 8, period=(5, 12)))


def _cell(order: Floats, number: int, size: Floats, draw: Draws, n: int = 1) -> tuple[Floats, Floats]:
    """Place (B, n, 3) and yaw (B, n) of the things of a scene's `number`-th cells, backs to the nearest wall."""
    cells = order[:, number : number + n]
    ij = np.stack([cells // _CELLS, cells % _CELLS], -1)
    place = (ij + 0.5 + draw(-0.25, 0.25, n, 2)) / _CELLS
    near = place - 0.5
    along_x = np.abs(near[..., 0]) > np.abs(near[..., 1])
    yaw = np.where(along_x, np.where(near[..., 0] > 0, -np.pi / 2, np.pi / 2), np.where(near[..., 1] > 0, 0, np.pi))
    place = 0.5 + near * np.where(np.abs(near) > 0.2, 1.12, 1.0)
    base = np.concatenate([place * size[:, None, :2], np.zeros((*yaw.shape, 1))], -1)
    return base, yaw + 0.03 * draw(-1, 1, n)


def room(draw: Draws) -> Layout:
    """Furnished rooms seen from a hand, a robot or a tripod; a third of them close up at a table."""
    b = len(draw)
    hall = draw.chance(0.12)[:, None]
    size = np.stack([draw(2.4, 6.5), draw(2.4, 6.5), draw(2.2, 3.2)], -1) * np.where(hall, [2.4, 2.4, 1.7], 1.0)
    parts = Parts(b)
    _shell(parts, draw, size)
    order = draw(0, 1, _CELLS * _CELLS).argsort(-1).astype(float)  # the last cell of the order is the camera's
    base, yaw = _cell(order, 0, size, draw, 2)
    top, half = furniture.table(parts, draw, base, yaw, np.stack([np.ones(b, bool), draw.chance(0.4)], -1))
    focus = base[:, 0] + vec(0, 0, top[:, 0])
    seat = base[:, [0, 0, 1]] + vec(
        draw(-1, 1, 3) * half[:, [0, 0, 1], 0], draw.pick((-1, 1), 3) * draw(0.4, 0.9, 3), 0
    )
    furniture.chair(parts, draw, seat, draw(0, 2 * np.pi, 3), draw.chance(0.6, 3))
    furniture.cabinet(parts, draw, *_cell(order, 2, size, draw, 2), draw.chance(0.6, 2))
    furniture.bookshelf(parts, draw, *_cell(order, 4, size, draw), draw.chance(0.5, 1))
    furniture.sofa(parts, draw, *_cell(order, 5, size, draw), draw.chance(0.6, 1))
    furniture.plant(parts, draw, _cell(order, 6, size, draw)[0], draw.chance(0.5, 1))
    furniture.lamp(parts, draw, _cell(order, 7, size, draw)[0], draw.chance(0.4, 1))
    scatter = np.concatenate([draw(0.08, 0.92, 8, 2) * size[:, None, :2], np.zeros((b, 8, 1))], -1)
    assorted(parts, draw, scatter, (0.1, 0.7), ("any", "print"), draw.chance(0.45, 8))
    _hanging(parts, draw, size)
    rug = size * draw(0.25, 0.75, 3) * [1, 1, 0] + [0, 0, 0.006]
    spread = vec(draw(0.4, 1.1), draw(0.6, 1.4), 0.006)
    parts.add(BOX, rug[:, None], spread[:, None], material(draw, "fabric", 1, period=(0.5, 2.5)),
              yaw_rotation(draw(0, 0.3, 1)), draw.chance(0.5, 1))  # fmt: skip
    eye, target = _view(draw, order, size, focus)
    return lamplight(parts, draw, size, eye, target)


def _hanging(parts: Parts, draw: Draws, size: Floats) -> None:
    """A pendant lamp on its cord, cables along walls and through the air, a pole or curtain rail."""
    w, d, h = size.T
    place = vec(w * draw(0.3, 0.7), d * draw(0.3, 0.7), h)
    drop, r = draw(0.2, 0.9), draw(0.08, 0.25)
    ok = draw.chance(0.5)
    parts.rod(place[:, None], (place - vec(0, 0, drop))[:, None], 0.005, material(draw, "dark", 1), ok[:, None])
    parts.add(ELLIPSOID, (place - vec(0, 0, drop))[:, None], vec(r, r, 0.7 * r)[:, None],
              material(draw, "white", 1, glow=0.6), valid=ok[:, None])  # fmt: skip
    ends = draw(0.02, 0.98, 5, 2, 3) * size[:, None, None]
    ends[:, :2, :, 2] *= 0.05
    ends[:, 2, :, 2] = ends[:, 2, :1, 2]
    parts.rod(ends[:, :, 0], ends[:, :, 1], draw.log(0.003, 0.02, 5), material(draw, "any", 5), draw.chance(0.25, 5))


def _view(draw: Draws, order: Floats, size: Floats, focus: Floats) -> tuple[Floats, Floats]:
    """The camera's place, in its own cell of the floor or close to the first table, and where it looks."""
    base, _ = _cell(order, _CELLS * _CELLS - 1, size, draw)
    eye = base[:, 0] + vec(
        0, 0, np.minimum(np.where(draw.chance(0.3), draw(0.2, 0.8), draw(1.0, 1.9)), size[:, 2] - 0.4)
    )
    target = size * np.stack([draw(0.2, 0.8), draw(0.2, 0.8), draw(0.1, 0.6)], -1)
    close = draw.chance(0.33)[:, None]
    towards = eye - focus
    towards[:, 2] = 0
    towards /= np.maximum(np.linalg.norm(towards, axis=-1, keepdims=True), 1e-6)
    near = focus + towards * draw(0.35, 1.1)[:, None] + vec(0, 0, draw(0.12, 0.7))
    eye = np.clip(np.where(close, near, eye), 0.25, size - 0.25)
    target = np.where(close, focus + vec(draw(-0.2, 0.2), draw(-0.2, 0.2), draw(-0.05, 0.1)), target)
    return eye, np.where(np.linalg.norm(target - eye, axis=-1, keepdims=True) < 0.3, size / 2, target)


def pile(draw: Draws) -> Layout:
    """Random solids in the air and on a floor, from 0.3 to 8 m: shapes and poses that no room has."""
    b, n = len(draw), 70
    parts = Parts(b)
    parts.add(PLANE, vec(np.zeros((b, 1)), 0, 0), 1, material(draw, "any", 1, period=(0.5, 3)), structure=True)
    wall = draw(3, 9)
    parts.box(vec(-30, wall, 0 * wall), vec(30, wall + 0.1, 20 + 0 * wall), material(draw, "wall"), draw.chance(0.6))
    distance, angle = draw.log(0.6, 8, n), draw(-0.9, 0.9, n)
    centre = vec(distance * np.sin(angle), distance * np.cos(angle), draw(0, 1.4, n) ** 1.5 * (0.5 + 0.3 * distance))
    half = draw.log(0.02, 0.25, n, 3) * np.minimum(distance, 4)[..., None] ** 0.7
    look = material(draw, "any", n, period=(0.2, 1))
    turn, shape = random_rotation(draw, n), draw(0, 1, n)
    parts.add(BOX, centre, half, look, turn, shape < 0.4)
    parts.add(ELLIPSOID, centre, half, look, turn, (shape >= 0.4) & (shape < 0.6))
    parts.add(CYLINDER, centre, half[..., [0, 0, 2]], look, turn, (shape >= 0.6) & (shape < 0.8))
    parts.rod(centre, centre + draw(-1, 1, n, 3), draw.log(0.003, 0.03, n), look, shape >= 0.8)
    eye = vec(0, 0, draw(0.3, 1.6))
    target = vec(draw(-0.6, 0.6), 3, draw(0, 1.2))
    sun, ambient, sky, cloud = daylight(draw)
    lights = np.stack([sun, sun * 0], axis=1)
    return Layout(parts, eye, target, lights, ambient, sky, cloud, np.zeros(b))
