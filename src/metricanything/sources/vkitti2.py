"""Virtual KITTI 2 (https://europe.naverlabs.com/proxy-virtual-worlds-vkitti-2): rendered streets with exact depth.

    Scene01/VARIANT/frames/rgb/Camera_0/rgb_00000.jpg  frames/depth/Camera_0/depth_00000.png
    Scene01/VARIANT/intrinsic.txt  extrinsic.txt

Depth PNG / 100 = metres; 65535 (655.35 m) is the sky: +inf. Rows of the tables begin with frame and camera;
`intrinsic.txt` goes on with fx, fy, cx, cy (first pixel centre 0: 0.5 is added), `extrinsic.txt` with camera from world
(4x4).
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.codecs import read_image, read_png16
from metricanything.core.codecs.png16 import clean_depth
from metricanything.core.codecs.reading import reading
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.sources.common import Items, Origin, list_images, make_frame, require_file
from metricanything.sources.lidar import inverse

_ORIGIN = Origin("rendered", "synthetic", "Virtual KITTI 2", "CC BY-NC-SA 3.0")
_SKY = 65535


def items(path: Path, *, camera: str | None = None) -> Items:
    """Frames of all scenes and variants at or below `path`, sorted; `camera` is "0", "1" or None for both.

    Raises InputError (see `Items`).
    """
    path = Path(path)
    wanted = ("Camera_0", "Camera_1") if camera is None else (f"Camera_{camera}",)
    found = [p for p in list_images(path) if p.parent.name in wanted and p.parents[1].name == "rgb"]
    expected = "Scene01/VARIANT/frames/{rgb,depth}/Camera_0/ with intrinsic.txt and extrinsic.txt"
    return Items(found, partial(_load, path), path=path, expected=expected)


def _load(root: Path, file: Path) -> Frame:
    frames, variant, lens = file.parents[2], file.parents[3], file.parent.name
    number = file.stem.removeprefix("rgb_")
    depth_file = require_file(frames / "depth" / lens / f"depth_{number}.png", "every image needs its depth")
    image, values = read_image(file), read_png16(depth_file)
    depth = np.where(values == _SKY, np.float32(np.inf), clean_depth(values / np.float64(100), depth_file))
    key = int(number), int(lens[-1])
    fx, fy, cx, cy = _row(variant / "intrinsic.txt", key, 4)
    camera = Camera.pinhole(fx, fy, cx + 0.5, cy + 0.5, image.shape[1], image.shape[0])
    pose = inverse(_row(variant / "extrinsic.txt", key, 16).reshape(4, 4))
    name = f"{variant.relative_to(root).as_posix()}/{lens}/{number}"
    return make_frame(name, image, depth, camera, _ORIGIN.stated(root), depth_file, pose=pose)


def _row(path: Path, key: tuple[int, int], count: int) -> NDArray[np.float64]:
    row = _table(require_file(path, "it is in the archive textgt"), count).get(key)
    if row is None:
        raise InputError(f"{path}: has no row for frame {key[0]} of camera {key[1]}; fetch it again")
    return row


@lru_cache(maxsize=8)
def _table(path: Path, count: int) -> dict[tuple[int, int], NDArray[np.float64]]:
    with reading(path, "table of cameras"):
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        return {(int(r[0]), int(r[1])): np.array(r[2 : 2 + count], dtype=np.float64) for r in rows}
