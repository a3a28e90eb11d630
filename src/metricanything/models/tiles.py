"""The tile pyramid of Depth Pro (arXiv 2410.02073): one square image -> 5x5 + 3x3 + 1 overlapping tiles of one size.

Shapes: B batch, S side of the image (four tile sides), T side of a tile in pixels, t in tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Level:
    """One resolution of the pyramid: `steps` x `steps` tiles that overlap by the share `overlap`."""

    scale: float
    steps: int
    overlap: float

    def trim(self, tokens: int) -> int:
        """Tokens cut from every inner side of a tile of `tokens` so that neighbours meet in the overlap's middle."""
        return int(tokens * self.overlap / 2)

    def merged(self, tokens: int) -> int:
        """Side of the merged map in tokens: 96, 48 and 24 for tiles of 24."""
        return self.steps * tokens - 2 * (self.steps - 1) * self.trim(tokens)


LEVELS = (Level(1.0, 5, 0.25), Level(0.5, 3, 0.5), Level(0.25, 1, 0.0))
TILES_AT_ONCE = sum(level.steps**2 for level in LEVELS)


@dataclass(frozen=True)
class Tile:
    """Where a tile sits: its level (index into `LEVELS`), row and column."""

    level: int
    row: int
    column: int


def tile_places() -> Iterator[Tile]:
    """All 35 tiles, level by level, row by row."""
    for index, level in enumerate(LEVELS):
        for row in range(level.steps):
            for column in range(level.steps):
                yield Tile(index, row, column)


def pyramid(image_B3SS: Tensor) -> list[Tensor]:
    """The image at every level's scale: bilinear from the full one, without antialiasing, as published."""
    return [
        image_B3SS
        if level.scale == 1
        else F.interpolate(image_B3SS, scale_factor=level.scale, mode="bilinear", align_corners=False)
        for level in LEVELS
    ]


def cut(levels: list[Tensor], tile: Tile, side: int) -> Tensor:
    """The pixels of a tile (B, 3, T, T), a view into its level."""
    stride = round(side * (1 - LEVELS[tile.level].overlap))
    top, left = tile.row * stride, tile.column * stride
    return levels[tile.level][..., top : top + side, left : left + side]


def paste(merged_BDMM: Tensor, tokens_BDtt: Tensor, tile: Tile) -> None:
    """Write the tokens of a tile to their place in the merged map, without those of the overlap that others give."""
    level, t = LEVELS[tile.level], tokens_BDtt.shape[-1]
    trim = level.trim(t)
    step = t - 2 * trim  # of inner tiles; the first keeps its outer side too

    def spans(index: int) -> tuple[slice, slice]:
        first, last = index == 0, index == level.steps - 1
        source = slice(0 if first else trim, t if last else t - trim)
        start = 0 if first else trim + index * step
        return source, slice(start, start + source.stop - source.start)

    (rows, to_rows), (columns, to_columns) = spans(tile.row), spans(tile.column)
    merged_BDMM[..., to_rows, to_columns] = tokens_BDtt[..., rows, columns]
