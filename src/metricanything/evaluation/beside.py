"""What some evaluation sets keep beside an image: maps of its objects, and mattes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame

#: Labels of MoGe's segmentation maps that are no objects.
_NO_OBJECT = frozenset({"undefined", "unannotated", "background", "sky"})


def read_segments(file: Path, frame: Frame) -> NDArray[np.int32] | None:
    """Objects int32 (H, W) of a PNG of whole numbers, 0 = none; None where there is no such file.

    A PNG with a text entry `labels`, a JSON object of names and numbers as in MoGe's evaluation sets, has objects at
    the numbers named there, without undefined, unannotated, background and sky. Raises InputError for another size.
    """
    if not file.is_file():
        return None
    values, labels = _read(file, frame)
    if labels is None:
        return values.astype(np.int32)
    try:
        numbers = [int(number) for name, number in json.loads(labels).items() if name not in _NO_OBJECT]
    except (ValueError, TypeError, AttributeError):
        raise InputError(f"{file}: its labels are no JSON object of names and numbers; write it again") from None
    return np.where(np.isin(values, numbers), values.astype(np.int32) + 1, 0).astype(np.int32)  # 0 may be an object


def read_matte(file: Path, frame: Frame) -> NDArray[np.float32] | None:
    """Share of foreground float32 (H, W) in 0..1 of a grey PNG; None where there is no such file.

    Raises InputError for another size.
    """
    if not file.is_file():
        return None
    values, _ = _read(file, frame)
    most = 1 if values.dtype == np.bool_ else np.iinfo(values.dtype).max
    return (values / np.float32(most)).astype(np.float32)


def _read(file: Path, frame: Frame) -> tuple[NDArray[Any], str | None]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            values, labels = np.array(picture), picture.info.get("labels")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{file}: cannot be read ({str(error).splitlines()[0]}); write it again") from None
    if values.ndim == 3 and not np.any(values[..., :3] != values[..., :1]):
        values = values[..., 0]  # grey, stored as colours
    if values.shape != (frame.height, frame.width) or not (
        values.dtype == np.bool_ or np.issubdtype(values.dtype, np.integer)
    ):
        raise InputError(
            f"{file}: is {values.dtype} {values.shape}, its image {frame.height} x {frame.width}; give a grey PNG of "
            "the size of the image"
        )
    return values, labels
