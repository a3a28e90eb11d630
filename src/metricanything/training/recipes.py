"""Training recipes: functions that return a typed configuration; each states hardware, hours, result and command.

`metricanything pretrain NAME` runs one, `--plan` prints what it would cost, and every field is an option.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from metricanything.data.augment import Augmentation
from metricanything.data.prompts import PromptMixture
from metricanything.losses.combination import DepthWeights
from metricanything.losses.point_combination import PointWeights
from metricanything.patterns.grid import Grid
from metricanything.patterns.lidar import LidarLines
from metricanything.patterns.noise import Outliers, RangeNoise
from metricanything.patterns.regions import FieldOfView, Hole, Within
from metricanything.patterns.uniform import Uniform
from metricanything.training.recipe import Data, Hardware, Optimiser, Recipe, Record, Stage

Sizes = tuple[tuple[int, int], ...]

#: Half the pixels of the default views: twice the steps in the same time, and no worse after it.
SMALL_VIEWS: Sizes = ((96, 128), (128, 96), (96, 160))
COMPACT_VIEWS: Sizes = ((192, 256), (256, 192), (160, 288))
FULL_VIEWS: Sizes = ((384, 512), (512, 384), (320, 576))

#: What the compact networks minimise, in log canonical inverse depth. The edge term is a mean over rendered images,
#: about half of a batch. Weights of 0.5, 1.5 and 6 were worse (docs/experiments/teacher.md).
COMPACT_WEIGHTS = DepthWeights(value=1.0, edges=3.0, up_to_scale=False)
#: The same for points: of MoGe-2's terms the one that pays within hours on a CPU, the alignment of whole images, on
#: fewer samples, and the metric scale with ten times its weight (docs/experiments/students.md).
COMPACT_POINTS = PointWeights(whole=3.0, local=(0.0, 0.0, 0.0), edges=0.0, normals=0.0, scale=1.0, samples=12)
#: Bounds are for views of about 160 x 128 pixels: 20 points there are as dense as 300 at 640 x 480.
COMPACT_PROMPTS = PromptMixture(
    (
        (0.35, Uniform(points=(10, None), max_fraction=0.05)),
        (0.15, Uniform(points=(1, 20))),
        (0.18, LidarLines(lines=(4, 32), jitter=0.05)),
        (0.17, Grid(factors=(2, 12))),
        (0.1, Within(Uniform(points=(30, None), max_fraction=0.05), Hole())),
        (0.05, Within(LidarLines(lines=(4, 32), jitter=0.05), FieldOfView())),
    ),
    noise=((0.3, Outliers((0.0, 0.1))), (0.1, RangeNoise())),
)
#: The paper's random masking, with some of the points wrong in one image of four.
FULL_PROMPTS = PromptMixture(((1.0, Uniform()),), noise=((0.25, Outliers((0.0, 0.05))),))


def quickstart_teacher(steps: int = 400, seed: int = 0) -> Recipe:
    """The compact teacher from scratch on a few hundred frames, as part of `metricanything quickstart`.

    Hardware and time: 2 CPU cores, about 1.5 minutes. Expected: near linear interpolation on uniform prompts
    (docs/decisions/compact-models.md has the measured numbers). Command: `metricanything quickstart`.
    """
    return Recipe(
        "compact-teacher",
        steps,
        batch=8,
        prompts=COMPACT_PROMPTS,
        data=Data(sizes=SMALL_VIEWS, workers=0),
        stages=(Stage(weights=COMPACT_WEIGHTS),),
        optimiser=Optimiser(rate=2e-3, encoder_rate=2e-3),
        record=Record(checkpoint_seconds=20.0, keep=1),
        seed=seed,
    )


def quickstart_student(name: str = "compact-pointmap", steps: int = 150, seed: int = 0) -> Recipe:
    """A compact student, started from the teacher's image encoder, on the teacher's labels.

    Hardware and time: 2 CPU cores, about 40 seconds each. Command: `metricanything quickstart`.
    """
    return Recipe(
        name,
        steps,
        batch=8,
        data=Data(sizes=SMALL_VIEWS, workers=0),
        stages=(Stage(weights=COMPACT_POINTS if name == "compact-pointmap" else COMPACT_WEIGHTS),),
        optimiser=Optimiser(rate=1e-3, encoder_rate=1e-3, warmup=20),
        record=Record(checkpoint_seconds=20.0, keep=1),
        seed=seed,
    )


def compact_teacher() -> Recipe:
    """The compact teacher from scratch on a laptop: the first of the runs behind the bundled one.

    Hardware and time: 2 CPU cores with bfloat16 instructions, see docs/experiments/teacher.md for hours and errors, and
    for the later runs, on larger views. Command: `torchrun --nproc-per-node 2 -m metricanything pretrain
    compact-teacher -o RUN --data.shards SHARDS`.
    """
    return Recipe(
        "compact-teacher",
        steps=5_500,
        batch=8,
        micro_batches=2,
        prompts=COMPACT_PROMPTS,
        data=Data(sizes=SMALL_VIEWS, workers=0),
        stages=(Stage(weights=COMPACT_WEIGHTS),),
        optimiser=Optimiser(rate=2e-3, encoder_rate=2e-3, warmup=100, average=0.999),
        hardware=Hardware(precision="bfloat16"),
        record=Record(checkpoint_seconds=120.0),
        input_side=256,
    )


def compact_teacher_sparse() -> Recipe:
    """The compact teacher again, a third of its views without any prompt: it learns what a few points leave open.

    Hardware and time: 2 CPU cores, see docs/experiments/teacher.md. Command: `metricanything pretrain
    compact-teacher-sparse -o RUN --start FIRST/model.safetensors --data.shards SHARDS`.
    """
    recipe = compact_teacher()
    return replace(
        recipe,
        steps=2_200,
        prompts=replace(recipe.prompts, dropout=0.35),
        optimiser=replace(recipe.optimiser, rate=1e-3, encoder_rate=1e-3),
    )


def compact_teacher_fine() -> Recipe:
    """Later runs behind the bundled teacher: four times the pixels, from the weights of a run before.

    Hardware and time: 2 CPU cores, see docs/experiments/teacher.md. Command: `metricanything pretrain
    compact-teacher-fine -o RUN --start FIRST/model.safetensors --data.shards SHARDS`.
    """
    return replace(
        compact_teacher(),
        steps=900,
        micro_batches=1,
        data=Data(sizes=COMPACT_VIEWS, workers=0),
        optimiser=Optimiser(rate=7e-4, encoder_rate=7e-4, warmup=20, decay=0.8, average=0.995),
        input_side=384,
    )


def small_teacher() -> Recipe:
    """The teacher on DINOv2 ViT-S, for one GPU.

    Hardware: one GPU of 24 GB or more; `--plan` prints memory, FLOPs and GPU-hours. Expected metric: not measured yet.
    Command: `metricanything pretrain small-teacher -o RUN --data.shards SHARDS`.
    """
    return _full("small-teacher", "facebook/dinov2-small", batch=32, micro_batches=2)


def base_teacher() -> Recipe:
    """The teacher on DINOv2 ViT-B, for one node.

    Hardware: 8 GPUs of 40 GB or more; `--plan` prints memory, FLOPs and GPU-hours. Expected metric: not measured yet.
    Command: `torchrun --nproc-per-node 8 -m metricanything pretrain base-teacher -o RUN --data.shards SHARDS`.
    """
    return _full("base-teacher", "facebook/dinov2-base", batch=16, micro_batches=8)


def large_teacher() -> Recipe:
    """The teacher on DINOv2 ViT-L, for one node or more.

    Hardware: 16 GPUs of 80 GB; `--plan` prints memory, FLOPs and GPU-hours. Expected metric: not measured yet.
    Command: `torchrun --nnodes 2 --nproc-per-node 8 … -m metricanything pretrain large-teacher -o RUN --data.shards
    SHARDS`.
    """
    return _full("large-teacher", "facebook/dinov2-large", batch=8, micro_batches=16, recompute=True)


def huge_teacher() -> Recipe:
    """The teacher on DINOv3 ViT-H+ at 1536 x 1536 pixels, the size of the published depth-map student.

    Hardware: 64 GPUs of 80 GB; `--plan` prints memory, FLOPs and GPU-hours. The weights of DINOv3 are gated: accept
    their licence on the Hub first. Expected metric: not measured yet. Command:
    `torchrun --nnodes 8 --nproc-per-node 8 … -m metricanything pretrain huge-teacher -o RUN --data.shards SHARDS`.
    """
    return _full(
        "huge-teacher", "facebook/dinov3-vith16plus-pretrain-lvd1689m", batch=1, micro_batches=64, recompute=True,
        sizes=((1536, 1536),), parallel="fsdp",
    )  # fmt: skip


def _full(
    model: str,
    start: str,
    *,
    batch: int,
    micro_batches: int,
    recompute: bool = False,
    sizes: Sizes = FULL_VIEWS,
    parallel: str = "ddp",
) -> Recipe:
    """What the full sizes share: Depth Pro's two stages (arXiv 2410.02073), 20 M pairs seen once, bf16."""
    step = batch * micro_batches
    return Recipe(
        model,
        steps=round(20_000_000 / step),
        batch=batch,
        micro_batches=micro_batches,
        start=start,
        prompts=FULL_PROMPTS,
        data=Data(sizes=sizes, augmentation=Augmentation(blur=0.2, jpeg=0.3), workers=8),
        stages=(
            Stage(share=0.9, weights=DepthWeights(value=1.0, edges=1.0)),
            Stage(share=0.1, kinds=("rendered",), weights=DepthWeights(value=1.0, mage=1.0, male=1.0, msge=1.0)),
        ),
        optimiser=Optimiser(rate=1e-4, encoder_rate=1e-5, warmup=2000, betas=(0.9, 0.999), average=0.9999),
        hardware=Hardware(
            parallel=parallel,  # type: ignore[arg-type]
            precision="bfloat16",
            checkpoint_activations=recompute,
            compile=True,
        ),
        record=Record(checkpoint_seconds=1800.0, keep=3, validate_every=5000, validation_frames=512),
        input_side=sizes[0][1],
    )


#: What `metricanything pretrain` runs, by name.
PRETRAIN: dict[str, Callable[[], Recipe]] = {
    "compact-teacher": compact_teacher,
    "compact-teacher-sparse": compact_teacher_sparse,
    "compact-teacher-fine": compact_teacher_fine,
    "small-teacher": small_teacher,
    "base-teacher": base_teacher,
    "large-teacher": large_teacher,
    "huge-teacher": huge_teacher,
}
