"""NYU and KITTI as they have been measured since Eigen et al. 2014: crop, cap, clamped predictions."""

from metricanything.evaluation.protocol import EIGEN, GARG, KITTI_BENCHMARK, NYU, WHOLE, Crop, Protocol

_METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3", "coverage")
_EIGEN_14 = "Eigen et al., NeurIPS 2014 (arXiv 1406.2283)"
_IMAGES = {"697": "697 images, ground truth of raw LiDAR sweeps", "652": "652 images with improved ground truth"}


def _kitti(crop: Crop, images: str, input_crop: Crop = WHOLE, name: str | None = None) -> Protocol:
    return Protocol(
        name=f"kitti-eigen-{name or crop.name}-{images}",
        task="depth",
        summary=f"KITTI, Eigen test split, {name or crop.name} crop, to 80 m",
        source=f"{_EIGEN_14}; Garg et al., ECCV 2016 (arXiv 1603.04992); crops as in Marigold, src/dataset",
        dataset=f"KITTI, Eigen test, {_IMAGES[images]}",
        metrics=_METRICS,
        crop=crop,
        input_crop=input_crop,
        depth_range=(1e-5, 80.0),
        clamp=True,
        unknown="predictions that are missing are errors here, where scripts set them to the nearest bound",
    )


PROTOCOLS = (
    Protocol(
        name="nyu-eigen-654",
        task="depth",
        summary="NYU Depth v2, Eigen crop, to 10 m",
        source=f"{_EIGEN_14}; crop as in Marigold, src/dataset/nyu_dataset",
        dataset="NYU Depth v2, test, 654 images, 480 x 640",
        metrics=_METRICS,
        crop=NYU,
        depth_range=(1e-3, 10.0),
        clamp=True,
        unknown="predictions that are missing are errors here, where scripts set them to the nearest bound",
    ),
    *(_kitti(crop, images) for crop in (GARG, EIGEN) for images in ("697", "652")),
    _kitti(WHOLE, "652", KITTI_BENCHMARK, "benchmark"),
)
GROUPS = {"classic": tuple(p.name for p in PROTOCOLS)}
