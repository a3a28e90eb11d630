"""MoGe: its ten sets, turned to a centred principal point; metric, scale- and affine-invariant depth, points, edges.

The view is made here (`views.centred`), so that the sets are read as they are published; oracle = intrinsics given.
"""

from dataclasses import dataclass

from metricanything.evaluation.protocol import Protocol, Task

_SOURCE = "MoGe-2, arXiv 2507.02546; moge/test/, configs/eval/all_benchmarks.json"


@dataclass(frozen=True)
class _Set:
    """Title, width and height of the view, and what its truth can tell: metres, sharp edges, objects."""

    title: str
    width: int
    height: int
    metric: bool = True
    sharp: bool = False
    segments: bool = False


_SETS = {
    "nyu": _Set("NYUv2", 640, 480),
    "kitti": _Set("KITTI", 750, 375),
    "eth3d": _Set("ETH3D", 2048, 1365, segments=True),
    "ibims": _Set("iBims-1", 640, 480, sharp=True, segments=True),
    "gso": _Set("GSO", 512, 512, metric=False),
    "sintel": _Set("Sintel", 872, 436, metric=False, sharp=True, segments=True),
    "ddad": _Set("DDAD", 1400, 700, segments=True),
    "diode": _Set("DIODE", 1024, 768, segments=True),
    "spring": _Set("Spring", 1920, 1080, metric=False, sharp=True),
    "hammer": _Set("HAMMER", 1664, 832, sharp=True),
}
_RELATIVE = ("depth_scale_invariant", "depth_affine_invariant", "disparity_affine_invariant")
_SAME = "relative errors there divide by g + 1e-6; OpenCV resamples there in fixed point"


def _protocol(
    name: str,
    of: _Set,
    task: Task,
    summary: str,
    metrics: tuple[str, ...],
    unknown: str = _SAME,
    alignment: str = "none",
    oracle: bool = False,
) -> Protocol:
    return Protocol(
        name=f"moge-{name}",
        task=task,
        summary=summary,
        source=_SOURCE,
        dataset=f"{of.title} {of.width} x {of.height}, of Ruicheng/monocular-geometry-evaluation",
        metrics=metrics,
        intrinsics=oracle,
        size=(of.height, of.width),
        view="centred",
        metric_truth=of.metric,
        depth_range=(1e-6, float("inf")),
        far_outliers=1000.0,
        alignment=alignment,
        unknown=unknown,
    )


def _named(kinds: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{kind}_{name}" for kind in kinds for name in ("rel", "delta1"))


def _depth(name: str, of: _Set, oracle: bool) -> Protocol:
    metric = ("abs_rel", "delta1") if of.metric else ()
    what = "metric, scale- and affine-invariant depth" if of.metric else "scale- and affine-invariant depth"
    return _protocol(
        f"{name}{'-oracle' if oracle else ''}",
        of,
        "depth",
        f"{what}, camera {'given' if oracle else 'not given'}",
        (*metric, *_named(_RELATIVE), "coverage"),
        oracle=oracle,
    )


def _points(name: str, of: _Set) -> Protocol:
    kinds = (
        *(("points_metric",) if of.metric else ()),
        "points_scale_invariant",
        "points_affine_invariant",
        *(("local_points",) if of.segments else ()),
    )
    what = f"{'metric, ' if of.metric else ''}scale- and affine-invariant{', and of objects' if of.segments else ''}"
    unknown = f"{_SAME}; points are of depth and the recovered camera"
    return _protocol(f"{name}-points", of, "points", f"point maps: {what}", _named(kinds), unknown)


def _boundary(name: str, of: _Set) -> Protocol:
    return _protocol(
        f"{name}-boundary",
        of,
        "boundary",
        "sharpness: boundary F1 in discs of radius 1 to 3",
        ("boundary_f1_r1", "boundary_f1_r2", "boundary_f1_r3"),
        "of the alignments that a model allows, that of scale is taken (no ratio of depths depends on it)",
        "l1_scale",
    )


PROTOCOLS = (
    *(_depth(name, of, oracle) for name, of in _SETS.items() for oracle in (False, True)),
    *(_points(name, of) for name, of in _SETS.items()),
    *(_boundary(name, of) for name, of in _SETS.items() if of.sharp),
)
GROUPS = {
    "moge-points": tuple(p.name for p in PROTOCOLS if p.task == "points"),
    "moge-boundary": tuple(p.name for p in PROTOCOLS if p.task == "boundary"),
    "moge": tuple(p.name for p in PROTOCOLS if p.task == "depth" and not p.name.endswith("-oracle")),
    "moge-oracle": tuple(p.name for p in PROTOCOLS if p.name.endswith("-oracle")),
}
