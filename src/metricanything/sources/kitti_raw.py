"""KITTI raw data, synced and rectified: colour images with Velodyne sweeps (https://www.cvlibs.net/datasets/kitti).

    DATE/calib_cam_to_cam.txt calib_velo_to_cam.txt
    DATE/DRIVE_sync/image_02/data/NNNNNNNNNN.png  velodyne_points/data/NNNNNNNNNN.bin

A .bin holds float32 (x, y, z, reflectance) in metres, x forward. A pixel is P_rect_02 · R_rect_00 · Tr_velo_to_cam · X
(Geiger et al., IJRR 2013); the fourth column of P_rect is the baseline to camera 0 times the focal length, so the depth
here is that of the colour camera itself. Pixel centres: P_rect counts the first pixel's centre as 0 (OpenCV), so
0.5 is added to cx and cy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.clouds import read_columns
from metricanything.sources.common import (
    IMAGE_SUFFIXES,
    Items,
    read_dataset_record,
    require_file,
    require_size,
)
from metricanything.sources.lidar import project_cloud, rigid


@dataclass(frozen=True)
class Calibration:
    """One colour camera of a recording day; `cam_from_velo` (4, 4) takes the LiDAR frame to its frame, metres."""

    camera: Camera
    cam_from_velo: NDArray[np.float64]


def items(path: Path, *, camera: str = "02") -> Items:
    """Frames of all drives at or below `path` (the root, a date or one drive); depth is one LiDAR sweep.

    `camera` is "02" (left colour) or "03" (right colour). Where several points fall on a pixel the nearest counts, and
    points that shine through a nearer surface are left out (`visible_points`). Raises InputError (see `Items`), for
    an unknown camera and for calibration files that are missing or malformed.
    """
    if camera not in ("02", "03"):
        raise InputError(f"source kitti_raw: camera {camera!r} is no colour camera; use 02 or 03")
    path = Path(path).resolve()
    folders = [path / f"image_{camera}", *sorted(path.rglob(f"*/image_{camera}"))]
    images = [p for f in folders for p in sorted((f / "data").glob("*")) if p.suffix.lower() in IMAGE_SUFFIXES]
    days = {p.parents[3] for p in images}
    calibrations = {day: read_calibration(day, camera) for day in days}
    load = partial(_load, calibrations)
    expected = f"DATE/DRIVE_sync/image_{camera}/data/*.png with velodyne_points/data/*.bin"
    return Items(images, load, path=path, expected=expected)


def _load(calibrations: dict[Path, Calibration], image_path: Path) -> Frame:
    drive, day = image_path.parents[2], image_path.parents[3]
    calibration = calibrations[day]
    image = read_image(image_path)
    require_size(image_path, image, calibration.camera.width, calibration.camera.height, "S_rect in the calibration")
    points = read_sweep(drive / "velodyne_points" / "data" / f"{image_path.stem}.bin")
    depth, notes = project_cloud(points[:, :3], calibration.cam_from_velo, calibration.camera)
    record = read_dataset_record(drive, day)
    return Frame(
        name=f"{drive.name}/{image_path.parents[1].name}/{image_path.stem}",
        image=image,
        depth=depth,
        camera=calibration.camera,
        kind="captured",
        sensor="lidar",
        source=str(record.get("source", "KITTI raw")),
        licence=str(record.get("licence", "CC BY-NC-SA 3.0")),
        notes=notes,
    )


def project(xyz: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float32]:
    """z-depth (H, W) metres of LiDAR points (N, 3) seen by the camera; the nearest wins, NaN where none falls."""
    return project_cloud(xyz, calibration.cam_from_velo, calibration.camera)[0]


# ---------------------------------------------------------------- files


def read_sweep(path: Path) -> NDArray[np.float32]:
    """Points (N, 4) float32 of a Velodyne .bin: x, y, z in metres in the LiDAR frame, and reflectance."""
    return read_columns(require_file(path, "this image has no LiDAR sweep; leave it out"), 4)


def read_calibration(day: Path, camera: str) -> Calibration:
    """Calibration of camera "02" or "03" from the two text files in a recording day's folder."""
    cam_file, velo_file = day / "calib_cam_to_cam.txt", day / "calib_velo_to_cam.txt"
    cam, velo = read_matrices(cam_file), read_matrices(velo_file)
    p = shaped(cam, f"P_rect_{camera}", (3, 4), cam_file)
    size = shaped(cam, f"S_rect_{camera}", (2,), cam_file)
    rectify = rigid(shaped(cam, "R_rect_00", (3, 3), cam_file), np.zeros(3))
    tr = rigid(shaped(velo, "R", (3, 3), velo_file), shaped(velo, "T", (3,), velo_file))
    pinhole, baseline = split_projection(p, int(size[0]), int(size[1]), f"{cam_file}: P_rect_{camera}")
    return Calibration(pinhole, baseline @ rectify @ tr)


def split_projection(p: NDArray[np.float64], width: int, height: int, where: str) -> tuple[Camera, NDArray[np.float64]]:
    """The camera and the transform (4, 4) to it from camera 0 of P = K [I | t] (3, 4); `where` names P in messages."""
    k = p[:, :3]
    if abs(np.linalg.det(k)) < 1e-9 or abs(k[0, 1]) > 1e-6 * k[0, 0]:
        raise InputError(f"{where} is not a pinhole camera matrix; fetch the file again")
    camera = Camera.pinhole(k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5, width, height)
    return camera, rigid(np.eye(3), np.linalg.solve(k, p[:, 3]))


def read_matrices(path: Path) -> dict[str, NDArray[np.float64]]:
    """Lines `NAME: numbers`; lines without numbers (the time stamp) are left out."""
    require_file(path, "copy the calibration files of this date beside its drives")
    with reading(path, "UTF-8 text file"):
        text = path.read_text(encoding="utf-8")
    values = {}
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        try:
            values[name.strip()] = np.array(numbers.split(), dtype=np.float64)
        except ValueError:
            continue
    return values


def shaped(
    values: dict[str, NDArray[np.float64]], name: str, shape: tuple[int, ...], path: Path
) -> NDArray[np.float64]:
    """The numbers of one line as an array of `shape`; InputError when they are not there or not as many."""
    matrix = values.get(name)
    if matrix is None or matrix.size != np.prod(shape) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: no line {name} with {np.prod(shape)} numbers; fetch the file again")
    return matrix.reshape(shape)
