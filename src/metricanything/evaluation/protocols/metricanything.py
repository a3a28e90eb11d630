"""Our own default: one prompt of each kind, with clean and with wrong points, and none."""

from metricanything.evaluation.protocol import Protocol

_SOURCE = "metricanything, docs/evaluation.md"
_METRICS = ("abs_rel", "rmse", "mae", "delta1", "tau", "silog", "coverage")
_PROMPTS = {
    "uniform-2000": "2000 random points",
    "uniform-500": "500 random points",
    "uniform-100": "100 random points",
    "uniform-10": "10 random points, as of clicks",
    "lidar-8": "8 LiDAR lines",
    "lidar-64": "64 LiDAR lines",
    "grid-8": "an 8 times coarser grid",
    "grid-16": "a 16 times coarser grid",
    "sift": "SIFT keypoints",
    "lidar-8+fov-50": "8 LiDAR lines over half of the width",
    "uniform-500+hole-160": "500 points around a hole of 160 pixels",
    "uniform-500+outliers-5": "500 points, 5 % of them wrong",
}


def _protocol(name: str, summary: str, prompt: str, intrinsics: bool = True, alignment: str = "none") -> Protocol:
    return Protocol(
        name=name,
        task="completion" if prompt != "none" else "depth",
        summary=summary,
        source=_SOURCE,
        dataset="any",
        metrics=_METRICS,
        prompt=(prompt,),
        intrinsics=intrinsics,
        alignment=alignment,
        depth_range=(1e-2, 100.0),
    )


PROTOCOLS = (
    *(_protocol(f"ma-{pattern}", summary, pattern) for pattern, summary in _PROMPTS.items()),
    _protocol("ma-image", "the image and its camera", "none"),
    _protocol("ma-image-only", "the image alone", "none", intrinsics=False),
    _protocol("ma-image-scaled", "the image alone, medians made equal", "none", False, "median_scale"),
)
GROUPS = {
    "metricanything": tuple(f"ma-{pattern}" for pattern in _PROMPTS),
    "ma-promptless": ("ma-image", "ma-image-only", "ma-image-scaled"),
}
