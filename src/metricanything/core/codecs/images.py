"""8-bit sRGB images, in and out, by Pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from metricanything.core.codecs.reading import check_size, reading
from metricanything.core.errors import InputError
from metricanything.core.files import write_bytes

Image8 = NDArray[np.uint8]

_FLIPS = {  # EXIF orientation (Exif 2.3, tag 0x0112) -> the operation that makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def open_image(source: Path | bytes, name: str | Path, what: str = "image") -> Iterator[Image.Image]:
    """An opened Pillow image of checked size, its pixels not decoded yet; `InputError` for any failure in the block."""
    with reading(name, what):
        if (len(source) if isinstance(source, bytes) else source.stat().st_size) == 0:
            raise InputError(f"{name}: the file is empty; fetch or write it again")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            check_size(name, *image.size)
            yield image


def read_image(path: str | Path) -> Image8:
    """Read an image file as uint8 (H, W, 3) sRGB, upright by its EXIF orientation.

    Grey, palette and CMYK images are converted, 16-bit grey is scaled to 8 bits, alpha is dropped (the colours beneath
    are kept, as the published models' own readers do). Raises InputError when the file is missing, no image, damaged
    or larger than `MAX_PIXELS`.
    """
    return _decode(Path(path), str(path))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) that `read_image` will give, from the file's header alone; raises InputError like it."""
    with open_image(Path(path), str(path)) as image:
        width, height = image.size
        return (width, height) if _exif(image).get(ExifTags.Base.Orientation, 1) >= 5 else (height, width)


def decode_image(data: bytes, name: str) -> Image8:
    """The same as `read_image` for a file in memory; `name` stands for it in messages."""
    return _decode(data, name)


def decode_window(
    data: bytes, name: str, size: tuple[int, int], box: tuple[int, int, int, int], reduction: int = 1
) -> Image8:
    """The window `box` (left, top, right, bottom in whole pixels) of an image file in memory; black outside the image.

    With a `reduction` of 2, 4 or 8, which must divide the box, a JPEG is decoded at that part of its size, in a
    fraction of the time; other files come at full size. `size` is the expected (height, width) of the whole image:
    another raises InputError, as all that `decode_image` refuses does. EXIF orientation is not looked at.
    """
    with open_image(data, name) as image:
        width, height = image.size
        if (height, width) != size:
            raise InputError(f"{name}: image has {width}x{height} pixels, not {size[1]}x{size[0]}")
        if reduction > 1 and image.draft("RGB", (width // reduction, height // reduction)) is not None:
            # Blocks of 8 pixels become blocks of 4, 2 or 1: the grid keeps its origin.
            reduction = round(width / image.width)
            left, top, right, bottom = (side // reduction for side in box)
            box = left, top, right, bottom
        return np.array((image if image.mode == "RGB" else _to_rgb(image, name)).crop(box))


def _decode(source: Path | bytes, name: str) -> Image8:
    with open_image(source, name) as image:
        image.load()
        turn = _FLIPS.get(_exif(image).get(ExifTags.Base.Orientation, 1))
        upright = image if turn is None else image.transpose(turn)
        return np.array(_to_rgb(upright, name))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{name}: holds floating-point values, not a picture; convert it to 8-bit sRGB")
    if image.mode.startswith("I"):  # 16-bit grey, which older Pillow opens as 32-bit integers
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{name}: holds 32-bit values, not a picture; convert it to 8-bit sRGB")
        return Image.fromarray(np.round(values / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode == "P":  # by way of RGBA, since a palette may carry transparency in a form RGB cannot take
        image = image.convert("RGBA")
    return image.convert("RGB")


def _exif(image: Image.Image) -> dict[int, Any]:
    """EXIF values of the main and the Exif directory; empty when damaged, which is no reason to refuse the picture."""
    try:
        exif = image.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}
    except Exception:
        return {}


def exif_focal_px(path: str | Path) -> float | None:
    """Focal length in pixels from EXIF, f35 * sqrt(W^2 + H^2) / sqrt(36^2 + 24^2); None when absent or zero.

    f35 is FocalLengthIn35mmFilm in millimetres, scaled by the diagonal (the rule of Depth Pro, arXiv 2410.02073).
    Raises InputError when the file is no readable image.
    """
    with open_image(Path(path), str(path)) as image:
        try:
            f35 = float(_exif(image).get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        except (TypeError, ValueError, ZeroDivisionError):
            return None
        if not (math.isfinite(f35) and f35 > 0):
            return None
        return f35 * math.hypot(*image.size) / math.hypot(36, 24)


def encode_jpeg(image: Image8, quality: int = 92) -> bytes:
    """JPEG file of an image uint8 (H, W, 3) sRGB."""
    return _encode(image, "JPEG", quality=quality)


def encode_png(image: Image8) -> bytes:
    """PNG file of an image uint8 (H, W, 3) sRGB; exact."""
    return _encode(image, "PNG", compress_level=3)


def _encode(image: Image8, kind: str, **options: int) -> bytes:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(f"image must be uint8 (H, W, 3) and not empty, got {image.dtype} {image.shape}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def write_image(path: str | Path, image: Image8) -> None:
    """Write an image uint8 (H, W, 3) sRGB as .png (exact) or .jpg; raises InputError for another suffix."""
    encoders = {".png": encode_png, ".jpg": encode_jpeg, ".jpeg": encode_jpeg}
    suffix = Path(path).suffix.lower()
    if suffix not in encoders:
        raise InputError(f"{path}: images are written as .png or .jpg; choose one of these suffixes")
    write_bytes(path, encoders[suffix](image))
