"""Distillation recipes, from the compact students to the published sizes, and fine-tuning of published students.

`metricanything distill NAME` runs one, `--plan` prints what it would do and cost, and every field is an option.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from metricanything.data.augment import Augmentation
from metricanything.losses.combination import DepthWeights
from metricanything.losses.point_combination import PointWeights
from metricanything.training.distill import FROM_TEACHER, Distillation
from metricanything.training.labels import Labelling
from metricanything.training.recipe import Data, Hardware, Optimiser, Recipe, Record, Stage
from metricanything.training.recipes import COMPACT_POINTS, COMPACT_WEIGHTS, SMALL_VIEWS, Sizes

POINT_VIEWS: Sizes = ((480, 640), (640, 480), (416, 736))
TILED_VIEWS: Sizes = ((1536, 1536),)
#: Labels of a teacher are dense and have edges: no term needs to be kept for rendered images.
FULL_DEPTH = DepthWeights(value=1.0, mage=1.0, male=1.0, msge=1.0)
#: Small views of several sizes: a network that saw one size alone takes the size of things in pixels for their distance
#: (docs/experiments/students.md).
STUDENT_VIEWS: Sizes = (*SMALL_VIEWS, (128, 192), (192, 128), (128, 160))
#: Without a prompt the scale is a guess, and for AbsRel too far is worse than too near.
STUDENT_WEIGHTS = replace(COMPACT_WEIGHTS, value=0.75, relative=0.25)
_FILTERS = Augmentation(blur=0.2, jpeg=0.3)
#: Small parts of images show known things large, so that a network does not take every image for a room. For networks
#: that are given the camera: without it, a part looks like another scene (docs/experiments/students.md).
_CLOSER = Augmentation(zoom=(0.4, 1.0), blur=0.2, jpeg=0.3)
#: What MoGe-2's authors advise for fine-tuning.
_GENTLE = Optimiser(rate=1e-5, encoder_rate=1e-6, warmup=1000, betas=(0.9, 0.999), average=0.999)
_DINOV3 = "facebook/dinov3-vith16plus-pretrain-lvd1689m"
_MANY_POINTS = Labelling(prompts=("uniform-10000", "lidar-64", "grid-16"))


def compact_depthmap() -> Distillation:
    """The compact depth map on a laptop, from its teacher's encoder and decoder.

    Hardware and time: 2 CPU cores, an hour of one of them. The bundled one was made in three shorter runs with as many
    views together: docs/experiments/students.md; docs/experiments/distillation.md compares its labels. Command:
    `metricanything distill compact-depthmap -o RUN --labels.teacher TEACHER --data.shards SHARDS --exact RENDERED`.
    """
    return _compact("compact-depthmap", Stage(weights=STUDENT_WEIGHTS), 8_000, _CLOSER)


def compact_pointmap() -> Distillation:
    """The compact point map on a laptop, from its teacher's encoder and decoder, or a depth map's (`--start`).

    Hardware and time: 2 CPU cores, half an hour of one of them. Result: docs/experiments/students.md. Command:
    `metricanything distill compact-pointmap -o RUN --labels.teacher TEACHER --data.shards SHARDS --exact RENDERED`.
    """
    return _compact("compact-pointmap", Stage(weights=COMPACT_POINTS), 3_000, Augmentation())


def depthmap() -> Distillation:
    """The published depth map, DINOv3 ViT-H+ at 1536 x 1536 pixels, its decoder and head from scratch.

    Hardware: 64 GPUs of 80 GB; `--plan` prints memory, FLOPs and GPU-hours. The weights of DINOv3 are gated: accept
    their licence on the Hub first. Expected metric: not measured yet. Command: `torchrun --nnodes 8 --nproc-per-node 8
    … -m metricanything distill depthmap -o RUN --labels.teacher TEACHER --data.shards SHARDS`.
    """
    return Distillation(
        Recipe(
            "depthmap",
            steps=312_500,
            batch=1,
            micro_batches=64,
            start=_DINOV3,
            data=Data(sizes=TILED_VIEWS, augmentation=_FILTERS, workers=8),
            stages=(Stage(weights=FULL_DEPTH),),
            # Depth Pro's rates, for the same layout.
            optimiser=Optimiser(rate=1.28e-4, encoder_rate=1.28e-5, warmup=3000, betas=(0.9, 0.999), average=0.9999),
            hardware=_cluster("fsdp"),
            record=_cluster_record(),
            input_side=TILED_VIEWS[0][1],
        ),
        _MANY_POINTS,
    )


def pointmap() -> Distillation:
    """The published point map, fine-tuned from MoGe-2 ViT-L.

    Hardware: 8 GPUs of 80 GB; `--plan` prints memory, FLOPs and GPU-hours. Expected metric: not measured yet. Command:
    `torchrun --nproc-per-node 8 -m metricanything distill pointmap -o RUN --labels.teacher TEACHER --data.shards
    SHARDS`.
    """
    return Distillation(
        _gentle("pointmap", "Ruicheng/moge-2-vitl", 100_000, POINT_VIEWS, 4, PointWeights()), _MANY_POINTS
    )


def finetune_depthmap() -> Distillation:
    """The published depth map on your own data, its weights moved little.

    Hardware: 8 GPUs of 80 GB. Expected metric: not measured yet. Command: `torchrun --nproc-per-node 8 -m
    metricanything distill finetune-depthmap -o RUN --labels.teacher TEACHER --data.shards SHARDS`.
    """
    start = "yjh001/metricanything_student_depthmap"
    return Distillation(_gentle("depthmap", start, 5_000, TILED_VIEWS, 1, FULL_DEPTH, "fsdp"), _MANY_POINTS, real=0.2)


def finetune_pointmap() -> Distillation:
    """The published point map on your own data, its weights moved little.

    Hardware: 8 GPUs of 40 GB or more. Expected metric: not measured yet. Command: `torchrun --nproc-per-node 8 -m
    metricanything distill finetune-pointmap -o RUN --labels.teacher TEACHER --data.shards SHARDS`.
    """
    start = "yjh001/metricanything_student_pointmap"
    return Distillation(_gentle("pointmap", start, 5_000, POINT_VIEWS, 4, PointWeights()), _MANY_POINTS, real=0.2)


def _compact(model: str, stage: Stage, steps: int, augmentation: Augmentation) -> Distillation:
    return Distillation(
        Recipe(
            model,
            steps=steps,
            batch=8,
            micro_batches=2,
            start=FROM_TEACHER,
            # Two thirds of the views rendered, as by the square root of the numbers, were too many.
            data=Data(sizes=STUDENT_VIEWS, augmentation=augmentation, temperature=0.3, workers=0),
            stages=(stage,),
            optimiser=Optimiser(rate=6e-4, encoder_rate=6e-4, warmup=100, decay=1.0, average=0.999),
            hardware=Hardware(precision="bfloat16"),
            record=Record(checkpoint_seconds=120.0),
            input_side=192,
        )
    )


def _gentle(
    model: str,
    start: str,
    steps: int,
    sizes: Sizes,
    batch: int,
    weights: DepthWeights | PointWeights,
    parallel: str = "ddp",
) -> Recipe:
    """Fine-tuning with 32 images a step."""
    return Recipe(
        model,
        steps=steps,
        batch=batch,
        micro_batches=32 // batch,
        start=start,
        data=Data(sizes=sizes, augmentation=_FILTERS, workers=8),
        stages=(Stage(weights=weights),),
        optimiser=_GENTLE,
        hardware=_cluster(parallel),
        record=_cluster_record(),
        input_side=sizes[0][1],
    )


def _cluster(parallel: str) -> Hardware:
    return Hardware(
        parallel=parallel,  # type: ignore[arg-type]
        precision="bfloat16",
        checkpoint_activations=True,
        compile=True,
    )


def _cluster_record() -> Record:
    return Record(checkpoint_seconds=1800.0, keep=3, validate_every=5000, validation_frames=512)


#: What `metricanything distill` runs, by name.
DISTILL: dict[str, Callable[[], Distillation]] = {
    "compact-depthmap": compact_depthmap,
    "compact-pointmap": compact_pointmap,
    "depthmap": depthmap,
    "pointmap": pointmap,
    "finetune-depthmap": finetune_depthmap,
    "finetune-pointmap": finetune_pointmap,
}
