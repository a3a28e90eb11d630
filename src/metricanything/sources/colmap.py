"""COLMAP sparse models (binary or text, any version pycolmap reads) with their images: 3D points as sparse depth.

    PROJECT/images/...  PROJECT/sparse/0/{cameras,images,points3D}.bin     or PROJECT/sparse, or the model itself

Format: https://colmap.github.io/format.html. Pixel centres: COLMAP's first is at (0.5, 0.5), which is ours. The scale
of a model is arbitrary unless somebody measured it: see `items`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame, Scale
from metricanything.core.geometry import pixel_index, scatter_min
from metricanything.sources.common import (
    Items,
    read_dataset_record,
    read_record,
    require_file,
    require_size,
)
from metricanything.sources.lidar import inverse
from metricanything.sources.scaling import metres_per_unit as metres_per_unit_of
from metricanything.sources.scaling import read_places

#: COLMAP model -> (our model, our parameters as indices into COLMAP's; None is 0).
_MODELS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "SIMPLE_PINHOLE": ("pinhole", (0, 0, 1, 2)),
    "PINHOLE": ("pinhole", (0, 1, 2, 3)),
    "SIMPLE_RADIAL": ("opencv", (0, 0, 1, 2, 3, *(None,) * 7)),
    "RADIAL": ("opencv", (0, 0, 1, 2, 3, 4, *(None,) * 6)),
    "OPENCV": ("opencv", (0, 1, 2, 3, 4, 5, 6, 7, *(None,) * 4)),
    "FULL_OPENCV": ("opencv", tuple(range(12))),
    "SIMPLE_FISHEYE": ("kannala_brandt", (0, 0, 1, 2, *(None,) * 4)),
    "FISHEYE": ("kannala_brandt", (0, 1, 2, 3, *(None,) * 4)),
    "SIMPLE_RADIAL_FISHEYE": ("kannala_brandt", (0, 0, 1, 2, 3, None, None, None)),
    "RADIAL_FISHEYE": ("kannala_brandt", (0, 0, 1, 2, 3, 4, None, None)),
    "OPENCV_FISHEYE": ("kannala_brandt", tuple(range(8))),
    "THIN_PRISM_FISHEYE": ("thin_prism_fisheye", tuple(range(12))),
}
#: Keypoints are not located better than this (px); a smaller residual of a short track is luck.
_MIN_PIXEL_SIGMA = 0.3
#: Share of the depth that errors of the poses add, common to neighbouring points and invisible in residuals. Measured:
#: the best-triangulated quarter of the points has a median error of 1.4 % against ground truth, that is 0.02 sigma, in
#: TartanAir hospital and in 7-Scenes redkitchen; with it 51 % and 65 % of all errors lie within one sigma.
_POSE_SIGMA = 0.02


#: Image name -> camera and world from camera (4, 4).
Views = dict[str, tuple[Camera, NDArray[np.float64]]]


@dataclass(frozen=True)
class _Model:
    """A sparse model as arrays: P points, and for each point the images that see it, one after another.

    xyz (P, 3), error (P,) mean reprojection error in px; `views` (V,) indices into `centres` (I, 3) and `focal` (I,)
    in px, where point p owns views[start[p] : start[p + 1]].
    """

    xyz: NDArray[np.float64]
    error: NDArray[np.float64]
    start: NDArray[np.int64]
    views: NDArray[np.int64]
    centres: NDArray[np.float64]
    focal: NDArray[np.float64]


@dataclass(frozen=True)
class _Item:
    """One registered image: file, camera as pycolmap has it, cam_from_world (3, 4) and the points it sees (n,)."""

    name: str
    file: Path
    camera: Any
    cam_from_world: NDArray[np.float64]
    points: NDArray[np.int64]


def items(
    path: Path,
    *,
    images: Path | None = None,
    model: str | None = None,
    metric: bool = False,
    metres_per_unit: float | None = None,
    positions: Path | None = None,
    min_track: int = 3,
) -> Items:
    """Frames of the registered images of one COLMAP model, sorted by name, with the 3D points they see as depth.

    Points seen by fewer than `min_track` images are left out: with two, nothing checks the match along the epipolar
    line. Where several fall on a pixel the nearest counts. `sigma` is described at `depth_sigma`. Depth is metric
    when `metres_per_unit` is given, or `positions` names a JSON file with measured places of the cameras (GPS in a
    local frame, say; see `sources.scaling`), or `scale.json` ({"metres_per_unit": x}) lies beside or above the model,
    or `metric` declares the model to be in metres; else it is up to scale. `images` is the image folder (default
    PROJECT/images), `model` chooses among sparse/0, sparse/1, ... Raises InputError for a model that cannot be read.
    """
    path = Path(path)
    folder = find_model(path, model)
    image_folder = Path(images) if images is not None else _find_images(path, folder)
    reconstruction = load_reconstruction(folder)
    if positions is not None:
        metres_per_unit = _scale_of_places(reconstruction, Path(positions))
    factor = scale_of(path, folder, metres_per_unit)
    scale: Scale = "metric" if factor is not None or metric else "up_to_scale"
    sparse, found = _to_arrays(reconstruction, image_folder, min_track, 1.0 if factor is None else factor)
    load = partial(_load, sparse, scale, path.resolve().name, read_dataset_record(path, folder))
    return Items(found, load, path=path, expected="registered images in the model")


def _load(sparse: _Model, scale: Scale, source: str, record: dict[str, Any], item: _Item) -> Frame:
    image = read_image(
        require_file(
            item.file, "the model names this image; give the image folder with images= (--option images=FOLDER)"
        )
    )
    camera = to_camera(item.camera)
    require_size(item.file, image, camera.width, camera.height, "its camera in the model")
    rotation, translation = item.cam_from_world[:, :3], item.cam_from_world[:, 3]
    local = sparse.xyz[item.points] @ rotation.T + translation
    uv, z = camera.project(local), local[:, 2]
    seen = np.isfinite(uv).all(axis=1) & (z > 0)
    if not seen.any():
        raise InputError(f"{item.file}: sees no 3D point of the model (after min_track); leave the image out")
    uv, z, points = uv[seen], z[seen].astype(np.float32), item.points[seen]
    depth = scatter_min(uv, z, camera.height, camera.width)
    spread = depth_sigma(sparse, points, -rotation.T @ translation, z)
    index, inside = pixel_index(uv, camera.height, camera.width)
    winner = inside & (depth.reshape(-1)[index] == z)
    sigma = np.full(depth.size, np.nan, dtype=np.float32)
    sigma[index[winner]] = spread[winner]
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3], world_from_cam[:3, 3] = rotation.T, -rotation.T @ translation
    return Frame(
        name=Path(item.name).with_suffix("").as_posix(),
        image=image,
        depth=depth,
        camera=camera,
        kind="reconstructed",
        sensor="sfm",
        source=str(record.get("source", source)),
        licence=str(record.get("licence", "not stated")),
        scale=scale,
        world_from_cam=world_from_cam,
        sigma=sigma.reshape(depth.shape),
    )


def depth_sigma(
    model: _Model, points: NDArray[np.int64], centre: NDArray[np.float64], z: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Standard deviation (n,) of the z-depths `z` (n,) of `points` (n,) seen from `centre`, in the depth's unit.

    A point that moves by dz along the viewing ray of length r shifts in view j, at distance d_j and with an angle a_j
    between the two rays, by f_j (r/z) sin(a_j)/d_j dz pixels. Views add up as information (Gauss-Markov, poses held
    fixed), so sigma_z = sigma_px / sqrt(sum_j (f_j (r/z) sin(a_j)/d_j)^2): long tracks and wide angles are precise.
    sigma_px per coordinate comes from the mean reprojection error e of the N observations, whose squared residuals
    sum to N e^2 4/pi (Rayleigh) over 2N - 3 degrees of freedom, but is at least 0.3 px. To this comes, in quadrature,
    2 % of the depth for the poses (`_POSE_SIGMA`). f_j counts as pixels per radian everywhere, which makes sigma up to
    a tenth too large far off a pinhole's axis. Gross mismatches are not covered. NaN without any parallax.
    """
    count = model.start[points + 1] - model.start[points]
    owner = np.repeat(np.arange(len(points)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    views = model.views[np.repeat(model.start[points], count) + within]
    here = model.xyz[points] - centre
    length = np.linalg.norm(here, axis=1)
    there = model.xyz[points][owner] - model.centres[views]
    distance = np.linalg.norm(there, axis=1)
    sine = np.linalg.norm(np.cross(here[owner] / length[owner, None], there / distance[:, None]), axis=1)
    shift = model.focal[views] * (length / z)[owner] * sine / distance
    information = np.bincount(owner, shift * shift, minlength=len(points))
    pixel = np.sqrt(model.error[points] ** 2 * (4 / np.pi) * count / np.maximum(2 * count - 3, 1))
    # Less than a thousandth of a pixel for a change of the depth by its own size is no parallax.
    known = information * z * z > 1e-6
    triangulation = np.maximum(pixel, _MIN_PIXEL_SIGMA) / np.sqrt(np.where(known, information, np.nan))
    return np.asarray(np.hypot(triangulation, _POSE_SIGMA * z), dtype=np.float32)


# ---------------------------------------------------------------- the model


def to_camera(camera: Any) -> Camera:
    """Our Camera of a pycolmap camera; raises InputError for a model that ours cannot express exactly."""
    name = camera.model_name
    if name not in _MODELS:
        raise InputError(
            f"COLMAP camera model {name} is not supported; undistort the images with `colmap image_undistorter` "
            f"or use one of {', '.join(_MODELS)}"
        )
    model, order = _MODELS[name]
    params = tuple(0.0 if i is None else float(camera.params[i]) for i in order)
    return Camera(model, params, camera.width, camera.height)


def _to_arrays(reconstruction: Any, images: Path, min_track: int, factor: float) -> tuple[_Model, list[_Item]]:
    """The points with long enough tracks and the registered images, lengths multiplied by `factor`.

    pycolmap hands out one object per point and per observation, hence the comprehensions; this runs once per model.
    """
    registered = sorted((i for i in reconstruction.images.values() if i.has_pose), key=lambda i: str(i.name))
    index_of_image = {image.image_id: n for n, image in enumerate(registered)}
    kept = {k: p for k, p in reconstruction.points3D.items() if p.track.length() >= min_track}
    index_of_point = {key: n for n, key in enumerate(kept)}
    tracks = [
        [index_of_image[e.image_id] for e in point.track.elements if e.image_id in index_of_image]
        for point in kept.values()
    ]
    poses = [np.asarray(image.cam_from_world().matrix(), dtype=np.float64) for image in registered]
    for pose in poses:
        pose[:, 3] *= factor
    items = [
        _Item(
            name=str(image.name),
            file=images / str(image.name),
            camera=reconstruction.cameras[image.camera_id],
            cam_from_world=pose,
            points=np.array(
                [
                    index_of_point[p.point3D_id]
                    for p in image.get_observation_points2D()
                    if p.point3D_id in index_of_point
                ],
                dtype=np.int64,
            ),
        )
        for image, pose in zip(registered, poses, strict=True)
    ]
    model = _Model(
        xyz=factor * np.array([p.xyz for p in kept.values()], dtype=np.float64).reshape(-1, 3),
        error=np.array([p.error for p in kept.values()], dtype=np.float64),
        start=np.concatenate([[0], np.cumsum([len(t) for t in tracks], dtype=np.int64)]).astype(np.int64),
        views=np.array([n for track in tracks for n in track], dtype=np.int64),
        centres=np.array([-p[:, :3].T @ p[:, 3] for p in poses], dtype=np.float64).reshape(-1, 3),
        focal=np.array([item.camera.mean_focal_length() for item in items], dtype=np.float64),
    )
    return model, items


def load_reconstruction(folder: Path) -> Any:
    try:
        import pycolmap
    except ImportError:
        raise InputError(
            "reading COLMAP models needs pycolmap; install it with pip install 'metricanything[colmap]'"
        ) from None
    try:
        return pycolmap.Reconstruction(str(folder))
    except Exception as error:  # the binding raises whatever its parser met: IndexError, ValueError, RuntimeError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{folder}: not a readable COLMAP model ({reason}); write it again with COLMAP") from error


def load_views(model: Path) -> Views:
    """The cameras and poses of the registered images of a COLMAP model; raises InputError for one it cannot read."""
    reconstruction = load_reconstruction(model)
    bottom = [[0.0, 0.0, 0.0, 1.0]]
    return {
        str(image.name): (
            to_camera(reconstruction.cameras[image.camera_id]),
            inverse(np.vstack([np.asarray(image.cam_from_world().matrix(), dtype=np.float64), bottom])),
        )
        for image in reconstruction.images.values()
        if image.has_pose
    }


def find_model(path: Path, model: str | None) -> Path:
    if model is not None:
        candidates = [path / "sparse" / model, path / model]
    else:
        candidates = [path, path / "sparse", *sorted((path / "sparse").glob("*"))]
    found = [p for p in candidates if (p / "cameras.bin").is_file() or (p / "cameras.txt").is_file()]
    if not found:
        raise InputError(f"no frames found in {path}; expected a COLMAP model such as sparse/0/cameras.bin and images/")
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise InputError(
            f"{path}: holds several models ({names}), each with its own scale; "
            "choose one with model= (--option model=FOLDER)"
        )
    return found[0]


def _find_images(path: Path, folder: Path) -> Path:
    """The folder `images` at the project, or beside the model or up to two levels above it."""
    places = [p / "images" for p in (path, folder, *folder.resolve().parents[:2])]
    return next((p for p in places if p.is_dir()), places[0])


def _scale_of_places(reconstruction: Any, file: Path) -> float:
    """Metres per unit of the model from the measured places of its cameras in `file`."""
    places = read_places(file)
    centres, measured = [], []
    for image in reconstruction.images.values():
        if image.has_pose and str(image.name) in places:
            pose = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)
            centres.append(-pose[:, :3].T @ pose[:, 3])
            measured.append(places[str(image.name)])
    try:
        return metres_per_unit_of(np.array(centres), np.array(measured))[0]
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def scale_of(path: Path, folder: Path, given: float | None) -> float | None:
    value: Any = given
    where = "metres_per_unit"
    if value is None:
        files = [p / "scale.json" for p in (folder, folder.parent, path) if (p / "scale.json").is_file()]
        if not files:
            return None
        where, value = str(files[0]), read_record(files[0]).get("metres_per_unit")
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not np.isfinite(value) or value <= 0:
        raise InputError(f"{where}: metres_per_unit must be a positive number, got {value!r}")
    return float(value)
