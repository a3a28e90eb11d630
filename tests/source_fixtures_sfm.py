"""Small data sets that are posed by COLMAP models in text, written by hand from the format's description."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from source_fixtures import FRAMES, HEIGHT, WIDTH, Fixture, depth_png, noise_image, ramp
from source_fixtures_rgbd import SMALL, smooth


def write_model(folder: Path, camera: str, names: list[str]) -> None:
    """cameras.txt, images.txt (a quarter turn about y, then a shift by the number) and an empty points3D.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n1 {camera}\n")
    half = 0.5**0.5
    rows = [f"{n + 1} {half} 0 {half} 0 {n} 2 3 1 {name}\n\n" for n, name in enumerate(names)]
    (folder / "images.txt").write_text("# Image list\n" + "".join(rows))
    (folder / "points3D.txt").write_text("# 3D point list\n")


def write_map(path: Path, depth: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py of an optional extra is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["depth"] = depth


def megadepth_map(n: int) -> np.ndarray:
    depth = smooth(n)
    depth[0, 0] = 0
    return depth


def build_megadepth(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"0001/dense0/imgs/{n}.jpg", n)
        write_map(root / f"0001/dense0/depths/{n}.h5", megadepth_map(n))
    names = [f"{n}.jpg" for n in range(FRAMES)]
    write_model(root / "0001/sparse-txt", f"PINHOLE {WIDTH} {HEIGHT} 30 31 20 15", names)


#: Parameters of a thin-prism fisheye in COLMAP's order: fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, sx1, sy1.
ETH3D_LENS = (30.0, 31.0, 20.0, 15.0, -0.02, 0.01, 0.0005, -0.001, 0.002, 0.0, 0.0007, -0.0003)


def eth3d_map(n: int) -> np.ndarray:
    depth = smooth(n)
    depth[0, :5] = np.inf
    return depth


def write_eth3d_map(root: Path, n: int, depth: np.ndarray) -> None:
    path = root / f"courtyard/ground_truth_depth/dslr_images/{n}.JPG"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(depth.astype("<f4").tobytes())


def build_eth3d(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"courtyard/images/dslr_images/{n}.JPG", n)
        write_eth3d_map(root, n, eth3d_map(n))
    lens = " ".join(map(str, ETH3D_LENS))
    names = [f"dslr_images/{n}.JPG" for n in range(FRAMES)]
    write_model(root / "courtyard/dslr_calibration_jpg", f"THIN_PRISM_FISHEYE {WIDTH} {HEIGHT} {lens}", names)


def build_scannetpp(root: Path) -> None:
    """Four images, of which COLMAP registered three."""
    phone = root / "036bce3393/iphone"
    for n in range(FRAMES + 1):
        noise_image(phone / f"rgb/frame_{n}.jpg", n)
        depth_png(phone / f"depth/frame_{n}.png", np.round(1000 * smooth(n, *SMALL)))
    names = [f"frame_{n}.jpg" for n in range(FRAMES)]
    write_model(phone / "colmap", f"OPENCV {WIDTH} {HEIGHT} 30 31 20 15 0.05 -0.02 0.001 0", names)


SFM: dict[str, Fixture] = {
    "megadepth": Fixture(
        build_megadepth,
        lambda root: [root / f"0001/dense0/imgs/{n}.jpg" for n in range(FRAMES)],
        lambda root: write_map(root / "0001/dense0/depths/1.h5", smooth(1, 20, 10)),
    ),
    "eth3d": Fixture(
        build_eth3d,
        lambda root: [root / f"courtyard/images/dslr_images/{n}.JPG" for n in range(FRAMES)],
        lambda root: write_eth3d_map(root, 1, smooth(1, 20, 10)),
    ),
    "scannetpp": Fixture(
        build_scannetpp,
        lambda root: [root / f"036bce3393/iphone/rgb/frame_{n}.jpg" for n in range(FRAMES)],
        lambda root: depth_png(root / "036bce3393/iphone/depth/frame_1.png", ramp(1, 20, 10)),
    ),
}
