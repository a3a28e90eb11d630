"""Hypersim (https://github.com/apple/ml-hypersim): rendered rooms whose `depth_meters` are distances along the rays.

    SCENE/images/scene_CAM_final_preview/frame.NNNN.color.jpg  scene_CAM_geometry_hdf5/frame.NNNN.depth_meters.hdf5
    SCENE/_detail/CAM/camera_keyframe_{frame_indices,positions,orientations}.hdf5  SCENE/_detail/metadata_scene.csv
    metadata_camera_parameters.csv

Cameras are often tilted and shifted: `M_cam_from_uv` of the table takes (u, v, 1), u right and v up from -1 to 1, to a
ray with OpenGL's axes. Its inverse is split into K and a rotation (RQ): seen along the rotated axis the camera is a
plain pinhole, and z-depth is taken along that axis. Without the table the horizontal field of view is 60 degrees.
Positions are in asset units, multiplied by `meters_per_asset_unit`.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import rq

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.geometry import distance_to_depth
from metricanything.sources.clouds import late
from metricanything.sources.common import Items, Origin, list_images, make_frame, require_file
from metricanything.sources.lidar import rigid

_ORIGIN = Origin("rendered", "synthetic", "Hypersim", "CC BY-SA 3.0")
_CV_FROM_GL = np.diag([1.0, -1.0, -1.0])


def items(path: Path, *, table: Path | None = None) -> Items:
    """Frames of all cameras of all scenes at or below `path`, sorted; only the tone-mapped previews are read.

    `table` is metadata_camera_parameters.csv (by default in `path` or above it). Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in list_images(path) if p.parent.name.endswith("_final_preview") and ".color." in p.name]
    places = [Path(table)] if table else [p / "metadata_camera_parameters.csv" for p in (path, path.resolve().parent)]
    matrices = next((_read_table(p) for p in places if p.is_file()), {})
    if table and not matrices:
        raise InputError(f"{table}: no such table; give metadata_camera_parameters.csv")
    expected = "SCENE/images/scene_cam_00_final_preview/*.color.jpg with scene_cam_00_geometry_hdf5/*.depth_meters.hdf5"
    return Items(found, partial(_load, path, matrices), path=path, expected=expected)


def _load(root: Path, matrices: dict[str, NDArray[np.float64]], file: Path) -> Frame:
    scene, lens = file.parents[2], file.parent.name.removesuffix("_final_preview").removeprefix("scene_")
    image = read_image(file)
    height, width = image.shape[:2]
    frame = ".".join(file.name.split(".")[:2])
    geometry = file.parents[1] / f"scene_{lens}_geometry_hdf5" / f"{frame}.depth_meters.hdf5"
    distance = clean_depth(_dataset(require_file(geometry, "every preview needs its depth")), geometry)
    if distance.shape != (height, width):
        raise InputError(f"{geometry}: has {distance.shape} values and its image {height, width}; fetch both again")
    camera, new_from_cv = lens_of(matrices.get(scene.name), width, height, file)
    pose = _pose(scene / "_detail", lens, int(frame.split(".")[1]))
    if pose is not None:
        pose = pose @ rigid(_CV_FROM_GL @ new_from_cv.T, np.zeros(3))
    name = f"{scene.name}/{lens}/{frame}"
    depth = distance_to_depth(distance, camera)
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), geometry, pose=pose)


def lens_of(
    cam_from_uv: NDArray[np.float64] | None, width: int, height: int, where: Path
) -> tuple[Camera, NDArray[np.float64]]:
    """The pinhole camera of `M_cam_from_uv` and the rotation (3, 3) from the stated camera's axes (OpenCV) to its own.

    Raises InputError for a matrix with skew, which the camera model has no place for.
    """
    if cam_from_uv is None:
        tangent = np.tan(np.deg2rad(30))
        cam_from_uv = np.diag([tangent, tangent * height / width, -1.0])
    uv_from_pixel = np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])
    k, rotation = rq(np.linalg.inv(_CV_FROM_GL @ cam_from_uv @ uv_from_pixel))
    signs = np.diag(np.sign(np.diag(k)))
    k, rotation = k @ signs / abs(k[2, 2]), signs @ rotation
    if np.linalg.det(rotation) < 0:
        rotation = -rotation  # a homography's sign is free; rays point forward
    if abs(k[0, 1]) > 1e-4 * k[0, 0]:
        raise InputError(f"{where}: its camera is skewed ({k[0, 1] / k[0, 0]:.1e} of the focal length); leave it out")
    return Camera.pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2], width, height), rotation


def _read_table(path: Path) -> dict[str, NDArray[np.float64]]:
    """scene -> M_cam_from_uv (3, 3)."""
    with reading(path, "table of cameras"), path.open(newline="", encoding="utf-8") as file:
        return {
            row["scene_name"]: np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
            for row in csv.DictReader(file)
        }


def _dataset(path: Path) -> NDArray[Any]:
    h5py = late("h5py", "HDF5 files")
    with reading(path, "HDF5 file"), h5py.File(path) as data:
        return np.asarray(data["dataset"][:])


def _pose(detail: Path, lens: str, number: int) -> NDArray[np.float64] | None:
    """World from camera with OpenGL's axes, metres; None where the scene's details are not there."""
    files = [detail / lens / f"camera_keyframe_{name}.hdf5" for name in ("frame_indices", "positions", "orientations")]
    scale_file = detail / "metadata_scene.csv"
    if not all(file.is_file() for file in (*files, scale_file)):
        return None
    indices, positions, orientations = map(_dataset, files)
    with reading(scale_file, "table of the scene"):
        rows = dict(line.split(",")[:2] for line in scale_file.read_text(encoding="utf-8").splitlines() if "," in line)
        scale = float(rows["meters_per_asset_unit"])
    found = np.flatnonzero(indices == number)
    if not len(found):
        return None
    return rigid(orientations[found[0]], scale * positions[found[0]])
