"""PromptDA: dense depth from a phone's low-resolution LiDAR map; L1, RMSE, AbsRel and delta 0.5.

The prompt is the sensor's map on its own grid, `prompt.png` beside the image: each of its pixels is one point.
"""

from metricanything.evaluation.protocol import GIVEN, Protocol

_SOURCE = "PromptDA, arXiv 2412.14015 (its repository holds the model, and no evaluation)"
_SETS = {
    "arkitscenes": "ARKitScenes, 192 x 256 prompt, 1440 x 1920 ground truth (laser)",
    "scannetpp": "ScanNet++, 192 x 256 prompt, 1440 x 1920 ground truth (mesh)",
}
_UNKNOWN = "delta 0.5 is taken as 1.25^0.5; image list; depth range; whether pixels are filtered by confidence"


PROTOCOLS = tuple(
    Protocol(
        name=f"promptda-{name}",
        task="super-resolution",
        summary="low-resolution sensor map to dense depth",
        source=_SOURCE,
        dataset=dataset,
        metrics=("mae", "rmse", "abs_rel", "delta0.5", "delta1", "coverage"),
        prompt=(GIVEN,),
        not_measured=("TSDF fusion: accuracy, completeness, F-score (needs sequences with poses, and a mesh)",),
        unknown=_UNKNOWN,
    )
    for name, dataset in _SETS.items()
)
GROUPS = {"prompt_da": tuple(p.name for p in PROTOCOLS)}
