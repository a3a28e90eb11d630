"""Is a student better off with the teacher's labels than with the raw ones that the teacher was prompted with?

    python benchmarks/distillation.py TRAIN VALIDATION -o FOLDER [--seeds 3] [--steps 400] [--teacher-steps 800]

TRAIN and VALIDATION are folders that the reader `folder` takes. Dense real labels are made raw first: what 8 lines of a
virtual LiDAR hit, every depth off by 5 % (standard deviation), a tenth of the points replaced by random depths. A
compact teacher is trained on these and on rendered scenes, and labels the real frames from the raw points, a fifth of
which it does not see. Then, for each seed, students that differ in their labels alone: the teacher's; the raw ones;
the raw ones beside the rendered scenes, which the teacher saw too. Measured on VALIDATION with the frames' own cameras;
means over frames. Interrupted, it goes on where it was. Results: docs/experiments/distillation.md.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from metricanything import sources
from metricanything.core.files import write_json
from metricanything.core.frame import Frame
from metricanything.curate.index import INDEX
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_shards
from metricanything.evaluation.alignment import median_scale
from metricanything.evaluation.metrics import abs_rel, delta
from metricanything.inference.predictor import load
from metricanything.patterns import draw_prompt
from metricanything.training import parallel, pretrain
from metricanything.training.labels import SOURCE_SUFFIX, Labelling, label
from metricanything.training.recipe import Hardware, Recipe, Record
from metricanything.training.recipes import quickstart_student, quickstart_teacher

RAW = "lidar-8+noise-5+outliers-10"
DENSE = 0.1  # share of known pixels
SEEN = ("metric3d_nyu", "slambook_nyu")  # validation sources that stem, or may stem, from a training source
MOST = 600  # frames of a source that are used, evenly spaced
SCENES = 600
SIDE = 160  # longer side of the networks' input
ARMS = {"teacher's": ("labels",), "raw": ("raw",), "raw and rendered": ("raw", "rendered")}


def chosen(folder: Path) -> Iterator[tuple[int, Frame]]:
    """The real training frames with their numbers, at most `MOST` of each source, evenly spaced."""
    by_source: dict[str, list[tuple[int, Frame]]] = {}
    for number, frame in sources.open_items("folder", folder).read():
        if frame.kind != "rendered":
            by_source.setdefault(frame.source, []).append((number, frame))
    for own in by_source.values():
        yield from own[:: -(-len(own) // MOST)]


def raw_frames(folder: Path) -> Iterator[Frame]:
    """Dense labels made sparse and noisy; points of a LiDAR stay as they are."""
    for number, frame in chosen(folder):
        yield dataclasses.replace(frame, depth=raw(frame, number)) if frame.valid.mean() > DENSE else frame


def raw(frame: Frame, seed: int) -> np.ndarray:
    """The points of a noisy scanner, NaN between them."""
    return draw_prompt(frame.depth, RAW, seed).rasterise(frame.height, frame.width)


def prepare(folder: Path, train: Path) -> None:
    """Write the shards that all runs share."""
    if not (folder / "raw" / INDEX).exists():
        write_shards(raw_frames(train), folder / "raw")
    if not (folder / "rendered" / INDEX).exists():
        write_shards(sources.read("procedural", count=SCENES, seed=0), folder / "rendered")


def run(recipe: Recipe, folder: Path, shards: list[Path]) -> Path:
    """Train, or go on, and give the model's file."""
    if not (folder / pretrain.MODEL).exists():
        recipe = dataclasses.replace(
            recipe, data=dataclasses.replace(recipe.data, shards=tuple(shards)), hardware=Hardware(device="cpu"),
            input_side=SIDE, record=Record(checkpoint_seconds=60.0, keep=1),
        )  # fmt: skip
        pretrain.run(recipe, folder)
    return folder / pretrain.MODEL


def labels_of(folder: Path, teacher: Path) -> Path:
    """The teacher's labels of the raw frames."""
    labelling = Labelling(teacher=str(teacher))
    with parallel.world(Hardware(device="cpu")) as world:
        return label(Shards(folder / "raw"), labelling, world).folder


def label_errors(labels: Path, folder: Path, train: Path) -> dict[str, float]:
    """AbsRel and delta1 in % against the dense truth, of the teacher's labels and of the raw points."""
    truth = {(f.source, f.name): f.depth for _, f in chosen(train) if f.valid.mean() > DENSE}
    made, raws = Shards(labels), Shards(folder / "raw")
    kept = {(made.frame(i).source.removesuffix(SOURCE_SUFFIX), made.name(i)): int(i) for i in made.kept}
    rows = []
    for number in range(len(raws)):
        points = raws.frame(number)
        key = points.source, points.name
        if key in truth and key in kept:
            labelled = made.frame(kept[key]).depth
            row = [m(labelled, truth[key]) for m in (abs_rel, delta)]
            rows.append([*row, *(m(points.depth, truth[key], mask=points.valid) for m in (abs_rel, delta))])
    names = ("teacher AbsRel", "teacher delta1", "raw AbsRel", "raw delta1")
    return {"frames": float(len(rows)), **dict(zip(names, (100 * np.mean(rows, axis=0)).tolist(), strict=True))}


def measure(model: Path, frames: list[Frame]) -> dict[str, float]:
    """Means over the frames in %: metric, and after the scale that makes the medians equal."""
    network, rows = load(model, device="cpu"), []
    for frame in frames:
        depth = network.predict(frame.image, camera=frame.camera).depth
        aligned = depth * median_scale(depth, frame.depth)
        rows.append([f(d, frame.depth) for d in (depth, aligned) for f in (abs_rel, delta)])
    names = ("AbsRel", "delta1", "AbsRel aligned", "delta1 aligned")
    return dict(zip(names, (100 * np.mean(rows, axis=0)).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("validation", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--teacher-steps", type=int, default=800)
    parser.add_argument("--scratch", action="store_true", help="students start untrained, not from the teacher")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    a = parser.parse_args()
    torch.set_num_threads(1)
    prepare(a.output, a.train)
    folders = {name: a.output / name for name in ("raw", "rendered")}
    teacher = run(quickstart_teacher(a.teacher_steps), a.output / "teacher", list(folders.values()))
    folders["labels"] = labels_of(a.output, teacher)
    frames = [f for f in sources.read("folder", a.validation, on_error=print) if f.name.split("/")[0] not in SEEN]
    frames = [f for f in frames if f.valid.any()]
    made = Shards(folders["labels"])
    print(f"{len(made.kept)} of {len(made)} labels kept; {label_errors(folders['labels'], a.output, a.train)}")
    print(f"measured on {len(frames)} frames", flush=True)
    start = "scratch" if a.scratch else "teacher"
    results: dict[str, list[dict[str, float]]] = {}
    for seed in range(a.seeds):
        for arm in a.arms:
            recipe = quickstart_student("compact-depthmap", a.steps, seed)
            recipe = dataclasses.replace(recipe, start=None if a.scratch else str(teacher))
            name = f"{start}-{arm.replace(' ', '-')}-{a.steps}-{seed}"
            model = run(recipe, a.output / "students" / name, [folders[part] for part in ARMS[arm]])
            results.setdefault(arm, []).append(measure(model, frames))
            print(seed, arm, results[arm][-1], flush=True)
    write_json(a.output / f"results-{start}-{a.steps}.json", results)
    columns = list(next(iter(results.values()))[0])
    print("| labels | " + " | ".join(f"{name} %" for name in columns) + " | AbsRel of each seed |")
    print("|" + "---|" * (len(columns) + 2))
    for arm, rows in results.items():
        table = np.array([list(row.values()) for row in rows])
        spread = table.std(axis=0, ddof=1 if len(table) > 1 else 0)
        cells = " | ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(table.mean(axis=0), spread, strict=True))
        print(f"| {arm} | {cells} | {' '.join(f'{value:.2f}' for value in table[:, 0])} |", flush=True)


if __name__ == "__main__":
    main()
