"""OMNI-DC's robust depth completion: real and virtual prompts, with noise; RMSE and REL, no depth cap."""

from metricanything.evaluation.protocol import GIVEN, Crop, Protocol

_SOURCE = "OMNI-DC, arXiv 2411.19278; src/robust_dc_protocol/save_uniformat_datasets_all.sh, src/data/"
_VIRTUAL = "test splits of ARKitScenes, iBims, ETH3D indoor and outdoor, DIODE indoor and outdoor, at 480 x 640"
_METRICS = ("rmse", "abs_rel", "mae", "irmse", "imae", "delta1", "delta2", "delta3", "ratio1.02", "ratio1.05",
            "ratio1.10", "coverage")  # fmt: skip
_KITTI = Crop("top 96 off, 240 x 1216 at the bottom", "bottom", (0, 240), (0, 1216))
_NYU = Crop("centre 228 x 304 of 240 x 320", "pixels", (6, 234), (8, 312))


def _virtual(
    name: str, pattern: str, what: str, unknown: str = "sampling seeds, unless its own .npy samples are read"
) -> Protocol:
    return Protocol(
        name=f"omnidc-virtual-{name}",
        task="completion",
        summary=f"virtual prompt: {what}",
        source=_SOURCE,
        dataset=_VIRTUAL,
        metrics=_METRICS,
        prompt=(pattern,),
        size=(480, 640),
        unknown=unknown,
    )


def _real(name: str, what: str, dataset: str, unknown: str = "", crop: Crop | None = None) -> Protocol:
    return Protocol(
        name=f"omnidc-{name}",
        task="completion",
        summary=f"real prompt: {what}",
        source=_SOURCE,
        dataset=dataset,
        metrics=_METRICS,
        prompt=(GIVEN,),
        input_crop=crop or Crop("none"),
        unknown=unknown,
    )


def _nyu(points: int) -> Protocol:
    return Protocol(
        name=f"omnidc-nyu-{points}",
        task="completion",
        summary=f"{points} random points on NYU at 228 x 304",
        source=_SOURCE,
        dataset="NYU Depth v2, test, 654 images",
        metrics=_METRICS,
        prompt=(f"uniform-{points}",),
        size=(240, 320),
        input_crop=_NYU,
        unknown="sampling seeds; how depth is resized there (here: nearest pixel)",
    )


_NOISE = "outliers are drawn between the 10th and 90th percentile of known depth, there of all pixels with 0 = unknown"
_FEW = "where fewer than 20 keypoints are found, 2000 random points are drawn, there 1000"
_OWN = "image sizes; take its own .npy samples"
_SIZES = "how images and depth are brought to 480 x 640 for each set (here: area mean, nearest pixel)"
_LINES = "lines are taken from the data's own prompt, subsampled beforehand by pitch as in its KITTI loader"

PROTOCOLS = (
    _virtual("0.7", "matched-2150", "0.7 % of the pixels"),
    _virtual("0.1", "matched-300", "0.1 % of the pixels"),
    _virtual("0.03", "matched-100", "0.03 % of the pixels"),
    *(_virtual(f"noise-{n}", f"matched-2150+outliers-{n}", f"0.7 %, {n} % of them wrong", _NOISE) for n in (1, 5, 10)),
    _virtual("sift", "sift", "SIFT keypoints", _FEW),
    _virtual("orb", "orb", "ORB corners", _FEW),
    *(_virtual(f"lidar-{n}", f"lidar_rounded-{n}", f"{n} LiDAR lines", _SIZES) for n in (64, 32, 16, 8)),
    *(_real(f"kitti-{n}", f"{n} lines of the Velodyne", "KITTI-DC val and test", _LINES, _KITTI)
      for n in (64, 32, 16, 8)),
    _real("eth3d-sfm", "COLMAP points", "ETH3D SfM indoor and outdoor, val and test", _OWN),
    *(_real(f"void-{n}", f"about {n} points of visual-inertial odometry", "VOID, test, 800 images", _OWN)
      for n in (1500, 500, 150)),
    *(_nyu(n) for n in (500, 200, 100, 50, 5)),
)  # fmt: skip
GROUPS = {
    "omni_dc": tuple(p.name for p in PROTOCOLS),
    "omnidc-virtual": tuple(p.name for p in PROTOCOLS if p.name.startswith("omnidc-virtual")),
}
