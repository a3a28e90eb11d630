"""The registry's entries: every raw format that can be read."""

from __future__ import annotations

from metricanything.sources.reader import Reader

ALL = (
    Reader(
        "folder",
        "images with depth maps and cameras: FRAME/{image,depth,meta.json} or images/ depth/ cameras/",
        "metricanything/sources/folder.py",
        "that of your data; state it as `licence` in dataset.json or meta.json",
    ),
    Reader(
        "colmap",
        "COLMAP sparse model (bin or txt) with its images; 3D points as sparse depth",
        "https://colmap.github.io/format.html",
        "that of your data; state it as `licence` in dataset.json",
        metric=False,
    ),
    Reader(
        "tum",
        "TUM RGB-D sequence: rgb.txt, depth.txt, groundtruth.txt",
        "https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats",
        "TUM RGB-D: CC BY 4.0, cite Sturm et al., IROS 2012",
    ),
    Reader(
        "kitti_raw",
        "KITTI raw drives, synced and rectified: colour images with Velodyne sweeps",
        "https://www.cvlibs.net/datasets/kitti/raw_data.php",
        "KITTI: CC BY-NC-SA 3.0 (non-commercial), cite Geiger et al., IJRR 2013",
    ),
    Reader(
        "procedural",
        "rendered rooms and objects with exact depth, made on the fly",
        "metricanything/sources/procedural/__init__.py",
        "CC0-1.0 (generated)",
        needs_path=False,
    ),
)
