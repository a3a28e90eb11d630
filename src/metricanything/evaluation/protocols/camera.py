"""Camera recovery from the image alone: field of view, focal length, angle between rays."""

from metricanything.evaluation.protocol import Protocol


def _protocol(name: str, metrics: tuple[str, ...], summary: str, source: str, dataset: str, unknown: str) -> Protocol:
    return Protocol(
        name=name,
        task="camera",
        summary=summary,
        source=source,
        dataset=dataset,
        metrics=metrics,
        intrinsics=False,
        unknown=unknown,
    )


PROTOCOLS = (
    _protocol(
        "depthpro-focal",
        ("focal_25", "focal_50", "focal_rel"),
        "share of images with a focal length within 25 and 50 %",
        "Depth Pro, arXiv 2410.02073",
        "DDDP, FiveK, PPR10K, RAISE, SPAQ, ZOOM (EXIF focal lengths)",
        "image lists",
    ),
    _protocol(
        "moge-fov",
        ("fov_deg",),
        "error of the horizontal field of view",
        "MoGe-2, arXiv 2507.02546; moge/test/metrics.py",
        "MoGe's ten sets",
        "the paper crops at random, the released code does not (MoGe issue 115): no crops here",
    ),
    _protocol(
        "mapanything-rays",
        ("rays_deg",),
        "mean angle between recovered and true rays",
        "MapAnything, benchmarking/calibration/benchmark.py",
        "ETH3D, ScanNet++ v2, TartanAir v2 WB at many aspect ratios",
        "image lists; here over a grid of 64 x 64 rays",
    ),
)
GROUPS = {"camera": tuple(p.name for p in PROTOCOLS)}
