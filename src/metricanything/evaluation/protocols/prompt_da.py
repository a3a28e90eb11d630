"""PromptDA: dense depth from a phone's low-resolution LiDAR map; L1, RMSE, AbsRel and delta 0.5."""

from metricanything.evaluation.protocol import GIVEN, Protocol

_SOURCE = "PromptDA, arXiv 2412.14015 (code releases the model, not the evaluation)"

PROTOCOLS = tuple(
    Protocol(
        name=f"promptda-{name}",
        task="super-resolution",
        summary="low-resolution sensor map to dense depth",
        source=_SOURCE,
        dataset=dataset,
        metrics=("mae", "rmse", "abs_rel", "delta0.5", "coverage"),
        prompt=(GIVEN,),
        not_measured=("TSDF fusion: accuracy, completeness, F-score",),
        unknown="delta 0.5 is taken as 1.25^0.5; image list; depth range; whether pixels are filtered by confidence",
    )
    for name, dataset in (
        ("arkitscenes", "ARKitScenes, 192 x 256 prompt, 1440 x 1920 ground truth (laser)"),
        ("scannetpp", "ScanNet++, 192 x 256 prompt, 1440 x 1920 ground truth (mesh)"),
    )
)
GROUPS = {"prompt_da": tuple(p.name for p in PROTOCOLS)}
