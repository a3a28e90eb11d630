"""Small data sets in every raw format, written byte by byte or by the format's own library, to test the readers.

A new reader joins by adding a `Fixture` to `FIXTURES`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 40, 30
FRAMES = 3


@dataclass(frozen=True)
class Fixture:
    """How to make a data set of `FRAMES` frames of 40x30 pixels, and where its images and depths are.

    build(root) writes it. images(root) are its image files in the order of the frames; None where all frames share one
    file. bad_depth(root) spoils the depth of the second frame in shape or size; None where no file is its own.
    """

    build: Callable[[Path], None]
    images: Callable[[Path], list[Path]] | None
    bad_depth: Callable[[Path], None] | None
    options: dict[str, Any] = field(default_factory=dict)


#: Modules of optional extras that readers need.
NEEDS = {
    "colmap": "pycolmap",
    "colmap_dense": "pycolmap",
    "opencalib": "pypcd4",
    "stray_scanner": "av",
    "r3d": "liblzfse",
    "nyu": "h5py",
    "hypersim": "h5py",
    "megadepth": "pycolmap",
    "eth3d": "pycolmap",
    "scannetpp": "pycolmap",
}


def require(kind: str) -> None:
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind], reason=f"{NEEDS[kind]} of an optional extra is not installed")


def noise_image(path: Path, seed: int, width: int = WIDTH, height: int = HEIGHT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def depth_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


def ramp(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Whole numbers 1000 ... that differ in every pixel, with a hole at row 2, column 3."""
    values = 1000 + 10 * seed + np.arange(width * height).reshape(height, width)
    values[2, 3] = 0
    return values


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


# ---------------------------------------------------------------- folder


def build_folder(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"images/{n:03d}.png", n)
        depth_png(root / f"depth/{n:03d}.png", ramp(n))
    write_json(root / "camera.json", {"fx": 30.0, "fy": 31.0, "cx": 20.0, "cy": 15.0})
    write_json(root / "dataset.json", {"depth_scale": 1000.0, "sensor": "tof", "source": "test", "licence": "CC0"})


# ---------------------------------------------------------------- tum


def build_tum(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"rgb/{n}.png", n)
        depth_png(root / f"depth/{n}.png", 5 * ramp(n))
    (root / "rgb.txt").write_text("# t file\n" + "".join(f"{n + 0.01:.6f} rgb/{n}.png\n" for n in range(FRAMES)))
    (root / "depth.txt").write_text("# t file\n" + "".join(f"{n + 0.02:.6f} depth/{n}.png\n" for n in range(FRAMES)))
    # A quarter turn about y (x, y, z, w) for frame 0; frame 1 has no pose within 20 ms.
    (root / "groundtruth.txt").write_text(
        "# t tx ty tz qx qy qz qw\n"
        "0.0150 1 2 3 0 0.70710678 0 0.70710678\n"
        "1.0400 0 0 0 0 0 0 1\n"
        "2.0000 -1 0 0.5 0 0 0 2\n"
    )
    write_json(root / "camera.json", {"fx": 30.0, "fy": 31.0, "cx": 19.5, "cy": 14.5, "pixel_centre": 0, **_SIZE})


_SIZE = {"width": WIDTH, "height": HEIGHT}

# ---------------------------------------------------------------- kitti_raw

KITTI_P = np.array([[30.0, 0, 19.5, 3.0], [0, 31.0, 14.5, -1.5], [0, 0, 1, 0.002]])
KITTI_RECT = np.array([[0.9998, 0.02, 0], [-0.02, 0.9998, 0], [0, 0, 1.0]])
KITTI_R = np.array([[0, -1.0, 0], [0, 0, -1.0], [1.0, 0, 0]])
KITTI_T = np.array([0.01, -0.08, -0.27])


def kitti_points(n: int) -> np.ndarray:
    """Scattered points ahead and behind, and a wall with one point that shines through it from far behind."""
    rng = np.random.default_rng(n)
    scattered = np.column_stack([rng.uniform(-5, 30, 200), rng.uniform(-8, 8, 200), rng.uniform(-6, 6, 200)])
    y, z = np.meshgrid(np.linspace(-0.5, 0.5, 9), np.linspace(-0.5, 0.5, 9))
    wall = np.column_stack([np.full(81, 4.0), y.ravel(), z.ravel()])
    return np.vstack([scattered, wall, [[40.0, 1.3, 0.9]]])


def kitti_drive(root: Path) -> Path:
    return root / "2011_09_26/2011_09_26_drive_0001_sync"


def build_kitti_raw(root: Path) -> None:
    drive = kitti_drive(root)
    for n in range(FRAMES):
        noise_image(drive / f"image_02/data/{n:010d}.png", n)
        sweep = drive / f"velodyne_points/data/{n:010d}.bin"
        sweep.parent.mkdir(parents=True, exist_ok=True)
        sweep.write_bytes(b"".join(struct.pack("<4f", x, y, z, 0.5) for x, y, z in kitti_points(n)))

    def line(name: str, values: np.ndarray) -> str:
        return f"{name}: {' '.join(repr(float(v)) for v in values.ravel())}\n"

    (drive.parent / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.950000e-02\n"
        + line("S_rect_02", np.array([WIDTH, HEIGHT]))
        + line("R_rect_00", KITTI_RECT)
        + line("P_rect_02", KITTI_P)
    )
    (drive.parent / "calib_velo_to_cam.txt").write_text(
        "calib_time: 15-Mar-2012 11:37:16\n" + line("R", KITTI_R) + line("T", KITTI_T)
    )


def spoil_kitti_sweep(root: Path) -> None:
    sweep = kitti_drive(root) / "velodyne_points/data/0000000001.bin"
    sweep.write_bytes(sweep.read_bytes()[:-5])


# ---------------------------------------------------------------- colmap

COLMAP_PARAMS = [30.0, 31.0, 20.0, 15.0]
COLMAP_CENTRES = np.array([[0.0, 0, 0], [0.5, 0, 0], [0, 0.4, -0.2]])
#: The fifth point lies behind the first one as image 0 sees them.
COLMAP_POINTS = np.array([[0.0, 0, 4], [0.5, 0.3, 5], [-0.6, -0.4, 6], [1.2, 0.8, 3], [0.1, 0.1, 9], [1.1, 0.9, 9]])
COLMAP_ERRORS = np.array([0.5, 0.2, 1.0, 2.0, 0.5, 0.5])


def colmap_reconstruction() -> Any:
    """Three images with unit rotations; all see all points, but the last point is seen by two images only."""
    import pycolmap

    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=WIDTH, height=HEIGHT, params=COLMAP_PARAMS, camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for n, centre in enumerate(COLMAP_CENTRES):
        local = COLMAP_POINTS - centre
        fx, fy, cx, cy = COLMAP_PARAMS
        pixels = np.column_stack([fx * local[:, 0] / local[:, 2] + cx, fy * local[:, 1] / local[:, 2] + cy])
        keypoints = pycolmap.Point2DList([pycolmap.Point2D(p) for p in pixels])
        image = pycolmap.Image(image_id=n + 1, name=f"{n}.png", camera_id=1, points2D=keypoints)
        pose = pycolmap.Rigid3d(rotation=pycolmap.Rotation3d(np.eye(3)), translation=-centre)
        model.add_image_with_trivial_frame(image, pose)
    for p, (xyz, error) in enumerate(zip(COLMAP_POINTS, COLMAP_ERRORS, strict=True)):
        seen_by = (1, 2, 3) if p < 5 else (1, 2)
        track = pycolmap.Track([pycolmap.TrackElement(i, p) for i in seen_by])
        model.add_point3D_with_id(p + 1, pycolmap.Point3D(xyz=xyz, color=[1, 2, 3], error=error, track=track))
    return model


def build_colmap(root: Path, *, text: bool = False) -> None:
    for n in range(FRAMES):
        noise_image(root / f"images/{n}.png", n)
    folder = root / "sparse/0"
    folder.mkdir(parents=True)
    model = colmap_reconstruction()
    (model.write_text if text else model.write_binary)(str(folder))


# ---------------------------------------------------------------- all


def _numbered(pattern: str) -> Callable[[Path], list[Path]]:
    return lambda root: [root / pattern.format(n) for n in range(FRAMES)]


def _small_depth(name: str) -> Callable[[Path], None]:
    """Another aspect ratio than the image."""
    return lambda root: depth_png(root / name, ramp(1, WIDTH // 2, HEIGHT // 3))


FIXTURES: dict[str, Fixture] = {
    "folder": Fixture(build_folder, _numbered("images/{:03d}.png"), _small_depth("depth/001.png")),
    "tum": Fixture(build_tum, _numbered("rgb/{}.png"), _small_depth("depth/1.png")),
    "kitti_raw": Fixture(
        build_kitti_raw,
        lambda root: [kitti_drive(root) / f"image_02/data/{n:010d}.png" for n in range(FRAMES)],
        spoil_kitti_sweep,
    ),
    # The depth of an SfM frame has the camera's size, so it is the image that can contradict it.
    "colmap": Fixture(
        build_colmap, _numbered("images/{}.png"), lambda root: noise_image(root / "images/1.png", 1, WIDTH // 2)
    ),
    "procedural": Fixture(lambda root: None, None, None, {"count": FRAMES, "width": WIDTH, "height": HEIGHT}),
}
