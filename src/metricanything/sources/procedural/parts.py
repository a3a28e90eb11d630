"""Building blocks of scenes: solids placed in groups, and the materials on them, for a batch of scenes at once.

World frame while building: metres, z up, the ground or floor at z = 0. Letters: B scenes, n places, k parts of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.shapes import BOX, CYLINDER, ELLIPSOID
from metricanything.sources.procedural.texture import FAMILIES

Valid = NDArray[np.bool_] | bool

#: What a material's row holds, in order. `family` and `pattern` number a texture of the bank; `turn` is the angle of
#: the texture (radians), `period` its size in metres; colours are linear; `photo` in 0..1 chooses a photograph if the
#: bank has some and it is below the share asked for; `glow` is light given off.
MATERIAL = ("pattern", "blotches", "turn", "period", "u", "v", "r0", "g0", "b0", "r1", "g1", "b1", "mix", "blotch",
            "gloss", "photo", "glow")  # fmt: skip

#: Colour ranges of kinds of surface: hue, saturation and value, each (low, high), and texture families.
_LOOKS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], str]] = {
    "any": ((0, 1), (0.0, 0.8), (0.08, 0.9), "plain rough checks tiles wood fabric print pebbles"),
    "paint": ((0, 1), (0.0, 0.75), (0.15, 0.9), "plain"),
    "car": ((0, 1), (0.0, 0.8), (0.05, 0.9), "plain"),
    "wall": ((0, 1), (0.0, 0.35), (0.4, 0.97), "plain plain plain rough tiles checks print"),
    "ceiling": ((0.05, 0.18), (0.0, 0.1), (0.75, 0.97), "plain plain rough tiles"),
    "floor": ((0.03, 0.14), (0.05, 0.55), (0.2, 0.75), "wood wood tiles fabric rough checks"),
    "wood": ((0.04, 0.11), (0.25, 0.65), (0.18, 0.75), "wood wood plain"),
    "fabric": ((0, 1), (0.05, 0.6), (0.15, 0.8), "fabric plain rough"),
    "print": ((0, 1), (0.1, 0.8), (0.15, 0.95), "print"),
    "metal": ((0.5, 0.65), (0.0, 0.12), (0.1, 0.8), "plain"),
    "white": ((0.05, 0.2), (0.0, 0.06), (0.75, 0.97), "plain"),
    "dark": ((0, 1), (0.0, 0.3), (0.03, 0.12), "plain"),
    "leaf": ((0.16, 0.36), (0.35, 0.8), (0.3, 0.75), "leaves"),
    "bark": ((0.04, 0.12), (0.1, 0.4), (0.12, 0.4), "rough wood"),
    "facade": ((0, 1), (0.0, 0.35), (0.35, 0.9), "facade facade facade tiles rough"),
    "asphalt": ((0.05, 0.65), (0.0, 0.08), (0.15, 0.5), "rough"),
    "paving": ((0.03, 0.15), (0.0, 0.2), (0.35, 0.75), "tiles pebbles rough"),
    "ground": ((0.07, 0.33), (0.15, 0.6), (0.3, 0.75), "rough pebbles leaves rough"),
    "stone": ((0.05, 0.6), (0.0, 0.15), (0.25, 0.7), "rough pebbles plain"),
}
_MATT = ("asphalt", "ground", "paving", "bark", "fabric")


def _rgb(hue: Floats, saturation: Floats, value: Floats) -> Floats:
    """HSV in 0..1 to linear RGB (..., 3)."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    fraction = np.clip(np.minimum(k, 4 - k), 0, 1)
    colour = value[..., None] * (1 - saturation[..., None] * fraction)
    return np.asarray(colour**2.2)


def material(draw: Draws, look: str, *shape: int, period: tuple[float, float] = (0.4, 2.0), glow: float = 0) -> Floats:
    """Rows (B, *shape, len(MATERIAL)) of random materials of one look."""
    hue_range, saturation_range, value_range, families = _LOOKS[look]
    patterns = [i for family in families.split() for i in FAMILIES[family]]
    hue, saturation, value = draw(*hue_range, *shape), draw(*saturation_range, *shape), draw(*value_range, *shape)
    second = _rgb(
        (hue + draw(-0.08, 0.08, *shape)) % 1,
        np.clip(saturation * draw(0.5, 1.3, *shape), 0, 1),
        np.clip(value * draw(0.45, 1.4, *shape), 0.02, 1),
    )
    turn = draw.pick((0, 1), *shape) * (np.pi / 2) + draw(-0.03, 0.03, *shape)
    if "facade" in families or look in ("wall", "print"):
        turn = turn * 0
    columns = [
        draw.pick(patterns, *shape), draw.pick(FAMILIES["plain"] + FAMILIES["rough"], *shape), turn,
        draw.log(*period, *shape), draw(0, 1, *shape), draw(0, 1, *shape),
        *np.moveaxis(_rgb(hue, saturation, value), -1, 0), *np.moveaxis(second, -1, 0),
        draw(0.4, 1.0, *shape), draw(0.0, 0.7, *shape), draw(0, 1, *shape) ** 3 * (0.0 if look in _MATT else 0.5),
        draw(0, 1, *shape),
        np.full((len(draw), *shape), glow),
    ]  # fmt: skip
    return np.stack(columns, axis=-1)


def turned(vector: ArrayLike, yaw: ArrayLike) -> Floats:
    """Vectors (..., 3) turned about z by `yaw` (...) radians."""
    vector = np.asarray(vector, dtype=np.float64)
    c, s = np.cos(yaw), np.sin(yaw)
    x, y, z = np.moveaxis(vector, -1, 0)
    return np.stack(np.broadcast_arrays(c * x - s * y, s * x + c * y, z), axis=-1)


def vec(*components: ArrayLike) -> Floats:
    """Stack broadcast components into (..., 3)."""
    return np.stack(np.broadcast_arrays(*(np.asarray(c, dtype=np.float64) for c in components)), axis=-1)


def yaw_rotation(yaw: Floats) -> Floats:
    """Rotations (..., 3, 3) about z, world from object."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)
    c, s = np.cos(yaw), np.sin(yaw)
    return np.stack([c, -s, zero, s, c, zero, zero, zero, one], axis=-1).reshape(*yaw.shape, 3, 3)


def random_rotation(draw: Draws, *shape: int) -> Floats:
    """Rotations (B, *shape, 3, 3), uniform (Shoemake, Graphics Gems III, 1992)."""
    u, a, b = draw(0, 1, *shape), draw(0, 2 * np.pi, *shape), draw(0, 2 * np.pi, *shape)
    x, y = np.sqrt(1 - u) * np.sin(a), np.sqrt(1 - u) * np.cos(a)
    z, w = np.sqrt(u) * np.sin(b), np.sqrt(u) * np.cos(b)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return np.stack(rows, axis=-1).reshape(*u.shape, 3, 3)


class Parts:
    """Solids of a batch of scenes, gathered part by part; every array has B scenes in front."""

    def __init__(self, scenes: int) -> None:
        self.scenes = scenes
        self._columns: list[tuple[NDArray[np.int64], Floats, Floats, Floats, Floats, NDArray[np.bool_]]] = []

    def add(
        self, kind: int, centre: Floats, half: ArrayLike, materials: Floats, rotation: Floats | None = None,
        valid: Valid = True, structure: bool = False,
    ) -> None:  # fmt: skip
        """Add solids: `centre` (B, ..., 3), `half` extents, `rotation` (B, ..., 3, 3) world from object.

        `structure` marks walls and ground, which stay even when the camera is close to them.
        """
        shape = centre.shape[:-1]
        rotation = np.eye(3) if rotation is None else rotation
        exists = np.broadcast_to(valid, shape)
        kinds = np.where(exists, kind, -1).reshape(self.scenes, -1)
        self._columns.append(
            (
                kinds.astype(np.int64),
                centre.reshape(self.scenes, -1, 3),
                np.maximum(np.broadcast_to(half, (*shape, 3)), 1e-4).reshape(self.scenes, -1, 3),
                np.broadcast_to(rotation, (*shape, 3, 3)).reshape(self.scenes, -1, 3, 3),
                np.broadcast_to(materials, (*shape, len(MATERIAL))).reshape(self.scenes, -1, len(MATERIAL)),
                np.full(kinds.shape, structure),
            )
        )

    def group(
        self, kind: int, base: Floats, yaw: Floats, offset: ArrayLike, half: ArrayLike, materials: Floats,
        valid: Valid = True, turn: Floats | float = 0.0,
    ) -> None:  # fmt: skip
        """Parts (B, n, k) of things that stand at `base` (B, n, 3) facing `yaw` (B, n): `offset` in their own axes."""
        centre = base[:, :, None] + turned(offset, yaw[:, :, None])
        angles = np.broadcast_to(yaw[:, :, None] + turn, centre.shape[:-1])
        self.add(kind, centre, half, materials, yaw_rotation(angles), valid)

    def box(self, low: Floats, high: Floats, materials: Floats, valid: Valid = True, structure: bool = True) -> None:
        """Axis-aligned boxes between corners (B, ..., 3); walls and slabs, unless `structure` is False."""
        wide = np.all(high > low, axis=-1) & valid
        self.add(BOX, (low + high) / 2, (high - low) / 2, materials, valid=wide, structure=structure)

    def rod(self, start: Floats, end: Floats, radius: ArrayLike, materials: Floats, valid: Valid = True) -> None:
        """Thin cylinders between points (B, ..., 3)."""
        along = end - start
        length = np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
        z = along / length
        helper = np.where(np.abs(z[..., 2:]) > 0.9, [1.0, 0, 0], [0, 0, 1.0])
        x = np.cross(helper, z)
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
        rotation = np.stack([x, np.cross(z, x), z], axis=-1)
        radius = np.broadcast_to(radius, length.shape[:-1])
        half = np.stack([radius, radius, length[..., 0] / 2], axis=-1)
        self.add(CYLINDER, (start + end) / 2, half, materials, rotation, valid)

    def arrays(self) -> tuple[NDArray[np.int64], Floats, Floats, Floats, Floats, NDArray[np.bool_]]:
        """kind (B, N), centre, half (B, N, 3), rotation (B, N, 3, 3), material (B, N, M) and structure (B, N)."""
        kind, centre, half, rotation, materials, structure = (
            np.concatenate(column, axis=1) for column in zip(*self._columns, strict=True)
        )
        return kind, centre, half, rotation, materials, structure


def assorted(
    parts: Parts, draw: Draws, base: Floats, size: tuple[float, float], looks: Sequence[str], valid: Valid = True
) -> None:
    """Small things (B, n) standing at `base` (B, n, 3): boxes, upright and lying cylinders, balls, tilted blocks."""
    n = base.shape[1]
    extent = draw.log(*size, n)
    shape = draw(0, 1, n)
    half = np.stack([extent * draw(0.3, 1, n), extent * draw(0.3, 1, n), extent * draw(0.15, 1.3, n)], axis=-1) / 2
    rounds = half * [1, 0, 1] + half[..., :1] * [0, 1, 0]
    up = yaw_rotation(draw(0, 2 * np.pi, n))
    materials = np.where(draw.chance(0.5, n)[..., None], material(draw, looks[0], n, period=(0.1, 0.6)),
                         material(draw, looks[-1], n, period=(0.1, 0.6)))  # fmt: skip
    lift = [0, 0, 1.0] * half
    parts.add(BOX, base + lift, half, materials, up, (shape < 0.45) & valid)
    parts.add(CYLINDER, base + lift, rounds, materials, up, (shape >= 0.45) & (shape < 0.7) & valid)
    parts.add(ELLIPSOID, base + lift, rounds, materials, up, (shape >= 0.7) & (shape < 0.85) & valid)
    free = random_rotation(draw, n)
    parts.add(BOX, base + lift, half, materials, free, (shape >= 0.85) & valid)
