"""Radar-camera depth: MAE and RMSE up to 50, 70 and 80 m on sparse LiDAR ground truth."""

from metricanything.evaluation.protocol import GIVEN, Protocol

_SETS = {
    "nuscenes": ("nuScenes, test", "Singh et al., CVPR 2023; RadarCam-Depth, ICRA 2024 (its issue 8)"),
    "zju": ("ZJU-4DRadarCam, test", "RadarCam-Depth, ICRA 2024 (arXiv 2401.04325)"),
}

PROTOCOLS = tuple(
    Protocol(
        name=f"radar-{name}-{cap}",
        task="radar",
        summary=f"radar prompt, errors to {cap} m",
        source=source,
        dataset=f"{dataset}; ground truth is projected LiDAR",
        metrics=("mae", "rmse", "coverage"),
        prompt=(GIVEN,),
        depth_range=(1e-3, float(cap)),
        unknown="whether ground truth is one sweep or several, and its filtering; publications state millimetres, this "
        "metres",
    )
    for name, (dataset, source) in _SETS.items()
    for cap in (50, 70, 80)
)
GROUPS = {"radar": tuple(p.name for p in PROTOCOLS)}
