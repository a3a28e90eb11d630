"""The procedural renderer: rooms, streets and open country with exact depth, from nothing but seeds.

`render` gives tensors for a batch of seeds; `items` gives them as frames, like every other source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, OnError

if TYPE_CHECKING:
    from metricanything.sources.procedural.texture import Bank

__all__ = ["items", "render"]

LICENCE = "CC0-1.0 (generated)"
_WITH_PHOTOS = "generated, with photographs under terms of their own"
_BATCH = 8


def __getattr__(name: str) -> Any:
    if name != "render":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from metricanything.sources.procedural.rendering import render

    return render


def items(
    path: str | Path | None = None,
    *,
    count: int = 1000,
    seed: int = 0,
    width: int = 160,
    height: int = 120,
    device: str = "cpu",
    photos: Path | None = None,
) -> Items:
    """`count` rendered frames of `width` x `height` pixels, each with its own scene, camera and pose.

    `path` is not needed and must be None or empty: this source makes its frames. Frame k of seed s is the same in
    every run and does not depend on `count`. `photos`: a folder of pictures, at most 256 of which (evenly spread over
    all below it) cover half of the surfaces; the frames then carry the terms of these photographs, as their licence
    says. Raises InputError at once when `path` names something, `count` is negative, the size is not between 16 and
    8192 pixels or `photos` holds no pictures.
    """
    if path is not None and str(path) not in ("", "."):
        raise InputError(f"{path}: the procedural source reads no files; leave the path out and set count and seed")
    if count < 0:
        raise InputError(f"procedural source: count must not be negative, got {count}")
    if not (16 <= width <= 8192 and 16 <= height <= 8192):
        raise InputError(f"procedural source: width and height must lie between 16 and 8192, got {width}x{height}")
    if not 0 <= seed < 2**32:
        raise InputError(f"procedural source: seed must lie between 0 and 2^32, got {seed}")
    bank = None if photos is None else _photo_bank(photos, device)
    return _Scenes(count, partial(_frames, seed=seed, width=width, height=height, device=device, bank=bank))


def _photo_bank(folder: Path, device: str) -> Bank:
    """On the device once, not with every batch."""
    import torch

    from metricanything.sources.procedural.photos import read_photos
    from metricanything.sources.procedural.texture import bank

    return bank(read_photos(folder)).to(torch.device(device))


class _Scenes(Items):
    """Frames that are rendered a batch at a time, which takes two thirds of the time of one by one."""

    def __init__(self, count: int, frames: Callable[[range], Iterator[Frame]]) -> None:
        self._count, self._frames = count, frames

    def __len__(self) -> int:
        return self._count

    def load(self, number: int) -> Frame:
        return next(self._frames(range(number, number + 1)))

    def read(self, numbers: range | None = None, on_error: OnError | None = None) -> Iterator[tuple[int, Frame]]:
        numbers = range(len(self)) if numbers is None else numbers
        for start in range(0, len(numbers), _BATCH):
            batch = numbers[start : start + _BATCH]
            yield from zip(batch, self._frames(batch), strict=True)


def _frames(numbers: range, *, seed: int, width: int, height: int, device: str, bank: Bank | None) -> Iterator[Frame]:
    from metricanything.sources.procedural.rendering import render

    batch = render([(seed << 32) + k for k in numbers], width, height, device=device, photos=bank or ())
    images, depths = batch.image.cpu().numpy(), batch.depth.cpu().numpy()
    for i, k in enumerate(numbers):
        yield Frame(
            name=f"procedural/{k:06d}/0",  # a scene each: views of different ones are no neighbours
            image=images[i],
            depth=depths[i],
            camera=batch.cameras[i],
            kind="rendered",
            sensor="synthetic",
            source="procedural",
            licence=_WITH_PHOTOS if bank else LICENCE,
            world_from_cam=batch.world_from_cam[i],
            notes={"seed": seed, "scene": batch.kind[i]},
        )
