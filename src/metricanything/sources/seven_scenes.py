"""7-Scenes (https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes): Kinect frames with poses.

    seq-01/frame-NNNNNN.color.png  frame-NNNNNN.depth.png  frame-NNNNNN.pose.txt

Depth PNG / 1000 = metres, 0 and 65535 unknown. Depth is that of the depth camera (f = 585) and not registered to colour
(f = 525): each depth pixel is taken to the colour image as a point. The data set states f = 585 and c = (320, 240)
only; colour camera and the 25 mm between the two are the usual ones of the Kinect. Poses are world from depth camera;
the colour camera's is given.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image, read_png16
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, read_numbers, require_file
from metricanything.sources.lidar import register_depth, rigid

_ORIGIN = Origin("captured", "rgbd", "7-Scenes", "non-commercial research, cite Shotton et al., CVPR 2013")
_DEPTH = Camera.pinhole(585, 585, 320, 240, 640, 480)
_COLOUR = Camera.pinhole(525, 525, 320, 240, 640, 480)


def items(path: Path, *, baseline: float = 0.025) -> Items:
    """Frames of all sequences at or below `path`, sorted; `baseline` in metres from the depth to the colour camera.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    found = [p for p in list_images(path) if p.stem.endswith(".color")]
    load = partial(_load, path, rigid(np.eye(3), [-baseline, 0, 0]))
    return Items(found, load, path=path, expected="frame-NNNNNN.color.png with .depth.png and .pose.txt")


def _load(root: Path, colour_from_depth: np.ndarray, file: Path) -> Frame:
    stem = file.stem.removesuffix(".color")
    depth_file = require_file(file.with_name(f"{stem}.depth.png"), "every image needs its depth")
    image, values = read_image(file), read_png16(depth_file)
    metres = np.where(values == 65535, np.float32(np.nan), clean_depth(values / np.float64(1000), depth_file))
    height, width = values.shape
    lens = _DEPTH.resize(width, height)
    depth, notes = register_depth(metres, lens, colour_from_depth, _COLOUR.resize(image.shape[1], image.shape[0]))
    pose_file = file.with_name(f"{stem}.pose.txt")
    pose = None
    if pose_file.is_file():
        pose = read_numbers(pose_file, 16).reshape(4, 4) @ np.linalg.inv(colour_from_depth)
    name = file.relative_to(root).with_name(stem).as_posix()
    return make_frame(name, image, depth, _COLOUR, _ORIGIN.stated(root), depth_file, pose=pose, notes=notes)
