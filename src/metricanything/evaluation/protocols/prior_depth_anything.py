"""Prior Depth Anything: completion, super-resolution, missing areas and mixed priors, AbsRel.

The published results of MetricAnything's teacher are by this protocol.
"""

from metricanything.evaluation.protocol import Protocol, Task

_SOURCE = "Prior Depth Anything, arXiv 2505.10565; prior_depth_anything/sparse_sampler.py"
_DATASET = "NYUv2, ETH3D, KITTI and others; which images and at what size is not stated (those of Marigold, OMNI-DC?)"
_UNKNOWN = "image lists and sizes; sampling seeds; whether the camera is given plays no part in it"


def _protocol(name: str, prompt: tuple[str, ...], what: str, task: Task = "completion", more: str = "") -> Protocol:
    unknown = f"{_UNKNOWN}; {more}" if more else _UNKNOWN
    return Protocol(
        name=f"priorda-{name}",
        task=task,
        summary=f"AbsRel with {what}",
        source=_SOURCE,
        dataset=_DATASET,
        metrics=("abs_rel", "rmse", "delta1", "coverage"),
        prompt=prompt,
        depth_range=(1e-4, float("inf")),
        unknown=unknown,
    )


_SIDES = "sides of squares and limits of ranges of the published tables are not in the code: these are ours"
_SAMPLE = f"{_SIDES}; its model is also shown the dense depth around, as in the protocol without -2000"
_MIX = 'how its mixed priors are put together is not in the code ("we do not implement hybrid-pattern here"): ours'

PROTOCOLS = (
    _protocol("x8", ("downscale-8",), "an 8 times smaller depth map", "super-resolution"),
    _protocol("x16", ("downscale-16",), "a 16 times smaller depth map", "super-resolution"),
    _protocol("lidar-8", ("lidar_rounded-8",), "8 LiDAR lines", more="the number of lines of the paper's table"),
    _protocol("extreme", ("uniform-100",), "100 random points"),
    _protocol("sift", ("sift",), "SIFT keypoints"),
    _protocol("orb", ("orb",), "ORB corners"),
    _protocol("hole", ("all+hole-160",), "all depth around a hole of 160 pixels", more=_SIDES),
    _protocol("hole-2000", ("hole-160",), "2000 points around a hole of 160 pixels", more=_SAMPLE),
    _protocol("range", ("all+range-1-5",), "all depth between 1 and 5 m", more=_SIDES),
    _protocol("range-2000", ("range-1-5",), "2000 points between 1 and 5 m", more=_SAMPLE),
    _protocol("mixed-sparse-low", ("uniform-100", "downscale-16"), "100 points and a 16 times smaller map", more=_MIX),
    _protocol("mixed-sparse-hole", ("uniform-100+hole-160",), "100 points around a hole", more=_MIX),
    _protocol("mixed-low-hole", ("downscale-16+hole-160",), "a 16 times smaller map with a hole", more=_MIX),
)
GROUPS = {
    "prior_depth_anything": tuple(p.name for p in PROTOCOLS),
    "priorda-table": ("priorda-x8", "priorda-x16", "priorda-lidar-8", "priorda-extreme"),
}
