"""What every reader shares: listing then loading, bad items, camera records and provenance files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.files import read_json
from metricanything.core.frame import Frame, Kind, Scale, Sensor

#: Called with the one-line message of an item that cannot be read; the reader then goes on with the next item.
OnError = Callable[[str], None]
Item = TypeVar("Item")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class Items:
    """The frames of one data set by number, each loaded only when it is asked for.

    The order is the same in every process that opens the same data. Raises InputError, naming the `expected` layout,
    when there are none.
    """

    def __init__(self, items: Sequence[Item], load: Callable[[Item], Frame], *, path: Path, expected: str) -> None:
        if not items:
            raise InputError(f"no frames found in {path}; expected {expected}")
        self._items: Sequence[Any] = items
        self._load: Callable[[Any], Frame] = load

    def __len__(self) -> int:
        return len(self._items)

    def load(self, number: int) -> Frame:
        """Frame `number`; raises InputError when it is bad."""
        return self._load(self._items[number])

    def read(self, numbers: range | None = None, on_error: OnError | None = None) -> Iterator[tuple[int, Frame]]:
        """The frames of `numbers` (all by default), each with its number.

        One whose loading raises InputError is passed to `on_error` as a message and skipped; without `on_error` the
        error is raised.
        """
        return load_each(range(len(self)) if numbers is None else numbers, self.load, on_error)


def load_each(numbers: range, load: Callable[[int], Frame], on_error: OnError | None) -> Iterator[tuple[int, Frame]]:
    """`load` of each number, with what is bad treated as `Items.read` does."""
    for number in numbers:
        try:
            frame = load(number)
        except InputError as error:
            if on_error is None:
                raise
            on_error(str(error))
        else:
            yield number, frame


class Changed(Items):
    """The first `limit` of other items (all for None), each frame passed through `change`."""

    def __init__(self, items: Items, change: Callable[[Frame], Frame] | None, limit: int | None) -> None:
        self._inner, self._change = items, change
        self._count = len(items) if limit is None else min(limit, len(items))

    def __len__(self) -> int:
        return self._count

    def load(self, number: int) -> Frame:
        frame = self._inner.load(number)
        return frame if self._change is None else self._change(frame)

    def read(self, numbers: range | None = None, on_error: OnError | None = None) -> Iterator[tuple[int, Frame]]:
        numbers = range(len(self)) if numbers is None else numbers
        for number, frame in self._inner.read(numbers, on_error):
            yield number, frame if self._change is None else self._change(frame)


def files_below(folder: Path) -> list[Path]:
    """All files below `folder` at any depth, sorted; linked folders are followed, hidden files left out."""
    seen: set[str] = set()
    found: list[Path] = []
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:  # a link back to where we have been
            folders.clear()
            continue
        seen.add(real)
        found += [Path(root) / name for name in names if not name.startswith(".")]
    return sorted(found)


def list_images(folder: Path) -> list[Path]:
    """Image files below `folder` at any depth, sorted by path."""
    return [p for p in files_below(folder) if p.suffix.lower() in IMAGE_SUFFIXES]


def read_dataset_record(*folders: Path) -> dict[str, Any]:
    """The first `dataset.json` found in `folders`, or an empty record.

    It says what a raw format cannot: `source` (a name) and `licence` (terms of the data) are known to every reader.
    """
    for folder in folders:
        if (folder / "dataset.json").is_file():
            return read_record(folder / "dataset.json")
    return {}


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object; raises InputError otherwise."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path}: must hold a JSON object {{...}}, got {type(record).__name__}")
    return record


def camera_from_record(record: dict[str, Any], width: int, height: int, where: Path) -> Camera | None:
    """The camera of an image of `width` x `height` pixels from a JSON record, or None when it states none.

    Four forms: `Camera.to_dict()`; `{"fx", "fy", "cx", "cy"}`; `{"cam_in": [fx, fy, cx, cy]}`; MoGe's `{"intrinsics":
    K}` (3, 3), normalised by the size of the image; or one of them under "camera", as in the `camera.json` of a
    prediction and the records of shards. The first pixel centre is (0.5, 0.5) unless the record says `"pixel_centre":
    0`, as the tools do that count pixel centres from 0. A stated `width` and `height` of the same aspect ratio are
    scaled to the image; raises InputError for another aspect ratio, and, where no size is stated, for a principal
    point that belongs to an image of another size.
    """
    if isinstance(record.get("camera"), dict):
        record = record["camera"]
    stated = bool(record.get("width") and record.get("height"))
    try:
        if "model" in record:
            camera = Camera.from_dict(record)
        else:
            if "intrinsics" in record and record.get("fx") is None:
                (fx, _, cx), (_, fy, cy), _ = record["intrinsics"]
                record = {"cam_in": [fx * width, fy * height, cx * width, cy * height]}
            values = record["cam_in"] if "cam_in" in record else [record.get(k) for k in ("fx", "fy", "cx", "cy")]
            if all(v is None for v in values):
                return None
            fx, fy, cx, cy = (float(str(v)) for v in values)
            size = record.get("width") or width, record.get("height") or height
            camera = Camera.pinhole(fx, fy, cx, cy, *size)
        half = 0.5 - float(record.get("pixel_centre", 0.5))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (TypeError, ValueError):
        raise InputError(f"{where}: camera needs fx, fy, cx, cy as numbers; correct the file") from None
    if half not in (0.0, 0.5):
        raise InputError(f"{where}: pixel_centre must be 0 or 0.5 (the first pixel's centre), got {0.5 - half}")
    # Lenses sit within a few percent of the centre; a crop that moved it further has to state its size.
    if not stated and (abs(camera.cx / width - 0.5) > 0.25 or abs(camera.cy / height - 0.5) > 0.25):
        raise InputError(
            f"{where}: principal point ({camera.cx:g}, {camera.cy:g}) is far from the centre of the {width}x{height} "
            "image; add width and height of the image it is for"
        )
    camera = camera.crop(-half, -half, camera.width, camera.height)
    if (camera.width, camera.height) == (width, height):
        return camera
    if not same_aspect(camera.width, camera.height, width, height):
        raise InputError(
            f"{where}: camera is for {camera.width}x{camera.height} pixels but the image has {width}x{height}, "
            "another aspect ratio; give the camera of the cropped image"
        )
    return camera.resize(width, height)


def same_aspect(width: int, height: int, other_width: int, other_height: int) -> bool:
    """Whether two sizes show the same view: equal aspect ratio up to the rounding of the smaller one to pixels."""
    return abs(width * other_height - height * other_width) < max(width, height, other_width, other_height)


def require_file(path: Path, remedy: str) -> Path:
    """`path` if it is a file, else InputError with the remedy."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; {remedy}")
    return path


def require_size(path: Path, pixels: NDArray[Any], width: int, height: int, what: str) -> None:
    """Raise InputError naming the file unless its `pixels` (H, W, ...) have the size of `what`."""
    if pixels.shape[:2] != (height, width):
        raise InputError(
            f"{path}: has {pixels.shape[1]}x{pixels.shape[0]} pixels but {what} has {width}x{height}; "
            "give the files that belong together"
        )


# ---------------------------------------------------------------- frames


@dataclass(frozen=True)
class Origin:
    """What all frames of a data set have in common; `dataset.json` in its folder goes before `source` and `licence`."""

    kind: Kind
    sensor: Sensor
    source: str
    licence: str
    scale: Scale = "metric"

    def stated(self, *folders: Path) -> Origin:
        """The same with what the first `dataset.json` in `folders` says."""
        record = read_dataset_record(*folders)
        return replace(
            self,
            source=str(record.get("source", self.source)),
            licence=str(record.get("licence", self.licence)),
        )


def make_frame(
    name: str,
    image: NDArray[np.uint8],
    depth: NDArray[np.float32],
    camera: Camera,
    origin: Origin,
    where: Path,
    *,
    pose: NDArray[np.float64] | None = None,
    notes: dict[str, Any] | None = None,
) -> Frame:
    """A frame of an image with a depth map of the same view; `where` is the depth file, for messages.

    A camera stated for another size of the same aspect ratio is scaled to the image; depth of fewer pixels is placed
    (see `place_depth`). A pose that is not finite (tracking lost) is left out and noted. Raises InputError when sizes
    do not belong together.
    """
    height, width = image.shape[:2]
    notes = dict(notes or {})
    if (camera.width, camera.height) != (width, height):
        if not same_aspect(camera.width, camera.height, width, height):
            raise InputError(
                f"{where}: its camera is for {camera.width}x{camera.height} pixels but the image has {width}x{height}; "
                "give the files that belong together"
            )
        camera = camera.resize(width, height)
    if depth.shape != (height, width):
        notes["depth_grid"] = [depth.shape[1], depth.shape[0]]
        depth = place_depth(depth, width, height, where)
    if pose is not None and not np.isfinite(pose).all():
        pose, notes["pose"] = None, "lost"
    return Frame(
        name=name,
        image=image,
        depth=depth,
        camera=camera,
        kind=origin.kind,
        sensor=origin.sensor,
        source=origin.source,
        licence=origin.licence,
        scale=origin.scale,
        world_from_cam=pose,
        notes=notes,
    )


def place_depth(depth: NDArray[np.float32], width: int, height: int, where: Path) -> NDArray[np.float32]:
    """`depth` on the image grid: each value at the image pixel that holds its pixel centre, NaN between."""
    rows, columns = depth.shape
    if columns > width or rows > height or not same_aspect(width, height, columns, rows):
        raise InputError(
            f"{where}: depth has {columns}x{rows} pixels and the image {width}x{height}; give depth of the same view: "
            "equal size, or smaller with the same aspect ratio"
        )
    u = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    v = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    grid = np.full((height, width), np.nan, dtype=np.float32)
    grid[np.ix_(v, u)] = depth
    return grid


def read_numbers(path: Path, count: int | None = None, *, delimiter: str | None = None) -> NDArray[np.float64]:
    """All numbers of a text file in order, exactly `count` of them where it is given; InputError otherwise."""
    from metricanything.core.codecs.reading import reading  # late: codecs bring Pillow, which the registry does without

    with reading(path, "text file of numbers"):
        text = path.read_text(encoding="utf-8")
        values = np.array(text.replace(delimiter, " ").split() if delimiter else text.split(), dtype=np.float64)
    if count is not None and len(values) != count:
        raise InputError(f"{path}: holds {len(values)} numbers instead of {count}; fetch the file again")
    return values


def cv_from_gl(world_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
    """A pose (4, 4) whose camera frame is OpenGL's (x right, y up, z backward) as one of ours (OpenCV)."""
    return world_from_cam @ np.diag([1.0, -1.0, -1.0, 1.0])
