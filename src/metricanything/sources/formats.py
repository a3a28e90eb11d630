"""The registry's entries: every raw format that can be read."""

from __future__ import annotations

from metricanything.sources.reader import Reader

ALL = (
    Reader(
        "folder",
        "images with depth maps and cameras: FRAME/{image,depth,meta.json} or images/ depth/ cameras/",
        "metricanything/sources/folder.py",
        "that of your data; state it as `licence` in dataset.json or meta.json",
        signs=("**/meta.json", "images/* depth/*"),
    ),
    Reader(
        "colmap",
        "COLMAP sparse model (bin or txt) with its images; 3D points as sparse depth",
        "https://colmap.github.io/format.html",
        "that of your data; state it as `licence` in dataset.json",
        signs=("cameras.bin points3D.bin", "cameras.txt points3D.txt", "sparse/cameras.*", "sparse/*/cameras.*"),
        metric=False,
    ),
    Reader(
        "tum",
        "TUM RGB-D sequence: rgb.txt, depth.txt, groundtruth.txt",
        "https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats",
        "TUM RGB-D: CC BY 4.0, cite Sturm et al., IROS 2012",
        signs=("rgb.txt depth.txt",),
    ),
    Reader(
        "kitti_raw",
        "KITTI raw drives, synced and rectified: colour images with Velodyne sweeps",
        "https://www.cvlibs.net/datasets/kitti/raw_data.php",
        "KITTI: CC BY-NC-SA 3.0 (non-commercial), cite Geiger et al., IJRR 2013",
        signs=("**/velodyne_points/data",),
    ),
    Reader(
        "kitti_object",
        "KITTI object detection: image_2/, velodyne/, calib/",
        "https://www.cvlibs.net/datasets/kitti/eval_object.php",
        "KITTI: CC BY-NC-SA 3.0 (non-commercial), cite Geiger et al., CVPR 2012",
        signs=(
            "image_2 velodyne calib",
            "*/image_2 */velodyne */calib",
        ),
    ),
    Reader(
        "kitti_depth",
        "KITTI depth completion and prediction: annotated depth with the raw images, or val_selection_cropped",
        "https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_completion",
        "KITTI: CC BY-NC-SA 3.0 (non-commercial), cite Uhrig et al., 3DV 2017",
        signs=(
            "**/proj_depth",
            "**/groundtruth_depth **/intrinsics",
        ),
    ),
    Reader(
        "nuscenes",
        "nuScenes: six cameras with LiDAR or radar, one sweep or several",
        "https://www.nuscenes.org/nuscenes#data-format",
        "nuScenes: CC BY-NC-SA 4.0 and its terms of use (non-commercial)",
        signs=("v1.0-*/sample_data.json",),
    ),
    Reader(
        "dgp",
        "DGP scenes, such as DDAD: cameras and LiDAR with poses",
        "https://github.com/TRI-ML/dgp",
        "DDAD: CC BY-NC-SA 4.0 (non-commercial), cite Guizilini et al., CVPR 2020",
        signs=("**/scene_*.json **/calibration/*.json",),
    ),
    Reader(
        "opencalib",
        "OpenCalib: NAME.png with NAME.pcd, intrinsics with distortion, extrinsics",
        "https://github.com/PJLab-ADG/SensorsCalibration",
        "Apache-2.0",
        signs=("*camera-intrinsic.json *camera-extrinsic.json",),
    ),
    Reader(
        "pointcloud",
        "images/ with clouds/ (PLY, PCD, LAS, LAZ, NPY, .bin), camera and extrinsics in calibration.json",
        "metricanything/sources/pointcloud.py",
        "that of your data; state it as `licence` in dataset.json",
        signs=("images clouds",),
    ),
    Reader(
        "record3d",
        "Record3D export of an iPhone or iPad: rgb/, depth/*.exr, metadata.json",
        "https://record3d.app",
        "that of your data; state it as `licence` in dataset.json",
        signs=("rgb depth/*.exr metadata.json",),
    ),
    Reader(
        "stray_scanner",
        "Stray Scanner recording: rgb.mp4, depth/, confidence/, camera_matrix.csv, odometry.csv",
        "https://github.com/strayrobots/scanner",
        "that of your data; state it as `licence` in dataset.json",
        signs=("rgb.mp4 depth camera_matrix.csv",),
    ),
    Reader(
        "sun_rgbd",
        "SUN RGB-D: a folder a frame with image/, depth_bfx/, intrinsics.txt",
        "https://rgbd.cs.princeton.edu",
        "SUN RGB-D: research use, cite Song et al., CVPR 2015",
        signs=("**/depth_bfx",),
    ),
    Reader(
        "open3d_rgbd",
        "Open3D recorder and Redwood: color/, depth/, camera_intrinsic.json, trajectory.log",
        "http://redwood-data.org/indoor/fileformat.html",
        "that of your data; state it as `licence` in dataset.json",
        signs=("color/* depth/*",),
    ),
    Reader(
        "tartanair",
        "TartanAir v1 trajectories: image_left/, depth_left/, pose_left.txt",
        "https://theairlab.org/tartanair-dataset",
        "TartanAir: CC BY 4.0, cite Wang et al., IROS 2020",
        signs=("**/depth_left",),
    ),
    Reader(
        "procedural",
        "rendered rooms and objects with exact depth, made on the fly",
        "metricanything/sources/procedural/__init__.py",
        "CC0-1.0 (generated)",
        needs_path=False,
    ),
)
