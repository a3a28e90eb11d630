"""Marigold-DC's completion sets: MAE and RMSE per image, ground truth > 0, no cap."""

from metricanything.evaluation.protocol import GIVEN, KITTI_BENCHMARK, WHOLE, Crop, Protocol

_SOURCE = "Marigold-DC, arXiv 2412.13389; DATASETS.md, script/dataset_processing.py, script/eval.py"


def _protocol(name: str, dataset: str, prompt: str = GIVEN, crop: Crop = WHOLE, unknown: str = "") -> Protocol:
    points = "the data's own prompt" if prompt == GIVEN else f"{prompt.split('-')[1]} random points"
    return Protocol(
        name=f"marigold-{name}",
        task="completion",
        summary=f"MAE and RMSE with {points}",
        source=_SOURCE,
        dataset=dataset,
        metrics=("mae", "rmse", "coverage"),
        prompt=(prompt,),
        seed=2024,
        input_crop=crop,
        unknown=unknown or "the points drawn by its generator: take its sparse/ folder with the given-prompt protocols",
    )


_FILTER = "points that shine through a nearer surface are taken out beforehand (VPP4DC, 7 x 7 window, threshold 1.5)"

PROTOCOLS = (
    _protocol("scannet", "ScanNet, DeCoTR's 745 images of the 100 test scenes, 640 x 480", "uniform-500"),
    _protocol("ibims", "iBims-1, 100 images, 640 x 480, without invalid and transparent pixels", "uniform-1000"),
    _protocol("nyu", "NYU Depth v2, 654 images, 320 x 240 cropped to 304 x 228", "uniform-500"),
    *(_protocol(f"void-{n}", f"VOID {n}, 800 images of 8 sequences, 640 x 480") for n in (1500, 500, 150)),
    _protocol("kitti", "KITTI-DC, 1000 selected validation images, 1216 x 352", GIVEN, KITTI_BENCHMARK, _FILTER),
    _protocol("ddad", "DDAD, official validation, front camera, 3950 images, 1936 x 1216", unknown=_FILTER),
    _protocol("given", "any folder in its layout: rgb/ sparse/ gt/", unknown="which of its sets the folder holds"),
)
GROUPS = {"marigold_dc": tuple(p.name for p in PROTOCOLS)}
