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
        not_measured=("points", "scale- and affine-invariant depth and points", "local points", "boundary F1"),
        unknown="warping to a centred principal point and the set's size is done beforehand; its AbsRel divides by "
        "g + 1e-6",
    )
    for name, dataset in _SETS.items()
    for oracle in (False, True)
)
GROUPS = {
    "moge": tuple(p.name for p in PROTOCOLS if not p.name.endswith("-oracle")),
    "moge-oracle": tuple(p.name for p in PROTOCOLS if p.name.endswith("-oracle")),
}
