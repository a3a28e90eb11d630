"""Near things: table tops, bins, compartments of shelves and desks, as a hand, a wrist or a robot sees them.

Letters: B scenes, n things. `at` (B, 3): the middle of the surface that things stand on; x to the right, y away from
the camera, z up. Which of the four styles a scene has is a mask (B,): table, bin, shelf or desk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.layout import Layout, lamplight
from metricanything.sources.procedural.parts import Parts, material, vec, yaw_rotation
from metricanything.sources.procedural.shapes import BOX, CYLINDER, PLANE
from metricanything.sources.procedural.things import scattered, things

Mask = NDArray[np.bool_]
_THINGS, _UPPER = 14, 8  # on the surface, and on top of the first of those


class _Styles(NamedTuple):
    """Masks (B,): 40 % table tops and patches of floor, 27 % bins, 15 % compartments, 18 % desks."""

    table: Mask
    bin: Mask
    shelf: Mask
    desk: Mask

    @classmethod
    def drawn(cls, draw: Draws) -> _Styles:
        which = np.searchsorted([0.40, 0.67, 0.82], draw(0, 1), side="right")
        return cls(*(which == k for k in range(4)))

    def select(self, *values: Floats | float) -> Floats:
        """The values (B, ...) that belong to each scene's style, of one for each style (a number stands for all)."""
        b = len(self.table)
        of_all = np.stack([np.broadcast_to(value, (b, *np.shape(value)[1:])) for value in values])
        return np.asarray(of_all[np.stack(self).argmax(0), np.arange(b)])


def near(draw: Draws) -> Layout:
    """Things of real sizes on or in something, 0.25 to 1.5 m away, with a room around; a sixth of them in the dark."""
    style, parts = _Styles.drawn(draw), Parts(len(draw))
    half = style.select(  # of the surface in x and y, and the height of what stands around it
        vec(draw(0.3, 0.9), draw(0.25, 0.5), 0),
        vec(draw(0.1, 0.3), draw(0.1, 0.3), draw(0.06, 0.3)),
        vec(draw(0.125, 0.3), draw(0.125, 0.25), draw(0.25, 0.5)),
        vec(draw(0.5, 0.9), draw(0.3, 0.4), 0),
    )
    top = style.select(  # height of the surface above the floor
        np.where(draw.chance(0.2), 0, draw(0.4, 1.0)), np.where(draw.chance(0.4), 0, draw(0.4, 1.0)),
        draw(0.02, 1.4), draw(0.65, 0.8),
    )  # fmt: skip
    board = half + style.bin[:, None] * draw(0.05, 0.5, 3)
    flat = half[:, :2]
    spread = style.select(np.minimum(flat * 0.9, draw(0.12, 0.45, 2)), 0.8 * flat, flat * [0.8, 0.5], 0.85 * flat)
    eye, target = _view(draw, style, half, spread, top)
    dark = draw.chance(1 / 6)
    size, at = _surroundings(parts, draw, style, board, top, eye, dark)
    _stand(parts, draw, at, board, ~style.shelf & (top > 0))
    _crate(parts, draw, at, half, style.bin)
    _compartment(parts, draw, at, half, style.shelf)
    _books(parts, draw, at, half, style.shelf & draw.chance(0.6))
    _screen(parts, draw, at, half, style.desk)
    spots = at[:, None] + np.concatenate(
        [scattered(draw, _THINGS) * spread[:, None], (0.004 * style.bin)[:, None, None].repeat(_THINGS, 1)], -1
    )
    share = style.select(draw(0.35, 1), draw(0.6, 1), draw(0.1, 0.4), draw(0.2, 0.8))[:, None]
    most = style.select(0.15, 0.5 * flat.min(-1), 0.4 * flat.min(-1), 0.15)
    shown = draw(0, 1, _THINGS) < share
    upper, level = things(parts, draw, spots, most, shown, 0.6 * style.bin + 0.07)
    heaped = style.bin[:, None] | (level & draw.chance(0.5, _THINGS))
    things(parts, draw, upper[:, :_UPPER], 0.8 * most, (shown & heaped)[:, :_UPPER], 0.7 * style.bin)
    _cables(parts, draw, at, spread, ~style.shelf)
    return _near_light(lamplight(parts, draw, size, at + eye, at + target), draw, dark)


def _view(draw: Draws, style: _Styles, half: Floats, spread: Floats, top: Floats) -> tuple[Floats, Floats]:
    """Eye and target (B, 3) relative to the surface; the eye stays above it, above a bin's rim, or before a shelf."""
    x, y = (spread * draw(-0.5, 0.5, 2)).T
    deep, height = half[:, 1], half[:, 2]
    focus = style.select(
        vec(x, y, draw(0, 0.08)),
        vec(x, y, height * draw(0, 0.7)),
        vec(0.5 * x, -deep, height * draw(0.3, 0.6)),
        vec(x, y, draw(0, 0.2)),
    )
    elevation = np.deg2rad(style.select(draw(5, 88), draw(45, 88), draw(-5, 30), draw(5, 60)))
    azimuth = draw(-1, 1) * style.select(1.0, 1.2, 0.5, 0.7)
    distance = style.select(draw.log(0.25, 1.5), draw.log(0.3, 1.2), draw.log(0.3, 1.0), draw.log(0.3, 1.5))
    away = vec(np.sin(azimuth) * np.cos(elevation), -np.cos(azimuth) * np.cos(elevation), np.sin(elevation))
    eye = focus + distance[:, None] * away
    lowest = style.select(0.06, height + 0.08, 0.1 - top, 0.06)
    eye[:, 2] = np.maximum(eye[:, 2], lowest)
    return eye, focus + 0.12 * distance[:, None] * draw(-1, 1, 3)


def _surroundings(
    parts: Parts, draw: Draws, style: _Styles, board: Floats, top: Floats, eye: Floats, dark: Mask
) -> tuple[Floats, Floats]:
    """Floor, one to four walls, ceiling and big boxes as furniture; the size of the room and the surface's place."""
    b = len(draw)
    reach = board[:, [0, 0, 1, 1]] + draw.log(0.5, 4, 4)  # to the left, to the right, before, behind
    reach[:, 3] = style.select(reach[:, 3], reach[:, 3], board[:, 1], np.maximum(draw(0.3, 1.2), board[:, 1]))
    reach = np.maximum(reach, 0.3 + np.stack([-eye[:, 0], eye[:, 0], -eye[:, 1], eye[:, 1]], -1))
    size = vec(reach[:, 0] + reach[:, 1], reach[:, 2] + reach[:, 3], np.maximum(draw(2.2, 3.2), top + eye[:, 2] + 0.4))
    at, zero, seen = vec(reach[:, 0], reach[:, 2], top), np.zeros(b), ~dark | style.desk | style.shelf
    floor, paint = material(draw, "floor", period=(0.5, 2)), material(draw, "wall", period=(0.5, 2.5))
    parts.add(PLANE, vec(zero, 0, 0)[:, None], 1, floor[:, None], structure=True)
    w, d, h = size.T
    there = draw.chance(0.75, 3) & ~dark[:, None]
    parts.box(vec(zero - 0.1, d, 0), vec(w + 0.1, d + 0.1, h), paint, seen)
    parts.box(vec(zero - 0.1, -0.1, 0), vec(w + 0.1, 0, h), paint, there[:, 0])
    parts.box(vec(zero - 0.1, 0, 0), vec(zero, d, h), paint, there[:, 1])
    parts.box(vec(w, zero, 0), vec(w + 0.1, d, h), paint, there[:, 2])
    parts.box(vec(zero - 0.1, -0.1, h), vec(w + 0.1, d + 0.1, h + 0.1), material(draw, "ceiling"),
              seen & draw.chance(0.8))  # fmt: skip
    n = 4
    wide = np.stack([draw(0.15, 0.6, n), draw(0.15, 0.4, n), draw(0.15, 1.0, n)], -1)
    middle = vec(w[:, None] * draw(0, 1, n), d[:, None] - wide[..., 1] - draw(0, 0.3, n), wide[..., 2])
    behind = middle[..., 1] - wide[..., 1] > (at[:, 1] + board[:, 1] + 0.1)[:, None]
    parts.add(BOX, middle, wide, material(draw, "any", n, period=(0.3, 1.5)), None, behind & ~dark[:, None])
    return size, at


def _stand(parts: Parts, draw: Draws, at: Floats, half: Floats, valid: Mask) -> None:
    """A board on four legs or on a body."""
    thick, body = draw(0.015, 0.05), draw.chance(0.4)
    x, y, _ = half.T
    look = np.where(draw.chance(0.5)[:, None], material(draw, "wood", period=(0.2, 1.2)),
                    material(draw, "any", period=(0.15, 1.2)))  # fmt: skip
    under = at - vec(0, 0, thick)
    parts.box(under - vec(x, y, 0), at + vec(x, y, 0), look, valid)
    parts.box((under - 0.9 * vec(x, y, 0)) * [1, 1, 0], under + 0.9 * vec(x, y, 0), material(draw, "any"), valid & body)
    corner = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 0.92
    legs = under[:, None] + corner * half[:, None]
    parts.rod(legs, legs * [1, 1, 0], draw(0.01, 0.03, 1), material(draw, "any", 1), (valid & ~body)[:, None])


def _crate(parts: Parts, draw: Draws, at: Floats, half: Floats, valid: Mask) -> None:
    """A floor and four low walls: a bin, a crate or a drawer."""
    x, y, h = half.T
    t, look = draw.log(0.003, 0.025), material(draw, "any", period=(0.1, 0.8))
    inside = np.where(draw.chance(0.3)[:, None], material(draw, "any", period=(0.1, 0.8)), look)
    parts.box(at - vec(x, y, 0), at + vec(x, y, 0.004), inside, valid)
    for sign in (-1, 1):
        for middle, extent in ((vec(sign * (x + t / 2), 0, h / 2), vec(t / 2, y + t, h / 2)),
                               (vec(0, sign * (y + t / 2), h / 2), vec(x, t / 2, h / 2))):  # fmt: skip
            parts.box(at + middle - extent, at + middle + extent, look, valid)


def _compartment(parts: Parts, draw: Draws, at: Floats, half: Floats, valid: Mask) -> None:
    """Bottom, top, two sides and a back around a space open to the front: in a shelf, a cabinet or a carton."""
    x, y, h = half.T
    t, look = draw.log(0.004, 0.5), material(draw, "any", period=(0.2, 1.2))
    look = np.where(draw.chance(0.5)[:, None], material(draw, "wood", period=(0.2, 1.2)), look)
    for low, high in (
        (vec(-x - t, -y, -t), vec(-x, y, h + t)),
        (vec(x, -y, -t), vec(x + t, y, h + t)),
        (vec(-x, -y, -t), vec(x, y, 0)),
        (vec(-x, -y, h), vec(x, y, h + t)),
    ):
        parts.box(at + low, at + high, look, valid)
    back = np.where(draw.chance(0.4)[:, None], material(draw, "any", period=(0.2, 1.2)), look)
    parts.box(at + vec(-x - t, y, -t), at + vec(x + t, y + 0.01, h + t), back, valid)


def _books(parts: Parts, draw: Draws, at: Floats, half: Floats, valid: Mask, n: int = 7) -> None:
    """Books that stand side by side from the left, as far as there is room."""
    x, y, h = half.T[..., None]
    thick, tall = draw(0.006, 0.025, n), np.minimum(draw(0.08, 0.14, n), 0.45 * h)
    place = -x + 0.002 + 2 * thick.cumsum(-1) - thick
    deep = np.minimum(draw(0.06, 0.11, n), 0.8 * y)
    centre = at[:, None] + vec(place, y * draw(-0.2, 0.0, n), tall)
    parts.add(BOX, centre, vec(0.96 * thick, deep, tall), material(draw, "print", n, period=(0.08, 0.4)), None,
              valid[:, None] & (place + thick < x))  # fmt: skip


def _screen(parts: Parts, draw: Draws, at: Floats, half: Floats, valid: Mask) -> None:
    """A monitor on its stand with a keyboard before it."""
    wide, tall, lift = draw(0.18, 0.35), draw(0.11, 0.2), draw(0.06, 0.15)
    base = at[:, None] + vec(half[:, 0] * draw(-0.3, 0.3), half[:, 1] * draw(0.2, 0.7), 0)[:, None]
    yaw, there = draw(-0.3, 0.3, 1), valid[:, None, None]
    frame = material(draw, "dark", 1, 1)
    middle = vec(0, 0, lift + tall)[:, None, None]
    parts.group(BOX, base, yaw, middle, vec(wide, 0.012, tall)[:, None, None], frame, there)
    parts.group(BOX, base, yaw, middle - [0, 0.011, 0], vec(0.97 * wide, 0.003, 0.95 * tall)[:, None, None],
                material(draw, "print", 1, 1, period=(0.2, 0.8), glow=0.25), there)  # fmt: skip
    parts.group(CYLINDER, base, yaw, vec(0, 0.015, lift / 2 + 0.03)[:, None, None],
                vec(0.018, 0.018, lift / 2 + 0.03)[:, None, None], frame, there)  # fmt: skip
    parts.group(BOX, base, yaw, vec([[[0.0]]], 0, 0.006), vec(0.35 * wide, 0.09, 0.006)[:, None, None], frame, there)
    keys = base * [1, 0, 1] + vec(0, at[:, 1] - 0.5 * half[:, 1], 0.01)[:, None]
    size = vec(draw(0.14, 0.22), draw(0.06, 0.08), 0.01)[:, None]
    look, turn = material(draw, "any", 1, period=(0.05, 0.2)), yaw_rotation(draw(-0.15, 0.15, 1))
    parts.add(BOX, keys, size, look, turn, valid[:, None])


def _cables(parts: Parts, draw: Draws, at: Floats, spread: Floats, valid: Mask) -> None:
    """Up to two thin straight cables or sticks across the things."""
    r = draw.log(0.0015, 0.006, 2)
    ends = np.concatenate([draw(-1.2, 1.2, 2, 2, 2) * spread[:, None, None], np.zeros((len(draw), 2, 2, 1))], -1)
    ends = at[:, None, None] + ends + vec(0, 0, r + 0.004)[:, :, None]
    parts.rod(ends[:, :, 0], ends[:, :, 1], r, material(draw, "any", 2), valid[:, None] & draw.chance(0.3, 2))


def _near_light(layout: Layout, draw: Draws, dark: Mask) -> Layout:
    """A lamp near the camera in a third of the scenes, and nothing but it in the dark."""
    b = len(draw)
    place = layout.eye + draw(-0.3, 0.3, 3) * [1, 1, 0.5] + vec(0, 0, 0.3 * draw(0, 1))
    lamp = np.concatenate([place, np.zeros((b, 1)), vec(1, draw(0.8, 1), draw(0.6, 1)) * draw(0.5, 1.5, 1)], -1)
    lights: Floats = np.array(layout.lights)
    lights[:, 1] = np.where((dark | draw.chance(0.3))[:, None], lamp, lights[:, 1])
    lights[dark, 0, 4:] = 0
    dim = np.where(dark, 0.12, 1.0)[:, None, None]
    layout.lights, layout.ambient, layout.sky = lights, layout.ambient * dim, layout.sky * np.where(dim < 1, 0.01, 1.0)
    return layout
