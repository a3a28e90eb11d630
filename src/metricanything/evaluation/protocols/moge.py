"""MoGe: metric depth without alignment, on sets warped to a centred principal point; oracle = intrinsics given."""

from metricanything.evaluation.protocol import Protocol

_SOURCE = "MoGe-2, arXiv 2507.02546; moge/test/, configs/eval/all_benchmarks.json"
_SETS = {
    "nyu": "NYUv2 640 x 480",
    "kitti": "KITTI 750 x 375",
    "eth3d": "ETH3D 2048 x 1365",
    "ibims": "iBims-1 640 x 480",
    "ddad": "DDAD 1400 x 700",
    "diode": "DIODE 1024 x 768",
    "hammer": "HAMMER 1664 x 832",
}

PROTOCOLS = tuple(
    Protocol(
        name=f"moge-{name}{'-oracle' if oracle else ''}",
        task="depth",
        summary=f"metric depth, camera {'given' if oracle else 'not given'}, no alignment",
        source=_SOURCE,
        dataset=f"{dataset}, of Ruicheng/monocular-geometry-evaluation",
        metrics=("abs_rel", "delta1", "coverage"),
        intrinsics=oracle,
        depth_range=(1e-6, float("inf")),
        far_outliers=1000.0,
        not_measured=("scale- and affine-invariant depth",),
        unknown="warping to a centred principal point and the set's size is done beforehand; its AbsRel divides by "
        "g + 1e-6",
    )
    for name, dataset in _SETS.items()
    for oracle in (False, True)
)
_POINTS = tuple(
    f"points_{kind}_{name}" for kind in ("metric", "scale_invariant", "affine_invariant") for name in ("rel", "delta1")
)
PROTOCOLS += tuple(
    Protocol(
        name=f"moge-{name}-points",
        task="points",
        summary="point maps: metric, scale- and affine-invariant",
        source=_SOURCE,
        dataset=f"{dataset}, of Ruicheng/monocular-geometry-evaluation",
        metrics=_POINTS,
        intrinsics=False,
        depth_range=(1e-6, float("inf")),
        far_outliers=1000.0,
        not_measured=("local points",),
        unknown="warping to a centred principal point and the set's size is done beforehand; points are of depth and "
        "the recovered camera",
    )
    for name, dataset in _SETS.items()
)
PROTOCOLS += tuple(
    Protocol(
        name=f"moge-{name}-boundary",
        task="boundary",
        summary="sharpness: boundary F1 in discs of radius 1 to 3",
        source=_SOURCE,
        dataset=dataset,
        metrics=("boundary_f1_r1", "boundary_f1_r2", "boundary_f1_r3"),
        intrinsics=False,
        depth_range=(1e-6, float("inf")),
        alignment="l1_scale",
        unknown="of the alignments that a model allows, that of scale is taken",
    )
    for name, dataset in (("ibims", "iBims-1"), ("hammer", "HAMMER"), ("sintel", "Sintel"), ("spring", "Spring"))
)
GROUPS = {
    "moge-points": tuple(p.name for p in PROTOCOLS if p.task == "points"),
    "moge-boundary": tuple(p.name for p in PROTOCOLS if p.task == "boundary"),
    "moge": tuple(p.name for p in PROTOCOLS if p.task == "depth" and not p.name.endswith("-oracle")),
    "moge-oracle": tuple(p.name for p in PROTOCOLS if p.name.endswith("-oracle")),
}
