"""KITTI object detection: `image_2/*.png`, `velodyne/*.bin`, `calib/*.txt` (https://www.cvlibs.net/datasets/kitti).

A pixel is P2 · R0_rect · Tr_velo_to_cam · X; the fourth column of P2 is the baseline to camera 0 times the focal
length, so the depth is that of the left colour camera. P2 counts the first pixel's centre as 0 (OpenCV): 0.5 is added.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.frame import Frame
from metricanything.sources.clouds import read_columns
from metricanything.sources.common import Items, Origin, list_images, make_frame, require_file
from metricanything.sources.kitti_raw import read_matrices, shaped, split_projection
from metricanything.sources.lidar import project_cloud, rigid

_ORIGIN = Origin("captured", "lidar", "KITTI object", "CC BY-NC-SA 3.0")


def items(path: Path, *, see_through: bool = True) -> Items:
    """Frames of all `image_2` folders at or below `path` (the root, training or testing), sorted.

    Where several points fall on a pixel the nearest counts; with `see_through` those that shine through a nearer
    surface are left out. Raises InputError (see `Items`).
    """
    path = Path(path)
    folders = [path / "image_2", *sorted(path.glob("*/image_2"))]
    found = [p for folder in folders for p in list_images(folder)]
    expected = "image_2/*.png with velodyne/*.bin and calib/*.txt"
    return Items(found, partial(_load, path, see_through), path=path, expected=expected)


def _load(root: Path, see_through: bool, file: Path) -> Frame:
    split = file.parents[1]
    calibration = require_file(split / "calib" / f"{file.stem}.txt", "every image needs its calibration")
    sweep = require_file(split / "velodyne" / f"{file.stem}.bin", "this image has no LiDAR sweep; leave it out")
    image = read_image(file)
    camera, cam_from_velo = _calibration(calibration, image.shape[1], image.shape[0])
    depth, notes = project_cloud(read_columns(sweep, 4)[:, :3], cam_from_velo, camera, see_through=see_through)
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root, split), sweep, notes=notes)


def _calibration(path: Path, width: int, height: int) -> tuple[Camera, NDArray[np.float64]]:
    """The left colour camera and its transform (4, 4) from the LiDAR's frame."""
    values = read_matrices(path)
    p = shaped(values, "P2", (3, 4), path)
    rectify = rigid(shaped(values, "R0_rect", (3, 3), path), np.zeros(3))
    tr = np.vstack([shaped(values, "Tr_velo_to_cam", (3, 4), path), [0, 0, 0, 1]])
    camera, baseline = split_projection(p, width, height, f"{path}: P2")
    return camera, baseline @ rectify @ tr
