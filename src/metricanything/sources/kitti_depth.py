"""KITTI depth completion and prediction: annotated depth, 11 sweeps accumulated and checked against stereo.

    SPLIT/DRIVE/proj_depth/groundtruth/image_02/NNNNNNNNNN.png      with the raw data, in the same root or beside it:
    DATE/DRIVE/image_02/data/NNNNNNNNNN.png  DATE/calib_cam_to_cam.txt
or, as in val_selection_cropped:
    image/*_image_*.png  groundtruth_depth/*_groundtruth_depth_*.png  intrinsics/*_image_*.txt

PNG / 256 = metres, 0 unknown (development kit of Uhrig et al., 3DV 2017). `raw=true` takes `velodyne_raw` instead: one
sweep as projected by the authors, with points that shine through. Principal points get 0.5, as in `kitti_raw`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_depth, read_image
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, read_numbers, require_file
from metricanything.sources.kitti_raw import read_calibration

_ORIGIN = Origin("captured", "lidar", "KITTI depth", "CC BY-NC-SA 3.0")
_SCALE = 256.0


def items(path: Path, *, raw: bool = False) -> Items:
    """Frames of all annotated depth maps at or below `path` in either layout, sorted.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    kind = "velodyne_raw" if raw else "groundtruth"
    found = [p for p in list_images(path) if p.parents[1].name == kind and p.parents[2].name == "proj_depth"]
    cropped = kind if raw else "groundtruth_depth"
    found += [p for p in list_images(path) if p.parent.name == cropped and (p.parents[1] / "image").is_dir()]
    expected = f"DRIVE/proj_depth/{kind}/image_02/*.png with the raw data, or image/ {cropped}/ intrinsics/"
    return Items(found, partial(_load, path), path=path, expected=expected)


def _load(root: Path, file: Path) -> Frame:
    if file.parents[2].name == "proj_depth":
        image_file, camera = _of_drive(root, file)
    else:
        name = file.name.replace(f"_{file.parent.name}_", "_image_")
        image_file = file.parents[1] / "image" / name
        k = read_numbers(
            require_file((file.parents[1] / "intrinsics" / name).with_suffix(".txt"), "fetch it with the images"), 9
        )
        camera = None
    image = read_image(require_file(image_file, "the image of this depth map; put the raw data into the same root"))
    if camera is None:
        camera = Camera.pinhole(k[0], k[4], k[2] + 0.5, k[5] + 0.5, image.shape[1], image.shape[0])
    name = file.relative_to(root).with_suffix("").as_posix()
    return make_frame(name, image, read_depth(file, _SCALE), camera, _ORIGIN.stated(root), file)


def _of_drive(root: Path, file: Path) -> tuple[Path, Camera]:
    """The image and its camera in the raw data: the folder of the drive's day, in the root, below or beside it."""
    drive, lens = file.parents[3].name, file.parent.name
    day = drive[:10]
    places = [base / day for base in (root, root.parent, *root.glob("*"), root.parent / "raw")]
    for place in places:
        if (place / drive).is_dir():
            return place / drive / lens / "data" / file.name, read_calibration(place, lens[-2:]).camera
    raise InputError(f"{file}: no raw data of {day}/{drive} in {root} or beside it; fetch it from KITTI raw")
