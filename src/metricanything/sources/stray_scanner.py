"""Stray Scanner recordings (https://github.com/strayrobots/scanner): iPhone LiDAR with a video.

    rgb.mp4  depth/NNNNNN.png  confidence/NNNNNN.png  camera_matrix.csv  odometry.csv

Depth PNG / 1000 = metres on the sensor's grid (256x192), confidence 0 to 2. `camera_matrix.csv` is K at the size of the
video; ARKit counts the first pixel's centre as 0: 0.5 is added. `odometry.csv` has a row for every frame: timestamp,
frame, x, y, z, qx, qy, qz, qw; taken as world from camera with OpenCV's axes, as the project's own scripts do. Frames
beyond the shorter of video and depth are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import late
from metricanything.sources.common import (
    Items,
    OnError,
    Origin,
    list_images,
    load_each,
    make_frame,
    read_numbers,
    require_file,
)
from metricanything.sources.lidar import rigid
from metricanything.sources.record3d import clean

_ORIGIN = Origin("captured", "tof", "Stray Scanner", "not stated")


def items(path: Path, *, min_confidence: int = 1, flying: bool = True) -> Items:
    """Frames of one recording, in order; pixels of a confidence below `min_confidence` (0 to 2) are removed.

    With `flying` (the default), so are those that mix foreground and background. Raises InputError (see `Items`).
    """
    path = Path(path)
    found = list_images(path / "depth") if (path / "rgb.mp4").is_file() else []
    load = partial(_load, path, min_confidence, flying)
    return _Recording(found, load, path=path, expected="rgb.mp4, depth/NNNNNN.png, camera_matrix.csv and odometry.csv")


class _Recording(Items):
    """Frames of a video: it is decoded once from the first frame asked for, since later ones build on earlier ones."""

    def load(self, number: int) -> Frame:
        """Frame `number`; raises InputError when it is bad."""
        return next(frame for _, frame in self.read(range(number, number + 1)))

    def read(self, numbers: range | None = None, on_error: OnError | None = None) -> Iterator[tuple[int, Frame]]:
        """The frames of `numbers`, see `Items.read`."""
        numbers = range(len(self)) if numbers is None else numbers
        video = self._items[0].parents[1] / "rgb.mp4"
        pictures = _pictures(video, numbers)

        def load(number: int) -> Frame:
            picture = next(pictures, None)
            if picture is None:
                raise InputError(f"{video}: ends before frame {number}; this depth map has no image")
            return self._load((self._items[number], picture))

        return load_each(numbers, load, on_error)


def _pictures(video: Path, numbers: range) -> Iterator[NDArray[np.uint8]]:
    av = late("av", "videos")
    with reading(video, "video"), av.open(str(video)) as container:
        for n, picture in enumerate(container.decode(video=0)):
            if n in numbers:
                yield picture.to_ndarray(format="rgb24")
            if n >= numbers[-1]:
                return


def _load(root: Path, min_confidence: int, flying: bool, item: tuple[Path, NDArray[np.uint8]]) -> Frame:
    file, image = item
    k = read_numbers(require_file(root / "camera_matrix.csv", "it holds K"), 9, delimiter=",")
    height, width = image.shape[:2]
    camera = Camera.pinhole(k[0], k[4], k[2] + 0.5, k[5] + 0.5, width, height)
    depth, removed = clean(read_depth(file, 1000.0), root / "confidence" / file.name, min_confidence, flying)
    pose = _pose(root / "odometry.csv", file)
    name = f"{root.resolve().name}/{file.stem}"
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), file, pose=pose, notes={"removed": removed})


def _pose(path: Path, file: Path) -> NDArray[np.float64] | None:
    """Pose of the frame whose number is the name of the depth file."""
    if not path.is_file():
        return None
    with reading(path, "table of poses"):
        rows: list[Any] = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        row = next((row for row in rows if int(row[1]) == int(file.stem)), None)
        if row is None:
            return None
        values = np.array(row[2:9], dtype=np.float64)
    return rigid(Rotation.from_quat(values[3:]), values[:3])
