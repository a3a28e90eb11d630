"""Furniture in real sizes, each a function that adds B scenes x n pieces standing at `base` and facing `yaw`.

Letters: B scenes, n pieces, k parts of a piece. `base` (B, n, 3), `yaw` (B, n), `valid` (B, n).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.parts import Parts, assorted, material, turned, vec
from metricanything.sources.procedural.shapes import BOX, CYLINDER, ELLIPSOID

Mask = NDArray[np.bool_]
_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=float)


def table(parts: Parts, draw: Draws, base: Floats, yaw: Floats, valid: Mask, things: int = 7) -> tuple[Floats, Floats]:
    """Tables and desks with things on them; returns the height (B, n) and half sizes (B, n, 2) of their tops."""
    n = base.shape[1]
    size = np.stack([draw(0.5, 1.0, n), draw(0.3, 0.5, n)], -1)
    height, thick = np.where(draw.chance(0.25, n), draw(0.35, 0.5, n), draw(0.68, 0.8, n)), draw(0.01, 0.03, n)
    top, leg = material(draw, "wood", n, 1, period=(0.3, 1.2)), material(draw, "any", n, 1)
    half_top = vec(size[..., 0], size[..., 1], thick)[:, :, None]
    parts.group(BOX, base, yaw, vec(0, 0, height - thick)[:, :, None], half_top, top, valid[..., None])
    radius = draw(0.012, 0.04, n)[..., None]
    inset = size[:, :, None] - 1.5 * radius[..., None]
    half_leg = (height / 2 - thick)[..., None]
    offset = np.concatenate([_CORNERS * inset, np.broadcast_to(half_leg[..., None], (len(draw), n, 4, 1))], -1)
    square = draw.chance(0.6, n)
    for kind, chosen in ((BOX, square), (CYLINDER, ~square)):
        parts.group(kind, base, yaw, offset, vec(radius, radius, half_leg), leg, (valid & chosen)[..., None])
    spot = size[:, :, None] * draw(-0.85, 0.85, n, things, 2)
    on_top = base[:, :, None] + turned(vec(spot[..., 0], spot[..., 1], height[..., None]), yaw[..., None])
    exists = (valid[..., None] & draw.chance(0.65, n, things)).reshape(len(draw), -1)
    assorted(parts, draw, on_top.reshape(len(draw), -1, 3), (0.06, 0.35), ("any", "print"), exists)
    return height, size


def chair(parts: Parts, draw: Draws, base: Floats, yaw: Floats, valid: Mask) -> None:
    """Chairs: a seat, four thin legs, a back on two posts."""
    n = base.shape[1]
    w, seat, back = draw(0.19, 0.26, n), draw(0.4, 0.5, n), draw(0.35, 0.6, n)
    look, frame = material(draw, "any", n, 1, period=(0.1, 0.8)), material(draw, "any", n, 1)
    r = draw(0.01, 0.022, n)
    parts.group(BOX, base, yaw, vec(0, 0, seat)[:, :, None], vec(w, w, draw(0.01, 0.04, n))[:, :, None], look,
                valid[..., None])  # fmt: skip
    legs = np.concatenate([_CORNERS * (w - r)[..., None, None], np.repeat((seat / 2)[..., None, None], 4, 2)], -1)
    parts.group(CYLINDER, base, yaw, legs, vec(r, r, seat / 2)[:, :, None], frame, valid[..., None])
    posts = vec(np.array([-1, 1]) * (w - r)[..., None], (w - r)[..., None], (seat + back / 2)[..., None])
    parts.group(CYLINDER, base, yaw, posts, vec(r, r, back / 2)[:, :, None], frame, valid[..., None])
    slats = draw(0.04, 0.2, n)
    parts.group(BOX, base, yaw, vec(0, w - r, seat + back - slats)[:, :, None], vec(w, 0.012, slats)[:, :, None], look,
                valid[..., None])  # fmt: skip


def cabinet(parts: Parts, draw: Draws, base: Floats, yaw: Floats, valid: Mask) -> None:
    """Cabinets and chests with drawer fronts and handles, with things on the low ones."""
    n = base.shape[1]
    half = np.stack([draw(0.3, 0.8, n), draw(0.18, 0.32, n), np.where(draw.chance(0.5, n), draw(0.3, 0.5, n),
                                                                    draw(0.7, 1.1, n))], -1)  # fmt: skip
    body, front = material(draw, "wood", n, 1, period=(0.4, 1.5)), material(draw, "any", n, 1, period=(0.4, 1.5))
    lift = half * [0, 0, 1]
    parts.group(BOX, base, yaw, lift[:, :, None], half[:, :, None], body, valid[..., None])
    rows = np.arange(3)
    h = (half[..., 2:] * 2 - 0.1) / 3
    z = 0.05 + h * (rows + 0.5)
    drawer, handle = vec(half[..., :1] - 0.02, 0.01, h / 2 - 0.008), vec(0.07, 0.008, 0.008)
    shown, metal = (valid & draw.chance(0.7, n))[..., None], material(draw, "metal", n, 1)
    parts.group(BOX, base, yaw, vec(0, -half[..., 1:2] - 0.008, z), drawer, front, shown)
    parts.group(BOX, base, yaw, vec(0, -half[..., 1:2] - 0.035, z), handle, metal, valid[..., None])
    spot = draw(-0.8, 0.8, n, 3, 2) * half[:, :, None, :2]
    top = base[:, :, None] + turned(vec(spot[..., 0], spot[..., 1], 2 * half[..., 2:]), yaw[..., None])
    low = (valid & (half[..., 2] < 0.6))[..., None] & draw.chance(0.6, n, 3)
    assorted(parts, draw, top.reshape(len(draw), -1, 3), (0.1, 0.45), ("any", "print"), low.reshape(len(draw), -1))


def bookshelf(parts: Parts, draw: Draws, base: Floats, yaw: Floats, valid: Mask) -> None:
    """Open shelves with blocks of books."""
    n, boards, books = base.shape[1], 5, 4
    w, depth, height = draw(0.3, 0.7, n), draw(0.12, 0.18, n), draw(1.2, 2.1, n)
    look = material(draw, "wood", n, 1, period=(0.4, 1.5))
    sides = vec(np.array([-1, 1]) * w[..., None], 0, (height / 2)[..., None])
    parts.group(BOX, base, yaw, sides, vec(0.012, depth, height / 2)[:, :, None], look, valid[..., None])
    parts.group(BOX, base, yaw, vec(0, depth, height / 2)[:, :, None], vec(w, 0.008, height / 2)[:, :, None], look,
                (valid & draw.chance(0.6, n))[..., None])  # fmt: skip
    z = height[..., None] * (np.arange(boards) + 0.1) / (boards - 0.8)
    parts.group(BOX, base, yaw, vec(0, 0, z), vec(w[..., None], depth[..., None], 0.012), look, valid[..., None])
    tall = (draw(0.12, 0.26, n, boards, books) * np.minimum(height[..., None, None] / 1.5, 1)) / 2
    x = w[..., None, None] * ((np.arange(books) + 0.5) / books * 2 - 1)
    offset = vec(x, draw(-0.05, 0.02, n, boards, books), z[..., None] + 0.012 + tall)
    half = vec(draw(0.3, 1.0, n, boards, books) * (w / books)[..., None, None], 0.7 * depth[..., None, None], tall)
    flat = (len(draw), n, boards * books)
    parts.group(BOX, base, yaw, offset.reshape(*flat, 3), half.reshape(*flat, 3),
                material(draw, "print", *flat[1:], period=(0.15, 0.5)),
                valid[..., None] & draw.chance(0.6, *flat[1:]))  # fmt: skip


def sofa(parts: Parts, draw: Draws, base: Floats, yaw: Floats, valid: Mask) -> None:
    """Sofas and armchairs with cushions; a low, long one without arms is a bed."""
    n = base.shape[1]
    w, d, seat = draw(0.45, 1.1, n), draw(0.4, 0.5, n), draw(0.35, 0.45, n)
    bed = draw.chance(0.35, n)
    d = np.where(bed, 1.0, d)
    look = material(draw, "fabric", n, 1, period=(0.3, 1.5))
    parts.group(
        BOX, base, yaw, vec(0, 0, seat / 2)[:, :, None], vec(w, d, seat / 2)[:, :, None], look, valid[..., None]
    )
    back = draw(0.2, 0.3, n)
    parts.group(BOX, base, yaw, vec(0, d - 0.1, seat + back / 2)[:, :, None], vec(w, 0.1, back)[:, :, None], look,
                valid[..., None])  # fmt: skip
    arms = vec(np.array([-1, 1]) * w[..., None], 0, (seat * 0.75)[..., None])
    parts.group(BOX, base, yaw, arms, vec(0.09, d, seat * 0.75)[:, :, None], look, (valid & ~bed)[..., None])
    x = np.array([-0.6, 0, 0.6]) * w[..., None]
    pillow = vec(x, (d - 0.3)[..., None], seat[..., None] + draw(0.08, 0.15, n, 3))
    parts.group(ELLIPSOID, base, yaw, pillow, vec(draw(0.2, 0.3, n, 3), 0.1, 0.18),
                material(draw, "fabric", n, 3, period=(0.2, 0.6)), valid[..., None] & draw.chance(0.6, n, 3),
                turn=draw(-0.4, 0.4, n, 3))  # fmt: skip


def plant(parts: Parts, draw: Draws, base: Floats, valid: Mask, leaves: int = 18) -> None:
    """Potted plants: thin stems that end in flat leaves."""
    n, b = base.shape[1], len(draw)
    pot, tall = draw(0.08, 0.2, n), draw(0.3, 1.4, n)
    parts.add(
        CYLINDER, base + vec(0, 0, pot), vec(pot, pot, pot), material(draw, "any", n, period=(0.2, 0.6)), None, valid
    )
    angle, lean = draw(0, 2 * np.pi, n, leaves), draw(0.1, 0.6, n, leaves) * tall[..., None]
    rise = draw(0.35, 1.0, n, leaves) * tall[..., None]
    root = base[:, :, None] + vec(0, 0, 2 * pot[..., None])
    tip = root + vec(lean * np.cos(angle), lean * np.sin(angle), rise)
    parts.rod(np.broadcast_to(root, tip.shape), tip, draw(0.003, 0.008, n, 1), material(draw, "leaf", n, 1),
              valid[..., None])  # fmt: skip
    size = draw(0.05, 0.14, n, leaves)
    tilt = 0.8 * draw(-1, 1, n, leaves)
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros((b, n, leaves))
    ct, st = np.cos(tilt), np.sin(tilt)
    rotation = np.stack([c * ct, -s, c * st, s * ct, c, s * st, -st, zero, ct], -1).reshape(b, n, leaves, 3, 3)
    parts.add(ELLIPSOID, tip, vec(size, 0.45 * size, 0.06 * size), material(draw, "leaf", n, 1, period=(0.2, 0.6)),
              rotation, valid[..., None])  # fmt: skip


def lamp(parts: Parts, draw: Draws, base: Floats, valid: Mask) -> None:
    """Floor lamps: a foot, a thin pole, a shade."""
    n = base.shape[1]
    tall, foot = draw(1.2, 1.8, n), draw(0.1, 0.16, n)
    frame = material(draw, "metal", n)
    parts.add(CYLINDER, base + vec(0, 0, 0.01), vec(foot, foot, 0.012), frame, None, valid)
    parts.rod(base, base + vec(0, 0, tall), draw(0.008, 0.016, n), frame, valid)
    shade = draw(0.1, 0.22, n)
    parts.add(CYLINDER, base + vec(0, 0, tall), vec(shade, shade, draw(0.08, 0.16, n)),
              material(draw, "fabric", n, glow=0.35), None, valid)  # fmt: skip
