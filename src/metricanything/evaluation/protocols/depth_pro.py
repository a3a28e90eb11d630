"""Depth Pro: zero-shot metric depth on six sets (and iBims), each with its range; delta 1."""

from metricanything.evaluation.protocol import Protocol

_SOURCE = "Depth Pro, arXiv 2410.02073, Table 18 (ranges, images) and Table 1 (delta 1)"
_SETS = {
    "booster": ("Booster, train, 228 images, 3008 x 4112", 1e-3, 10.0),
    "eth3d": ("ETH3D, 454 images, 4032 x 6048", 0.1, 200.0),
    "middlebury": ("Middlebury, 15 images, 1988 x 2952", 1e-3, 10.0),
    "nuscenes": ("nuScenes, 881 images, 900 x 1600", 1e-3, 80.0),
    "sintel": ("Sintel, 1064 images, 436 x 1024", 1e-2, 80.0),
    "sunrgbd": ("SUN RGB-D, 5050 images, 530 x 730", 1e-3, 10.0),
    "ibims": ("iBims-1, 100 images, 480 x 640", 0.1, 10.0),
}

PROTOCOLS = tuple(
    Protocol(
        name=f"depthpro-{name}",
        task="depth",
        summary=f"metric depth from the image, {low:g} to {high:g} m",
        source=_SOURCE,
        dataset=dataset,
        metrics=("delta1", "abs_rel", "log10", "delta2", "delta3", "coverage"),
        intrinsics=False,
        depth_range=(low, high),
        unknown="the evaluation code is not released: averaging over images is assumed",
    )
    for name, (dataset, low, high) in _SETS.items()
)
PROTOCOLS += tuple(
    Protocol(
        name=f"depthpro-{name}-boundary",
        task="boundary",
        summary="sharpness: scale-invariant boundary F1",
        source="Depth Pro, arXiv 2410.02073; src/depth_pro/eval/boundary_metrics.py",
        dataset=dataset,
        metrics=("boundary_f1",),
        intrinsics=False,
        unknown="how unknown ground truth was treated: here it never counts",
    )
    for name, dataset in (("sintel", "Sintel"), ("spring", "Spring"), ("ibims", "iBims-1"))
)
PROTOCOLS += tuple(
    Protocol(
        name=f"depthpro-{name}-recall",
        task="boundary",
        summary="sharpness: recall of the outlines of mattes or masks",
        source="Depth Pro, arXiv 2410.02073; src/depth_pro/eval/boundary_metrics.py",
        dataset=dataset,
        metrics=("boundary_recall",),
        intrinsics=False,
        metric_truth=False,
        unknown=f"image size that the depth is scored at{more}",
    )
    for name, dataset, more in (
        ("am2k", "AM-2k, images with mattes", ""),
        ("p3m10k", "P3M-10k, images with mattes", ""),
        ("dis5k", "DIS5K, images with masks", "; it takes the images of its dis5k_sample_list.txt alone"),
    )
)
GROUPS = {
    "depthpro-recall": tuple(p.name for p in PROTOCOLS if p.name.endswith("-recall")),
    "depthpro-boundary": tuple(p.name for p in PROTOCOLS if p.name.endswith("-boundary")),
    "depth_pro": tuple(p.name for p in PROTOCOLS if p.task == "depth"),
    "depthpro-six": tuple(p.name for p in PROTOCOLS if p.task == "depth" and p.name != "depthpro-ibims"),
}
