"""Small data sets in published formats, written by the format's own library or byte by byte from its description."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from source_fixtures import (
    FRAMES,
    HEIGHT,
    WIDTH,
    Fixture,
    colmap_reconstruction,
    depth_png,
    noise_image,
    ramp,
    write_json,
)
from source_fixtures_lidar import cut
from source_fixtures_rgbd import smooth, write_exr, write_npy

K3 = [[30.0, 0, 19.5], [0, 31.0, 14.5], [0, 0, 1.0]]


def wrong_png(name: str) -> object:
    return lambda root: depth_png(root / name, ramp(1, WIDTH // 2, HEIGHT // 3))


# ---------------------------------------------------------------- MATLAB and HDF5


def build_nyu(root: Path) -> None:
    import h5py

    rng = np.random.default_rng(0)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w") as file:
        file["images"] = rng.integers(0, 256, (FRAMES, 3, WIDTH, HEIGHT), dtype=np.uint8)
        depths = np.stack([smooth(n).T for n in range(FRAMES)])
        file["depths"] = depths
        raw = depths.copy()
        raw[:, 3, 2] = 0  # column 3, row 2
        file["rawDepths"] = raw


def write_hdf5(path: Path, values: np.ndarray) -> None:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["dataset"] = values


def build_hypersim(root: Path) -> None:
    scene = root / "ai_001_001"
    for n in range(FRAMES):
        noise_image(scene / f"images/scene_cam_00_final_preview/frame.{n:04d}.color.jpg", n)
        distance = smooth(n).astype(np.float16)
        distance[0, 0] = np.nan
        write_hdf5(scene / f"images/scene_cam_00_geometry_hdf5/frame.{n:04d}.depth_meters.hdf5", distance)
    detail = scene / "_detail/cam_00"
    write_hdf5(detail / "camera_keyframe_frame_indices.hdf5", np.arange(FRAMES))
    write_hdf5(detail / "camera_keyframe_positions.hdf5", np.array([[100.0, 200, 300]] * FRAMES))
    write_hdf5(detail / "camera_keyframe_orientations.hdf5", np.stack([np.eye(3)] * FRAMES))
    (scene / "_detail/metadata_scene.csv").write_text("parameter_name,parameter_value\nmeters_per_asset_unit,0.01\n")


def build_ibims(root: Path) -> None:
    from scipy.io import savemat

    (root / "gt_mat").mkdir()
    for n in range(FRAMES):
        write_ibims(root / f"gt_mat/room_{n}.mat", n, (HEIGHT, WIDTH), savemat)


def write_ibims(path: Path, seed: int, shape: tuple[int, int], savemat: object) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    invalid, transparent = np.ones(shape, np.uint8), np.ones(shape, np.uint8)
    invalid[0, 0], transparent[1, 1] = 0, 0
    data = {"rgb": image, "depth": smooth(seed, shape[1], shape[0]).astype(np.float64), "calib": np.array(K3).T}
    savemat(str(path), {"data": {**data, "mask_invalid": invalid, "mask_transp": transparent}})  # type: ignore[operator]


def spoil_ibims(root: Path) -> None:
    from scipy.io import savemat

    write_ibims(root / "gt_mat/room_1.mat", 1, (10, 20), savemat)


# ---------------------------------------------------------------- rendered


def build_vkitti2(root: Path) -> None:
    variant = root / "Scene01/clone"
    intrinsic, extrinsic = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"], ["frame cameraID r1,1 ..."]
    for n in range(FRAMES):
        noise_image(variant / f"frames/rgb/Camera_0/rgb_{n:05d}.jpg", n)
        values = ramp(n)
        values[:3] = 65535
        depth_png(variant / f"frames/depth/Camera_0/depth_{n:05d}.png", values)
        for camera in (0, 1):
            intrinsic.append(f"{n} {camera} 30.0 31.0 19.5 14.5")
            extrinsic.append(f"{n} {camera} 0 0 1 {n} 0 1 0 2 -1 0 0 3 0 0 0 1")
    (variant / "intrinsic.txt").write_text("\n".join(intrinsic) + "\n")
    (variant / "extrinsic.txt").write_text("\n".join(extrinsic) + "\n")


def write_dpt(path: Path, depth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    head = struct.pack("<fii", 202021.25, width, height)
    path.write_bytes(head + b"".join(struct.pack("<f", v) for v in depth.ravel()))


def build_sintel(root: Path) -> None:
    for n in range(FRAMES):
        noise_image(root / f"training/final/alley_1/frame_{n:04d}.png", n)
        write_dpt(root / f"training/depth/alley_1/frame_{n:04d}.dpt", smooth(n))
        cam = root / f"training/camdata_left/alley_1/frame_{n:04d}.cam"
        cam.parent.mkdir(parents=True, exist_ok=True)
        pose = [0, 0, 1, n, 0, 1, 0, 2, -1, 0, 0, 3]
        cam.write_bytes(struct.pack("<f9d12d", 202021.25, *np.ravel(K3), *pose))


def write_blender(path: Path, seed: int, depth: np.ndarray) -> None:
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    passes = {f"ViewLayer.Combined.{c}": rng.random(depth.shape, dtype=np.float32).astype(np.float16) for c in "RGBA"}
    passes["ViewLayer.Combined.R"][0, 0] = 0.5
    passes["ViewLayer.Depth.Z"] = depth.astype(np.float32)
    with OpenEXR.File({}, passes) as file:
        file.write(str(path))


def build_blender(root: Path) -> None:
    for n in range(FRAMES):
        depth = smooth(n)
        depth[0] = 1e10
        write_blender(root / f"{n}.exr", n, depth)
    matrix = [[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]
    write_json(root / "camera.json", {"fx": 30.0, "fy": 31.0, "cx": 20.0, "cy": 15.0, "matrix_world": matrix})


# ---------------------------------------------------------------- captured


def build_diode(root: Path) -> None:
    for n in range(FRAMES):
        stem = root / f"val/indoors/scene_00019/scan_00183/00019_00183_indoors_{n}"
        noise_image(stem.with_suffix(".png"), n)
        depth = smooth(n)[..., None]
        mask = np.ones((HEIGHT, WIDTH), np.float32)
        mask[0, 0] = 0
        write_npy(Path(f"{stem}_depth.npy"), depth)
        write_npy(Path(f"{stem}_depth_mask.npy"), mask)


def diode(n: int, ending: str) -> str:
    return f"val/indoors/scene_00019/scan_00183/00019_00183_indoors_{n}{ending}"


def write_pfm(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    path.write_bytes(f"Pf\n{width} {height}\n-1.0\n".encode() + values[::-1].astype("<f4").tobytes())


def build_middlebury(root: Path) -> None:
    for n in range(FRAMES):
        scene = root / f"scene{n}."
        noise_image(scene / "im0.png", n)
        disparity = 5 + smooth(n)
        disparity[0, 0] = np.inf
        write_pfm(scene / "disp0.pfm", disparity)
        (scene / "calib.txt").write_text(
            "cam0=[30.0 0 19.5; 0 30.0 14.5; 0 0 1]\ncam1=[30.0 0 22.5; 0 30.0 14.5; 0 0 1]\n"
            f"doffs=3.0\nbaseline=200.0\nwidth={WIDTH}\nheight={HEIGHT}\nndisp=64\n"
        )


def build_booster(root: Path) -> None:
    for n in range(FRAMES):
        scene = root / f"train/balanced/scene{n}."
        noise_image(scene / "camera_00/im0.png", n)
        write_npy(scene / "disp_00.npy", 5 + smooth(n))
        mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
        mask[0, :2] = 0
        Image.fromarray(mask).save(scene / "mask_00.png")
        numbers = " ".join(str(v) for row in K3 for v in row)
        (scene / "calib_00-02.xml").write_text(
            '<?xml version="1.0"?>\n<opencv_storage>\n<mtxL type_id="opencv-matrix"><rows>3</rows><cols>3</cols>'
            f"<dt>d</dt><data>\n{numbers}</data></mtxL>\n<baselineLR>200.0</baselineLR>\n</opencv_storage>\n"
        )


def build_arkitscenes(root: Path) -> None:
    scene = root / "Training/41069021"
    for n in range(FRAMES):
        stem = f"41069021_{n}.1"
        noise_image(scene / f"lowres_wide/{stem}.png", n)
        depth_png(scene / f"lowres_depth/{stem}.png", np.round(1000 * smooth(n)))
        confidence = np.full((HEIGHT, WIDTH), 2, np.uint8)
        confidence[0, :3] = [0, 1, 0]
        (scene / "confidence").mkdir(exist_ok=True)
        Image.fromarray(confidence).save(scene / f"confidence/{stem}.png")
        lens = scene / f"lowres_wide_intrinsics/41069021_{n}.12{n}.pincam"  # a little later than the image
        lens.parent.mkdir(exist_ok=True)
        lens.write_text(f"{WIDTH} {HEIGHT} {30 + n} 31 19.5 14.5")
    # Camera from world: a quarter turn about y, then a shift.
    rows = [f"{n}.1{n} 0 1.5707963267948966 0 {n} 2 3" for n in range(2)]
    (scene / "lowres_wide.traj").write_text("\n".join(rows) + "\n")


def arkit(folder: str) -> str:
    return f"Training/41069021/{folder}/41069021_{{}}.1.png"


SENS_SHIFT = [[1, 0, 0, -0.1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]


def build_scannet(root: Path, *, frames: int = FRAMES) -> None:
    """Colour of 40x30, depth of 20x20 pixels and a camera 10 cm beside; the pose of frame 1 is lost."""

    def matrix(k: list[list[float]]) -> bytes:
        full = np.eye(4)
        full[: len(k), : len(k[0])] = k
        return struct.pack("<16f", *full.ravel())

    body = struct.pack("<IQ", 4, 5) + b"Kinec"
    body += matrix(K3) + matrix(np.eye(4).tolist()) + matrix([[20.0, 0, 9.5], [0, 20.0, 9.5], [0, 0, 1]])
    body += matrix(SENS_SHIFT) + struct.pack("<ii4IfQ", 2, 1, WIDTH, HEIGHT, 20, 20, 1000.0, frames)
    for n in range(frames):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(n).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        depth = zlib.compress(np.full((20, 20), 2000 + n, "<u2").tobytes())
        pose = np.full((4, 4), -np.inf) if n == 1 else np.eye(4)
        body += struct.pack("<16f", *pose.ravel()) + struct.pack("<QQQQ", n, n, len(buffer.getvalue()), len(depth))
        body += buffer.getvalue() + depth
    (root / "scene0000_00.sens").write_bytes(body)


def build_seven_scenes(root: Path) -> None:
    for n in range(FRAMES):
        stem = root / f"seq-01/frame-{n:06d}"
        noise_image(Path(f"{stem}.color.png"), n)
        values = np.full((HEIGHT, WIDTH), 2000 + n)
        values[0, 0], values[0, 1] = 65535, 0
        depth_png(Path(f"{stem}.depth.png"), values)
        Path(f"{stem}.pose.txt").write_text("1 0 0 5\t\n0 1 0 6\t\n0 0 1 7\t\n0 0 0 1\n")


# ---------------------------------------------------------------- reconstructed


def write_colmap_map(path: Path, depth: np.ndarray) -> None:
    """As COLMAP's Mat<float>::Write does: the text of the sizes, then rows of float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = depth.shape
    path.write_bytes(f"{width}&{height}&1&".encode() + b"".join(struct.pack("<f", v) for v in depth.ravel()))


def build_colmap_dense(root: Path) -> None:
    (root / "sparse").mkdir()
    colmap_reconstruction().write_binary(str(root / "sparse"))
    for n in range(FRAMES):
        noise_image(root / f"images/{n}.png", n)
        depth = smooth(n)
        depth[0, 0] = 0
        write_colmap_map(root / f"stereo/depth_maps/{n}.png.geometric.bin", depth)


def build_mvsnet(root: Path) -> None:
    scene = root / "5a3ca9cb270f0e3f14d0eddb"
    for n in range(FRAMES):
        noise_image(scene / f"blended_images/{n:08d}.jpg", n)
        depth = smooth(n)
        depth[0, 0] = 0
        write_pfm(scene / f"rendered_depth_maps/{n:08d}.pfm", depth)
        cam = scene / f"cams/{n:08d}_cam.txt"
        cam.parent.mkdir(exist_ok=True)
        cam.write_text(
            f"extrinsic\n0 0 1 {n}\n0 1 0 2\n-1 0 0 3\n0 0 0 1\n\n"
            "intrinsic\n30 0 20\n0 31 15\n0 0 1\n\n0.5 0.01 128 9\n"
        )


def build_nerfstudio(root: Path) -> None:
    frames = []
    for n in range(FRAMES):
        noise_image(root / f"images/{n}.png", n)
        depth_png(root / f"depths/{n}.png", ramp(n))
        matrix = [[0, 0, 1, n], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]
        frames.append(
            {"file_path": f"images/{n}.png", "depth_file_path": f"depths/{n}.png", "transform_matrix": matrix}
        )
    frames[2] |= {"fl_x": 33.0, "k1": 0.0}
    shared = {"fl_x": 30.0, "fl_y": 31.0, "cx": 20.0, "cy": 15.0, "w": WIDTH, "h": HEIGHT, "camera_model": "OPENCV"}
    write_json(root / "transforms.json", {**shared, "k1": -0.1, "k2": 0.02, "p1": 0.001, "p2": 0.0, "frames": frames})


def build_wai(root: Path) -> None:
    """As MapAnything's conversion scripts write a scene of BlendedMVS."""
    scene, frames = root / "5a3ca9cb", []
    for n in range(FRAMES):
        noise_image(scene / f"images/{n}.png", n)
        depth = smooth(n)
        depth[0, 0] = 0
        write_exr(scene / f"depth/{n}.exr", depth, np.float32)
        pose = [[0, 0, 1, n], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]]
        names = {"frame_name": str(n), "image": f"images/{n}.png", "file_path": f"images/{n}.png"}
        lens = {"h": HEIGHT, "w": WIDTH, "fl_x": 30.0, "fl_y": 31.0, "cx": 20.0, "cy": 15.0}
        frames.append({**names, "depth": f"depth/{n}.exr", "transform_matrix": pose, **lens})
    modalities = {
        "image": {"frame_key": "image", "format": "image"},
        "depth": {"frame_key": "depth", "format": "depth"},
    }
    shared = {"scene_name": "5a3ca9cb", "dataset_name": "blendedmvs", "version": "0.1", "shared_intrinsics": False}
    model = {"camera_model": "PINHOLE", "camera_convention": "opencv", "scale_type": "colmap"}
    write_json(scene / "scene_meta.json", {**shared, **model, "frames": frames, "frame_modalities": modalities})


def numbered(pattern: str) -> object:
    return lambda root: [root / pattern.format(n) for n in range(FRAMES)]


MORE: dict[str, Fixture] = {
    "nyu": Fixture(build_nyu, None, None),
    "hypersim": Fixture(
        build_hypersim,
        numbered("ai_001_001/images/scene_cam_00_final_preview/frame.{:04d}.color.jpg"),
        lambda root: write_hdf5(
            root / "ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0001.depth_meters.hdf5", smooth(1, 20, 10)
        ),
    ),
    "ibims": Fixture(build_ibims, numbered("gt_mat/room_{}.mat"), spoil_ibims),
    "vkitti2": Fixture(
        build_vkitti2,
        numbered("Scene01/clone/frames/rgb/Camera_0/rgb_{:05d}.jpg"),
        wrong_png("Scene01/clone/frames/depth/Camera_0/depth_00001.png"),
    ),
    "sintel": Fixture(
        build_sintel,
        numbered("training/final/alley_1/frame_{:04d}.png"),
        lambda root: cut(root / "training/depth/alley_1/frame_0001.dpt"),
    ),
    "blender": Fixture(
        build_blender,
        numbered("{}.exr"),
        lambda root: write_blender(root / "1.exr", 1, smooth(1, 20, 10)),
    ),
    "diode": Fixture(
        build_diode,
        numbered(diode(0, ".png").replace("_0.", "_{}.")),
        lambda root: cut(root / diode(1, "_depth.npy")),
    ),
    "middlebury": Fixture(build_middlebury, numbered("scene{}./im0.png"), lambda root: cut(root / "scene1./disp0.pfm")),
    "booster": Fixture(
        build_booster,
        numbered("train/balanced/scene{}./camera_00/im0.png"),
        lambda root: cut(root / "train/balanced/scene1./disp_00.npy"),
    ),
    "arkitscenes": Fixture(
        build_arkitscenes, numbered(arkit("lowres_wide")), wrong_png(arkit("lowres_depth").format(1))
    ),
    "scannet": Fixture(build_scannet, None, None),
    "seven_scenes": Fixture(
        build_seven_scenes,
        numbered("seq-01/frame-{:06d}.color.png"),
        lambda root: cut(root / "seq-01/frame-000001.depth.png", 40),
    ),
    "colmap_dense": Fixture(
        build_colmap_dense,
        numbered("images/{}.png"),
        lambda root: cut(root / "stereo/depth_maps/1.png.geometric.bin"),
    ),
    "mvsnet": Fixture(
        build_mvsnet,
        numbered("5a3ca9cb270f0e3f14d0eddb/blended_images/{:08d}.jpg"),
        lambda root: cut(root / "5a3ca9cb270f0e3f14d0eddb/rendered_depth_maps/00000001.pfm"),
    ),
    "wai": Fixture(
        build_wai,
        numbered("5a3ca9cb/images/{}.png"),
        lambda root: cut(root / "5a3ca9cb/depth/1.exr", 400),
    ),
    "nerfstudio": Fixture(build_nerfstudio, numbered("images/{}.png"), wrong_png("depths/1.png")),
}
