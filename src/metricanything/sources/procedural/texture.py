"""The bank of tileable textures: procedural patterns, and photographs where given, in one mip-mapped tensor.

Every surface pattern is one texture of the bank, looked up in metres. A procedural texture holds three masks
(pattern, shade, blotches) which a material mixes into its own colours; a photograph holds linear RGB.
Looking up a prefiltered level instead of evaluating noise per pixel is several times quicker and does not alias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metricanything.core.errors import InputError

SIZE = 256
LEVELS = 9
_LEVEL_START = [sum((SIZE >> i) ** 2 for i in range(level)) for level in range(LEVELS + 1)]
TEXELS = _LEVEL_START[-1]  # of one texture with all its levels

Array = NDArray[np.floating[Any]]


def _unit(x: Array) -> Array:
    """Stretch to 0..1 between the 1st and 99th percentile."""
    low, high = np.percentile(x, [1, 99])
    return np.asarray(np.clip((x - low) / max(high - low, 1e-9), 0, 1))


def _noise(rng: np.random.Generator, slope: float, stretch: float = 1.0, low: float = 1.0) -> Array:
    """Tileable noise with power falling as frequency ** -slope; `stretch` elongates it along x."""
    fy, fx = np.fft.fftfreq(SIZE)[:, None] * SIZE, np.fft.rfftfreq(SIZE)[None] * SIZE
    frequency = np.hypot(fx * stretch, fy)
    amplitude = np.maximum(frequency, 1e-6) ** (-slope / 2) * (frequency >= low)
    return _unit(np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * amplitude, s=(SIZE, SIZE)))


def _grid() -> tuple[Array, Array]:
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    return x, y


def _cells(rng: np.random.Generator, x: Array, y: Array, columns: int, rows: int) -> Array:
    """One random value per cell of a columns x rows grid."""
    values = rng.random((rows, columns))
    return np.asarray(values[(y * rows).astype(int) % rows, (x * columns).astype(int) % columns])


def _plain(rng: np.random.Generator) -> tuple[Array, Array]:
    return _noise(rng, rng.uniform(1.5, 3)), 0.92 + 0.08 * _noise(rng, 1.0)


def _rough(rng: np.random.Generator) -> tuple[Array, Array]:
    return _noise(rng, rng.uniform(1.4, 2.6)), 0.45 + 0.55 * _noise(rng, rng.uniform(0.8, 2.0))


def _tiles(rng: np.random.Generator) -> tuple[Array, Array]:
    """Bricks (courses shifted by half) or square tiles with joints."""
    x, y = _grid()
    bricks = rng.random() < 0.5
    columns, rows = (int(rng.integers(3, 6)), 2 * int(rng.integers(4, 7))) if bricks else (rng.integers(2, 6),) * 2
    if bricks:
        x = (x + (np.floor(y * rows) % 2) * 0.5 / columns) % 1
    joint = np.minimum(np.abs((x * columns + 0.5) % 1 - 0.5) / columns, np.abs((y * rows + 0.5) % 1 - 0.5) / rows)
    tone = _cells(rng, x, y, int(columns), int(rows))
    return 0.8 * tone + 0.2 * _noise(rng, 1.5), np.where(joint < rng.uniform(0.004, 0.012), 0.35, 0.9 + 0.1 * tone)


def _checks(rng: np.random.Generator) -> tuple[Array, Array]:
    x, y = _grid()
    n, m = int(rng.integers(1, 5)), int(rng.integers(0, 5))
    pattern = ((np.floor(2 * n * x) + np.floor(2 * m * y)) % 2) if m else (np.sin(2 * np.pi * 2 * n * x) > 0.2) * 1.0
    return np.asarray(pattern), 0.85 + 0.15 * _noise(rng, 1.5)


def _wood(rng: np.random.Generator) -> tuple[Array, Array]:
    """Boards along x with stretched grain."""
    x, y = _grid()
    rows = int(rng.integers(2, 7))
    shift = _cells(rng, x * 0, y, 1, rows)
    tone = _cells(rng, (x + shift) % 1, y, 2, rows)
    grain = _noise(rng, 1.6, stretch=rng.uniform(8, 16))
    joint = np.abs((y * rows + 0.5) % 1 - 0.5) / rows < 0.003
    return 0.55 * grain + 0.45 * tone, np.where(joint, 0.45, 0.75 + 0.25 * grain)


def _facade(rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows of windows with frames, some of them lit or with curtains."""
    x, y = _grid()
    columns, rows = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    u, v = (x * columns) % 1 - 0.5, (y * rows) % 1 - 0.5
    width, height = rng.uniform(0.2, 0.38), rng.uniform(0.25, 0.4)
    inside = (np.abs(u) < width) & (np.abs(v) < height)
    frame = inside & ((np.abs(u) > width - 0.035) | (np.abs(v) > height - 0.03) | (np.abs(u) < 0.015))
    pane = 0.12 + 0.35 * _cells(rng, x, y, columns, rows) ** 2
    return np.where(frame, 1.0, 0.35 * _noise(rng, 1.5)), np.where(inside & ~frame, pane, 0.85 + 0.15 * _noise(rng, 1))


def _leaves(rng: np.random.Generator) -> tuple[Array, Array]:
    base = _noise(rng, rng.uniform(0.6, 1.4), low=4)
    return base, 0.2 + 0.8 * _unit(base * _noise(rng, 1.8))


def _pebbles(rng: np.random.Generator) -> tuple[Array, Array]:
    """Voronoi cells: gravel, stone walls, dry earth."""
    count = int(rng.integers(40, 220))
    sites, tones = rng.random((count, 2)), rng.random(count)
    x, y = _grid()
    delta = np.abs(np.stack([x, y], -1)[:, :, None] - sites)
    distance = np.hypot(*np.moveaxis(np.minimum(delta, 1 - delta), -1, 0))
    nearest = np.argpartition(distance, 1, axis=-1)[..., :2]
    near = np.take_along_axis(distance, nearest, -1)
    edge = _unit(np.abs(near[..., 1] - near[..., 0]))
    owner = nearest[np.arange(SIZE)[:, None], np.arange(SIZE)[None], near.argmin(-1)]
    return tones[owner], 0.35 + 0.65 * np.sqrt(edge)


def _fabric(rng: np.random.Generator) -> tuple[Array, Array]:
    x, y = _grid()
    n = 8 * int(rng.integers(2, 5))
    weave = 0.5 + 0.25 * np.sin(2 * np.pi * n * x) + 0.25 * np.sin(2 * np.pi * n * y)
    bands = np.asarray([_cells(rng, x, y, int(rng.integers(3, 12)), 1), _cells(rng, x, y, 1, int(rng.integers(3, 12)))])
    return (bands > 0.6).mean(0), 0.75 + 0.25 * weave


def _print(rng: np.random.Generator) -> tuple[Array, Array]:
    """Overlapping rectangles, discs and lines of 'text': posters, packaging, screens, books."""
    x, y = _grid()
    pattern = np.full((SIZE, SIZE), rng.random())
    for _ in range(14):
        cx, cy, w, h = *rng.random(2), *(0.03 + 0.3 * rng.random(2) ** 2)
        disc = rng.random() < 0.3
        inside = np.hypot((x - cx) / w, (y - cy) / w) < 1 if disc else (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
        pattern[inside] = rng.random()
    lines = ((y * 40) % 1 < 0.45) & (_noise(rng, 0.3, stretch=0.05) > 0.45) & (np.abs(x - 0.5) < 0.35) & (y > 0.6)
    return np.where(lines, 1 - pattern, pattern), 0.9 + 0.1 * _noise(rng, 1)


_MAKERS: dict[str, tuple[Callable[[np.random.Generator], tuple[Array, Array]], int]] = {
    "plain": (_plain, 4), "rough": (_rough, 6), "tiles": (_tiles, 6), "checks": (_checks, 4), "wood": (_wood, 5),
    "facade": (_facade, 4), "leaves": (_leaves, 4), "pebbles": (_pebbles, 3), "fabric": (_fabric, 4),
    "print": (_print, 6),
}  # fmt: skip


def _family_indices() -> dict[str, list[int]]:
    indices, start = {}, 0
    for name, (_, count) in _MAKERS.items():
        indices[name] = list(range(start, start + count))
        start += count
    return indices


#: Numbers of the procedural textures of each family; photographs follow them in the bank.
FAMILIES = _family_indices()
PROCEDURAL = sum(count for _, count in _MAKERS.values())


@dataclass(frozen=True)
class Bank:
    """`texels`: uint8 (textures * TEXELS, 4), each texture with all its levels, finest first; `photos`: how many."""

    texels: Tensor
    photos: int

    def to(self, device: torch.device) -> Bank:
        """The bank on another device."""
        return Bank(self.texels.to(device), self.photos)

    def sample(self, texture_P: Tensor, u_P: Tensor, v_P: Tensor, footprint_P: Tensor) -> Tensor:
        """Bilinear texels (P, 3) in 0..1 at (u, v), in tiles; `footprint`: width of a pixel, in tiles."""
        level = torch.log2((footprint_P * SIZE).clamp(1.0, SIZE)).round().to(torch.int32)
        size = torch.bitwise_right_shift(torch.full_like(level, SIZE), level)
        start = torch.tensor(_LEVEL_START, dtype=torch.int32, device=level.device)[level.long()]
        base = texture_P.to(torch.int32) * TEXELS + start
        x, y = (u_P - u_P.floor()) * size - 0.5, (v_P - v_P.floor()) * size - 0.5
        x_floor, y_floor = x.floor(), y.floor()
        wrap = size - 1
        x0, y0 = x_floor.to(torch.int32) & wrap, y_floor.to(torch.int32) & wrap
        x1, y1 = (x0 + 1) & wrap, (y0 + 1) & wrap
        row0, row1 = base + y0 * size, base + y1 * size
        corners = torch.stack([row0 + x0, row0 + x1, row1 + x0, row1 + x1])
        texel = self.texels.index_select(0, corners.reshape(-1)).view(*corners.shape, 4)[..., :3].to(torch.float32)
        fx, fy = (x - x_floor)[:, None], (y - y_floor)[:, None]
        top, bottom = torch.lerp(texel[0], texel[1], fx), torch.lerp(texel[2], texel[3], fx)
        return torch.lerp(top, bottom, fy) / 255


def _pyramid(image: Array) -> NDArray[np.uint8]:
    """All levels of a (SIZE, SIZE, 3) image in 0..1 as uint8 (TEXELS, 4)."""
    levels = []
    while True:
        levels.append(np.pad(image.reshape(-1, 3), ((0, 0), (0, 1))))
        if image.shape[0] == 1:
            return np.round(np.concatenate(levels) * 255).astype(np.uint8)
        image = (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) / 4


def _photo_tile(photo: NDArray[np.uint8], number: int) -> Array:
    """A photograph as a tile: linear light, halved and mirrored so that it repeats without seams."""
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or min(photo.shape[:2]) < 8:
        raise InputError(f"photo {number}: needs uint8 (H, W, 3) of at least 8x8, got {photo.dtype} {photo.shape}")
    linear = torch.from_numpy((photo.astype(np.float32) / 255) ** 2.2).permute(2, 0, 1)[None]
    half = torch.nn.functional.interpolate(linear, (SIZE // 2, SIZE // 2), mode="area")[0].permute(1, 2, 0).numpy()
    wide = np.concatenate([half, half[:, ::-1]], axis=1)
    return np.concatenate([wide, wide[::-1]], axis=0)


@cache
def _procedural_texels() -> NDArray[np.uint8]:
    textures = []
    for number, (maker, count) in enumerate(_MAKERS.values()):
        for variant in range(count):
            rng = np.random.default_rng([number, variant])
            pattern, shade = maker(rng)
            textures.append(_pyramid(np.stack([pattern, shade, _noise(rng, 2.2)], axis=-1)))
    return np.concatenate(textures)


def bank(photos: Sequence[NDArray[np.uint8]] = ()) -> Bank:
    """The bank of the procedural textures and `photos` (uint8 (H, W, 3) sRGB); raises InputError for a bad photo."""
    tiles = [_pyramid(_photo_tile(np.asarray(photo), i)) for i, photo in enumerate(photos)]
    return Bank(torch.from_numpy(np.concatenate([_procedural_texels(), *tiles])), len(tiles))
