"""A user's photographs as textures: some of the pictures below a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from metricanything.core.codecs.images import open_image
from metricanything.core.errors import InputError
from metricanything.sources.common import files_below
from metricanything.sources.procedural.texture import SIZE

MOST = 256  # photographs of one bank, which takes 90 MB then
_MARGIN = 0.03  # of each side, left out: some archives have a white frame, which would draw a grid on every wall
_SUFFIXES = (".jpg", ".jpeg", ".png")
_OTHERS = ("depth", "prompt")  # begin the names of files and folders that hold no photographs


def read_photos(folder: str | Path) -> list[NDArray[np.uint8]]:
    """The middle squares, uint8 (SIZE, SIZE, 3), of at most `MOST` pictures spread evenly over all below `folder`.

    Taken are JPEG and PNG files of 8 bits, colour or grey, but for those below names in `depth` or `prompt`. Raises
    InputError when there is no such folder or no such picture, and for one that is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; photos names a folder of photographs")
    files = [file for file in files_below(root) if _is_photo(file.relative_to(root))]
    chosen = [files[k * len(files) // MOST] for k in range(MOST)] if len(files) > MOST else files
    photos = [photo for photo in map(_read, chosen) if photo is not None]
    if not photos:
        raise InputError(f"{root}: no photographs found; expected 8-bit pictures ({', '.join(_SUFFIXES)}) below it")
    return photos


def _is_photo(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not any(part.lower().startswith(_OTHERS) for part in file.parts)


def _read(file: Path) -> NDArray[np.uint8] | None:
    """The middle square of a picture; None when it is not of 8 bits, as a depth map."""
    with open_image(file, str(file)) as image:
        if image.mode not in ("RGB", "L"):
            return None
        image.draft(None, (2 * SIZE, 2 * SIZE))  # a large JPEG is decoded at a part of its size
        return np.array(ImageOps.fit(image.convert("RGB"), (SIZE, SIZE), bleed=_MARGIN))
