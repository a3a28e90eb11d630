"""Small things in real sizes that rest on tables and in bins: packets, cans, bottles, mugs, fruit, books, pens.

Letters: B scenes, n things. `base` (B, n, 3): the points that they rest on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.parts import Parts, material, random_rotation, vec, yaw_rotation
from metricanything.sources.procedural.shapes import BOX, CYLINDER, ELLIPSOID

Mask = NDArray[np.bool_]


def scattered(draw: Draws, n: int) -> Floats:
    """Spots (B, n, 2) in -1..1, evenly spread (the R2 sequence: Roberts, 2018, with a random start) and jittered."""
    return np.asarray((draw(0, 1, 1, 2) + np.arange(n)[:, None] * [0.7549, 0.5698] + draw(0, 0.08, n, 2)) % 1 * 2 - 1)


def things(parts: Parts, draw: Draws, base: Floats, most: Floats, valid: Mask, wild: Floats) -> tuple[Floats, Mask]:
    """Packets, cans, bottles, mugs, fruit, flat things and pens that rest on `base` (B, n, 3), no half above `most`.

    The share `wild` (B,) of them lies in any pose, some others lie or lean. Returns the middle of their tops and
    whether something can stand there.
    """
    n = base.shape[1]
    sort = np.searchsorted([0.26, 0.42, 0.52, 0.62, 0.72, 0.93], draw(0, 1, n), side="right")
    packet, can, bottle, mug, fruit, flat, pen = sort == np.arange(7)[:, None, None]
    radius, unit = draw.log(0.015, 0.05, n), draw(0, 1, n, 3)
    half = np.select(
        [x[..., None] for x in (packet, can, bottle, mug, fruit, flat, pen)],
        [draw.log(0.015, 0.15, n, 3), vec(radius, radius, radius * (0.6 + 2.4 * unit[..., 2])),
         vec(0.7 * radius + 0.012, 0.7 * radius + 0.012, 0.06 + 0.05 * unit[..., 2]),
         vec(0.2 * radius + 0.033, 0.2 * radius + 0.033, 0.04 + 0.015 * unit[..., 2]),
         (0.5 * radius + 0.015)[..., None] * (0.8 + 0.5 * unit),
         vec(0.05 + 0.1 * unit[..., 0], 0.035 + 0.07 * unit[..., 1], draw.log(0.0008, 0.02, n)),
         vec(0.1 * radius + 0.002, 0.1 * radius + 0.002, 0.05 + 0.05 * unit[..., 2])],
    )  # fmt: skip
    half = half * np.minimum(1, most[:, None] / half.max(-1))[..., None]
    lying, leaning = pen | ((can | bottle) & draw.chance(0.3, n)), (packet | flat) & draw.chance(0.12, n)
    tilt = np.where(lying, np.pi / 2, np.where(leaning, draw(-0.5, 0.5, n), 0.0))
    tossed = (draw(0, 1, n) < wild[:, None]) & ~pen
    rotation = np.where(tossed[..., None, None], random_rotation(draw, n),
                        yaw_rotation(draw(0, 2 * np.pi, n)) @ _pitch(tilt))  # fmt: skip
    kind = np.where(packet | flat, BOX, np.where(fruit, ELLIPSOID, CYLINDER))
    up = vec(0, 0, _support(kind, half, rotation))
    centre, (r, _, h) = base + up, np.moveaxis(half, -1, 0)
    printed, look = (packet | flat | can) & draw.chance(0.6, n), material(draw, "any", n, period=(0.04, 0.3))
    look = np.where(printed[..., None], material(draw, "print", n, period=(0.04, 0.3)), look)
    for number in (BOX, ELLIPSOID, CYLINDER):
        parts.add(number, centre, half, look, rotation, valid & (kind == number))

    def attach(number: int, offset: Floats, size: Floats, look: Floats, which: Mask) -> None:
        parts.add(number, centre + (rotation @ offset[..., None])[..., 0], size, look, rotation, valid & which)

    attach(CYLINDER, vec(0, 0, 1.25 * h), vec(0.35 * r, 0.35 * r, 0.3 * h), look, bottle)
    attach(CYLINDER, vec(0, 0, h), vec(0.88 * r, 0.88 * r, 0.001), material(draw, "dark", n), mug)
    attach(BOX, vec(1.3 * r, 0, 0), vec(0.35 * r, 0.005, 0.6 * h), look, mug)
    return centre + up, (packet | flat) & ~leaning & ~tossed


def _pitch(angle: Floats) -> Floats:
    """Rotations (..., 3, 3) about x."""
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    return np.stack([zero + 1, zero, zero, zero, c, -s, zero, s, c], -1).reshape(*angle.shape, 3, 3)


def _support(kind: NDArray[np.int64], half: Floats, rotation: Floats) -> Floats:
    """How far the centres (...) of solids lie above what they rest on."""
    row = rotation[..., 2, :] * half
    tube = np.hypot(row[..., 0], row[..., 1]) + np.abs(row[..., 2])
    return np.where(kind == BOX, np.abs(row).sum(-1), np.where(kind == CYLINDER, tube, np.linalg.norm(row, axis=-1)))
