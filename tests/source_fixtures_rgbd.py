"""Small data sets of RGB-D cameras, phones and renderers, written from the published layouts."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_fixtures import FRAMES, HEIGHT, WIDTH, Fixture, depth_png, noise_image, ramp, write_json

SMALL = (20, 15)  # a ToF sensor's grid of the same view


def smooth(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Depth in metres that differs in every pixel and nowhere steps."""
    return (1 + 0.1 * seed + np.arange(width * height).reshape(height, width) / 2000).astype(np.float32)


def write_exr(path: Path, depth: np.ndarray, dtype: type = np.float16) -> None:
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    with OpenEXR.File({}, {"R": np.ascontiguousarray(depth, dtype=dtype)}) as file:
        file.write(str(path))


def write_npy(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, depth)


def build_record3d(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"rgb/{n}.jpg", n)
        write_exr(root / f"depth/{n}.exr", smooth(n, *SMALL))
    # Poses: a quarter turn about y, then none, then a shift. K column by column.
    poses = [[0, 0.5**0.5, 0, 0.5**0.5, 1, 2, 3], [0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 1, -1, 0, 0.5]]
    k = [30.0, 0, 0, 0, 31.0, 0, 19.5, 14.5, 1]
    write_json(root / "metadata.json", {"w": WIDTH, "h": HEIGHT, "dw": 20, "dh": 15, "K": k, "poses": poses, "fps": 60})


def write_r3d(root: Path, *, cut: int | None = None, sizes: bool = True) -> None:
    """One archive; the confidence of its first row is 0, 1, 2, 0, then 2. The depth of frame `cut` lacks a row."""
    liblzfse = pytest.importorskip("liblzfse", reason="pyliblzfse of an optional extra is not installed")
    confidence = np.full(SMALL[::-1], 2, dtype=np.uint8)
    confidence[0, :4] = [0, 1, 2, 0]
    k = [30.0, 0, 0, 0, 31.0, 0, 19.5, 14.5, 1]
    poses = [[0, 0.5**0.5, 0, 0.5**0.5, n, 2, 3] for n in range(FRAMES)]
    record = {"w": WIDTH, "h": HEIGHT, "K": k, "poses": poses} | ({"dw": 20, "dh": 15} if sizes else {})
    record["perFrameIntrinsicCoeffs"] = [[30.0 + n, 31.0, 19.5, 14.5] for n in range(2)]
    with zipfile.ZipFile(root / "take.r3d", "w") as archive:
        archive.writestr("metadata", json.dumps(record))
        for n in range(FRAMES):
            picture = io.BytesIO()
            Image.new("RGB", (WIDTH, HEIGHT), (60 * n, 9, 9)).save(picture, "JPEG")
            depth = smooth(n, *SMALL)[1 if n == cut else 0 :]
            archive.writestr(f"rgbd/{n}.jpg", picture.getvalue())
            archive.writestr(f"rgbd/{n}.depth", liblzfse.compress(depth.astype("<f4").tobytes()))
            archive.writestr(f"rgbd/{n}.conf", liblzfse.compress(confidence.tobytes()))


def build_stray_scanner(root: Path) -> None:
    import av

    for n in range(FRAMES):
        depth_png(root / f"depth/{n:06d}.png", np.round(1000 * smooth(n, *SMALL)))
        confidence = np.full(SMALL[::-1], 2, dtype=np.uint8)
        confidence[0, :4] = [0, 1, 2, 0]
        (root / "confidence").mkdir(exist_ok=True)
        Image.fromarray(confidence).save(root / f"confidence/{n:06d}.png")
    with av.open(str(root / "rgb.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for n in range(FRAMES + 1):  # one more than there are depth maps
            pixels = np.full((HEIGHT, WIDTH, 3), 40 + 60 * n, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    (root / "camera_matrix.csv").write_text("30.0, 0.0, 19.5\n0.0, 31.0, 14.5\n0.0, 0.0, 1.0\n")
    rows = [f"{0.1 * n}, {n:06d}, {n}, 2, 3, 0, 0.70710678, 0, 0.70710678" for n in range(FRAMES)]
    (root / "odometry.csv").write_text("timestamp, frame, x, y, z, qx, qy, qz, qw\n" + "\n".join(rows) + "\n")


def build_sun_rgbd(root: Path) -> None:
    for n in range(FRAMES):
        frame = root / f"kv1/img_{n:04d}"
        noise_image(frame / f"image/{n}.jpg", n)
        values = ramp(n)
        values[0, 0] = 8001  # beyond what the toolbox keeps
        rotated = (values << 3) & 0xFFFF | values >> 13
        depth_png(frame / f"depth_bfx/{n}.png", rotated)
        depth_png(frame / f"depth/{n}.png", rotated)
        (frame / "intrinsics.txt").write_text("30.0 0 20.5\n0 31.0 15.5\n0 0 1\n")


def build_open3d(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"color/{n}.png", n)
        depth_png(root / f"depth/{n}.png", ramp(n))
    matrix = [30.0, 0, 0, 0, 31.0, 0, 19.5, 14.5, 1]
    write_json(root / "camera_intrinsic.json", {"width": WIDTH, "height": HEIGHT, "intrinsic_matrix": matrix})
    blocks = [f"{n} {n} {n + 1}\n1 0 0 {n}\n0 1 0 2\n0 0 1 3\n0 0 0 1\n" for n in range(2)]
    (root / "trajectory.log").write_text("".join(blocks))


def build_tartanair(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"office/Easy/P001/image_left/{n:06d}_left.png", n)
        depth = smooth(n)
        depth[:2] = 10000.0
        write_npy(root / f"office/Easy/P001/depth_left/{n:06d}_left_depth.npy", depth)
    rows = "1 2 3 0 0 0 1\n1 2 3 0 0 0.70710678 0.70710678\n0 0 0 0 0 0 1\n"
    (root / "office/Easy/P001/pose_left.txt").write_text(rows)


def build_depth16(root: Path) -> None:
    """Two images of different sizes a frame, depth on a smaller grid; codes of confidence 0 to 7 in the first row."""
    for n in range(FRAMES):
        noise_image(root / f"shot{n}./0_image.png", n)
        noise_image(root / f"shot{n}./0_image20.png", n, *SMALL)
        words = np.round(1000 * smooth(n, *SMALL)).astype("<u2") | 2 << 13
        words[0, :8] = words[0, :8] & 0x1FFF | np.arange(8) << 13
        words[5, 5] = 0
        (root / f"shot{n}./0_depth16.bin").write_bytes(words.astype("<u2").tobytes())
    write_json(root / "camera.json", {"fx": 30.0, "fy": 31.0, "cx": 20.0, "cy": 15.0})


def cut_depth16(root: Path) -> None:
    file = root / "shot1./0_depth16.bin"
    file.write_bytes(file.read_bytes()[:-2])


RGBD: dict[str, Fixture] = {
    "depth16": Fixture(
        build_depth16, lambda root: [root / f"shot{n}./0_image.png" for n in range(FRAMES)], cut_depth16
    ),
    "record3d": Fixture(
        build_record3d,
        lambda root: [root / f"rgb/{n}.jpg" for n in range(FRAMES)],
        lambda root: write_exr(root / "depth/1.exr", smooth(1, 20, 10)),
    ),
    "r3d": Fixture(write_r3d, None, lambda root: write_r3d(root, cut=1)),
    "stray_scanner": Fixture(
        build_stray_scanner,
        None,
        lambda root: depth_png(root / "depth/000001.png", ramp(1, 20, 10)),
    ),
    "sun_rgbd": Fixture(
        build_sun_rgbd,
        lambda root: [root / f"kv1/img_{n:04d}/image/{n}.jpg" for n in range(FRAMES)],
        lambda root: depth_png(root / "kv1/img_0001/depth_bfx/1.png", ramp(1, 20, 10)),
    ),
    "open3d_rgbd": Fixture(
        build_open3d,
        lambda root: [root / f"color/{n}.png" for n in range(FRAMES)],
        lambda root: depth_png(root / "depth/1.png", ramp(1, 20, 10)),
    ),
    "tartanair": Fixture(
        build_tartanair,
        lambda root: [root / f"office/Easy/P001/image_left/{n:06d}_left.png" for n in range(FRAMES)],
        lambda root: write_npy(root / "office/Easy/P001/depth_left/000001_left_depth.npy", smooth(1, 20, 10)),
    ),
}
