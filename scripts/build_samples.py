"""Make the bundled samples (src/metricanything/samples) from the original files.

    python scripts/build_samples.py DATA [--only colmap_hospital …]

DATA holds the originals: train/tartanair_p, validation/{open3d_redwood,posecnn_ycb,promptda},
raw/slambook/ch7 and raw/opencalib, each frame as FRAME/{image.jpg, depth.png, meta.json} outside raw. Needs the extra
`colmap`. Takes about ten seconds on one core. Every number that describes a sample is measured here and stored in it.
"""

from __future__ import annotations

import argparse
import re
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import map_coordinates

from metricanything import samples, sources
from metricanything.core.camera import Camera
from metricanything.core.codecs import encode_png, read_depth, read_image
from metricanything.core.files import read_json, write_bytes, write_json, write_text

# The stretch of the TartanAir trajectory that registers as one model: frames 66 to 133.
_FIRST, _LAST = "000066", "000133"
_HELDOUT = {
    "open3d_redwood": ("00000", "00004"),
    "posecnn_ycb": ("000001", "000004"),
    "promptda": ("example",),
}


# ---------------------------------------------------------------- colmap_hospital


def build_colmap_hospital(data: Path, out: Path) -> None:
    """SfM of a TartanAir stretch with known intrinsics; scale measured against the rendered depth."""
    frames = [f for f in sorted((data / "train/tartanair_p").iterdir()) if _FIRST <= f.name <= _LAST]
    for frame in frames:
        write_bytes(out / "images" / f"{frame.name}.jpg", (frame / "image.jpg").read_bytes())
    with tempfile.TemporaryDirectory() as work:
        model = _structure_from_motion(out / "images", Path(work))
    (out / "sparse/0").mkdir(parents=True)
    _prune(model).write_binary(str(out / "sparse/0"))

    truth = {f.name: read_depth(f / "depth.png", 1000.0) for f in frames}
    ratios = np.concatenate([_ratios(f.depth, truth[f.name]) for f in sources.read("colmap", out)])
    scale = float(np.median(ratios))
    error = np.abs(scale / ratios - 1)
    spread = np.quantile(ratios / scale, [0.1, 0.9])
    write_json(
        out / "scale.json",
        {
            "metres_per_unit": scale,
            "measured": "median over all sparse depths of rendered depth in metres / SfM depth",
            "sparse_depths": len(ratios),
            "ratio_p10_p90_relative_to_median": [round(float(v), 4) for v in spread],
            "relative_error_median": round(float(np.median(error)), 4),
            "relative_error_p90": round(float(np.quantile(error, 0.9)), 4),
        },
    )
    write_json(out / "dataset.json", {"source": "TartanAir hospital (COLMAP)", "licence": "CC BY 4.0"})


def _structure_from_motion(images: Path, work: Path) -> Any:
    """One reconstruction with fixed intrinsics 200, 200, 200, 150 (TartanAir's at 400x300), by pycolmap."""
    import pycolmap

    pycolmap.logging.minloglevel = 2
    pycolmap.set_random_seed(0)
    database = work / "database.db"
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model, reader.camera_params = "PINHOLE", "200,200,200,150"
    # The walls have almost no texture: a low contrast threshold, and edges are welcome.
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.use_gpu, extraction.num_threads = False, 1
    extraction.sift.peak_threshold, extraction.sift.edge_threshold = 0.002, 40
    pycolmap.extract_features(
        database,
        images,
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=extraction,
    )
    matching = pycolmap.FeatureMatchingOptions()
    matching.use_gpu, matching.num_threads, matching.guided_matching = False, 1, True
    pycolmap.match_exhaustive(database, matching_options=matching)
    options = pycolmap.IncrementalPipelineOptions()
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    options.num_threads, options.random_seed = 1, 0  # one thread, so that a second run gives the same model
    options.mapper.init_min_tri_angle, options.mapper.init_min_num_inliers = 8, 50
    options.mapper.abs_pose_min_num_inliers = 15
    options.mapper.filter_max_reproj_error = 2
    options.triangulation.complete_max_reproj_error = options.triangulation.merge_max_reproj_error = 2
    models = pycolmap.incremental_mapping(database, images, work / "models", options=options)
    return max(models.values(), key=lambda m: m.num_reg_images())


def _prune(model: Any) -> Any:
    """The same model without keypoints that see no 3D point; they make up nine tenths of its size."""
    import pycolmap

    small = pycolmap.Reconstruction()
    (camera,) = model.cameras.values()
    small.add_camera_with_trivial_rig(camera)
    tracks: dict[int, list[tuple[int, int]]] = {key: [] for key in model.points3D}
    for image in sorted(model.images.values(), key=lambda i: str(i.name)):
        if not image.has_pose:
            continue
        seen = image.get_observation_points2D()
        copy = pycolmap.Image(
            image_id=image.image_id,
            name=image.name,
            camera_id=camera.camera_id,
            points2D=pycolmap.Point2DList([pycolmap.Point2D(p.xy) for p in seen]),
        )
        small.add_image_with_trivial_frame(copy, image.cam_from_world())
        for n, point in enumerate(seen):
            tracks[point.point3D_id].append((image.image_id, n))
    for key, point in model.points3D.items():
        track = pycolmap.Track([pycolmap.TrackElement(i, n) for i, n in tracks[key]])
        small.add_point3D_with_id(
            key, pycolmap.Point3D(xyz=point.xyz, color=point.color, error=point.error, track=track)
        )
    return small


def _ratios(depth: NDArray[np.float32], truth: NDArray[np.float32]) -> NDArray[np.float64]:
    both = np.isfinite(depth) & np.isfinite(truth)
    return truth[both].astype(np.float64) / depth[both]


# ---------------------------------------------------------------- tum_desk


def build_tum_desk(data: Path, out: Path) -> None:
    """The two frames of slambook2 chapter 7 in the TUM layout; the times are nominal and the poses unknown."""
    lists = {"rgb": "", "depth": ""}
    for n in (1, 2):
        for kind, file in (("rgb", f"{n}.png"), ("depth", f"{n}_depth.png")):
            name = f"{kind}/{n}.000000.png"
            write_bytes(out / name, (data / "raw/slambook/ch7" / file).read_bytes())
            lists[kind] += f"{n}.000000 {name}\n"
    note = "# the original time stamps are not known; one second apart here\n"
    for kind, lines in lists.items():
        write_text(out / f"{kind}.txt", f"# timestamp filename\n{note}{lines}")
    write_text(out / "groundtruth.txt", "# timestamp tx ty tz qx qy qz qw\n# the source gives no poses\n")
    intrinsics = {"fx": 520.9, "fy": 521.0, "cx": 325.1, "cy": 249.7, "pixel_centre": 0}
    write_json(out / "camera.json", {**intrinsics, "width": 640, "height": 480})
    write_json(out / "dataset.json", {"source": "TUM RGB-D (slambook2 ch7)", "licence": "CC BY 4.0"})


# ---------------------------------------------------------------- lidar_street


def build_lidar_street(data: Path, out: Path) -> None:
    """The SensorsCalibration camera-LiDAR pair in the KITTI raw layout: undistorted, a third of the size."""
    raw = data / "raw/opencalib"
    intrinsic = read_json(raw / "center_camera-intrinsic.json")["center_camera-intrinsic"]["param"]
    k = np.array(intrinsic["cam_K"]["data"])
    (extrinsic,) = read_json(raw / "top_center_lidar-to-center_camera-extrinsic.json").values()
    cam_from_lidar = np.array(extrinsic["param"]["sensor_calib"]["data"])
    size = intrinsic["img_dist_w"], intrinsic["img_dist_h"]
    fxy_cxy = k[0, 0], k[1, 1], k[0, 2] + 0.5, k[1, 2] + 0.5  # OpenCV counts the first pixel's centre as 0
    distorted = Camera.opencv(*fxy_cxy, *size, distortion=intrinsic["cam_dist"]["data"][0])
    pinhole = Camera.pinhole(*fxy_cxy, *size)

    image = read_image(raw / "calib.png")
    uv = distorted.project(pinhole.unproject(pinhole.pixel_grid())) - 0.5
    warped = np.stack([map_coordinates(c, [uv[..., 1], uv[..., 0]], order=1) for c in np.moveaxis(image, 2, 0)], axis=2)
    small = warped.reshape(size[1] // 3, 3, size[0] // 3, 3, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    camera = pinhole.resize(size[0] // 3, size[1] // 3)

    cloud = read_pcd(raw / "calib.pcd")
    xyz = np.stack([cloud["x"], cloud["y"], cloud["z"]], axis=1)
    seen = np.isfinite(camera.project(xyz @ cam_from_lidar[:3, :3].T + cam_from_lidar[:3, 3])).all(axis=1)
    pixels = camera.project(xyz[seen] @ cam_from_lidar[:3, :3].T + cam_from_lidar[:3, 3])
    inside = (pixels >= 0).all(axis=1) & (pixels <= [camera.width, camera.height]).all(axis=1)
    reflectance = cloud["intensity"] / 255.0
    sweep = np.column_stack([xyz, reflectance])[np.flatnonzero(seen)[inside]].astype("<f4")

    day = out / "2020_01_01"
    drive = day / "2020_01_01_drive_0001_sync"
    write_bytes(drive / "image_02/data/0000000000.png", encode_png(small))
    write_bytes(drive / "velodyne_points/data/0000000000.bin", sweep.tobytes())
    p = np.hstack([camera.K, np.zeros((3, 1))])
    p[:2, 2] -= 0.5
    lines = {"S_rect_02": [*small.shape[1::-1]], "R_rect_00": np.eye(3), "P_rect_02": p}
    write_text(day / "calib_cam_to_cam.txt", _kitti_lines(lines))
    velo = {"R": cam_from_lidar[:3, :3], "T": cam_from_lidar[:3, 3]}
    write_text(day / "calib_velo_to_cam.txt", _kitti_lines(velo))
    write_json(day / "dataset.json", {"source": "SensorsCalibration (OpenCalib)", "licence": "Apache-2.0"})


def _kitti_lines(matrices: dict[str, Any]) -> str:
    return "".join(f"{k}: {' '.join(f'{x:.9e}' for x in np.ravel(v))}\n" for k, v in matrices.items())


def read_pcd(path: Path) -> dict[str, NDArray[Any]]:
    """Fields of a `binary_compressed` .pcd file (PCD v0.7): LZF-compressed, stored field after field."""
    data = path.read_bytes()
    head, _, body = data.partition(b"DATA binary_compressed\n")
    header = dict(re.findall(r"^(FIELDS|SIZE|TYPE|POINTS) (.*)$", head.decode(), re.MULTILINE))
    compressed, full = struct.unpack("<II", body[:8])
    raw = lzf_decompress(body[8 : 8 + compressed], full)
    n, offset, fields = int(header["POINTS"]), 0, {}
    for name, kind, size in zip(header["FIELDS"].split(), header["TYPE"].split(), header["SIZE"].split(), strict=True):
        fields[name] = np.frombuffer(raw, f"<{kind.lower()}{size}", n, offset)
        offset += n * int(size)
    return fields


def lzf_decompress(data: bytes, size: int) -> bytes:
    """LibLZF: a control byte below 32 announces literals, else a copy of 3 bytes or more from up to 8 KiB back."""
    out, i = bytearray(), 0
    while i < len(data):
        control = data[i]
        i += 1
        if control < 32:
            out += data[i : i + control + 1]
            i += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[i]
            i += 1
        start = len(out) - ((control & 31) << 8) - data[i] - 1
        i += 1
        for k in range(start, start + length + 2):  # source and target may overlap
            out.append(out[k])
    if len(out) != size:
        raise ValueError(f"LZF: {len(out)} bytes instead of {size}")
    return bytes(out)


# ---------------------------------------------------------------- heldout


def build_heldout(data: Path, out: Path) -> None:
    """Real frames from sources that no training set of this project contains, in the FRAME layout of `folder`."""
    for source, names in _HELDOUT.items():
        for name in names:
            frame, target = data / "validation" / source / name, out / source / name
            # These sources count the first pixel's centre as 0: 319.5 is the middle of 640 pixels.
            meta = {**read_json(frame / "meta.json"), "pixel_centre": 0}
            write_bytes(target / "depth.png", (frame / "depth.png").read_bytes())
            if source == "promptda":
                meta = {**meta, **_halve_promptda(frame, target)}
            else:
                write_bytes(target / "image.jpg", (frame / "image.jpg").read_bytes())
            write_json(target / "meta.json", meta)


def _halve_promptda(frame: Path, target: Path) -> dict[str, Any]:
    """The photo at 640x480. Its camera is not given: that of an iPhone's wide camera, 26 mm equivalent, is assumed."""
    target.mkdir(parents=True, exist_ok=True)
    with Image.open(frame / "image.jpg") as image:
        image.resize((640, 480), Image.Resampling.LANCZOS).save(target / "image.jpg", quality=92)
    f = round(26 * float(np.hypot(640, 480) / np.hypot(36, 24)), 1)
    note = "assumed: 26 mm equivalent (iPhone wide camera), centred; the source gives none"
    camera = {"fx": f, "fy": f, "cx": 320.0, "cy": 240.0, "pixel_centre": 0.5, "camera_source": "assumed"}
    return {"width": 640, "height": 480, **camera, "intrinsics_note": note}


# ---------------------------------------------------------------- all


_BUILDERS = {
    "colmap_hospital": build_colmap_hospital,
    "tum_desk": build_tum_desk,
    "lidar_street": build_lidar_street,
    "heldout": build_heldout,
}


def main() -> None:
    """Build the samples named on the command line, or all, and print what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the original files")
    parser.add_argument("--only", nargs="+", choices=list(_BUILDERS), default=list(_BUILDERS))
    arguments = parser.parse_args()
    for name in arguments.only:
        out = samples.path(name)
        shutil.rmtree(out, ignore_errors=True)
        _BUILDERS[name](arguments.data, out)
        size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file())
        frames = list(sources.read(samples.SAMPLES[name], out))
        print(f"{name}: {len(frames)} frames, {size / 1e6:.2f} MB")
        for frame in frames:
            valid = frame.depth[frame.valid]
            print(f"  {frame.name}: {valid.size} depths, median {np.median(valid):.4f} ({frame.scale})")


if __name__ == "__main__":
    main()
