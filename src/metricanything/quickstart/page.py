"""The quickstart's report: what was done, and how good it is, in the numbers of this very run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything import __version__, samples
from metricanything.core.codecs import read_depth
from metricanything.core.colour import colourise_depth, colourise_error, overlay_points
from metricanything.core.files import read_json
from metricanything.core.frame import Frame
from metricanything.core.geometry import depth_edges, depth_to_points
from metricanything.core.report import (
    ColourScale,
    Element,
    Figure,
    Gallery,
    KeyValues,
    LineChart,
    PointCloud,
    Section,
    Table,
    Text,
    write_page,
)
from metricanything.curate.shards import Shards
from metricanything.inference.baselines import BASELINES, prompt_only
from metricanything.quickstart import Run
from metricanything.quickstart.measure import (
    BUNDLED,
    CONSTANT,
    INPUT_SIDE,
    PATTERNS,
    SENSOR,
    STUDENTS,
    TEACHER,
    UNTRAINED,
    heldout,
    mean_of,
    prompts_of,
    training_samples,
)

Rows = list[dict[str, Any]]
_ERROR_LIMIT = 0.2
_SCENES = 3  # rendered scenes to show
_SHOWN_PATTERN = "lidar-8"
_METHODS = (TEACHER, UNTRAINED, BUNDLED, *prompt_only())


def write_report(run: Run) -> None:
    """Write `report.html` from the files of the run."""
    results = read_json(run.results)
    frames = heldout()
    elements: list[Element] = [
        *_facts(run),
        *_aggregation(run),
        *_training(run),
        *_prompted(run, frames, results["prompted"]),
        *_prompt_free(run, frames, results["prompt_free"]),
        *_cloud(run, frames),
    ]
    write_page(
        run.report,
        "MetricAnything quickstart",
        elements,
        "The whole method, small: aggregate, prompt and pretrain, distil, predict. "
        "Every number on this page was computed in this run.",
    )


def _facts(run: Run) -> list[Element]:
    import torch

    state = read_json(run.state)
    seconds = {name: value for name, value in state["seconds"].items() if name != "report"}
    return [
        KeyValues(
            {
                "Version": __version__,
                "Machine": f"{platform.machine()}, {torch.get_num_threads()} CPU threads",
                "Rendered scenes": run.settings.scenes,
                "Teacher steps": run.settings.teacher_steps,
                "Student steps": run.settings.student_steps,
                "Seed": run.settings.seed,
                "Time": f"{sum(seconds.values()) / 60:.1f} min before this page",
            }
        )
    ]


def _aggregation(run: Run) -> list[Element]:
    """One frame of every source, and how many there are."""
    shards = Shards(run.shards)
    members: dict[str, list[int]] = {}
    for i, source in enumerate(shards.sources()):
        members.setdefault(source, []).append(i)
    shown = [shards.frame(i) for own in members.values() for i in own[: _SCENES if own[-1] == len(shards) - 1 else 1]]
    rows = []
    for source, own in members.items():
        frame = shards.frame(own[0])
        rows.append([source, frame.kind, frame.sensor, len(own), int(frame.valid.sum()), frame.licence])
    missing = [name for name in samples.SAMPLES if name not in training_samples() and name != "heldout"]
    note = "The images of the COLMAP reconstruction are rendered (TartanAir); its depth is what COLMAP reconstructed. "
    if missing:
        note = f"Left out because pycolmap is not installed: {', '.join(missing)}."
    return [
        Section(
            "1 Aggregation", "Image–depth pairs of all three families become one kind of frame in training shards."
        ),
        Table(
            ["source", "kind", "sensor", "frames", "measured pixels (first frame)", "terms"],
            rows,
            "Sources.",
            note=note,
        ),
        Gallery(
            [f"{frame.kind}, {frame.sensor}" for frame in shown],
            [
                ("image", [Figure(frame.image) for frame in shown]),
                ("depth, one colour scale per frame", [Figure(_shown(frame)) for frame in shown]),
            ],
            "First frames of every source; unknown depth and sky are white.",
        ),
    ]


def _shown(frame: Frame) -> NDArray[np.uint8]:
    """A depth map as a picture; sparse ones as dots, which would vanish as pixels."""
    if frame.valid.mean() > 0.3:
        return colourise_depth(frame.depth)
    v, u = np.nonzero(frame.valid)
    uv = np.stack([u, v], axis=-1) + 0.5
    return overlay_points(np.full_like(frame.image, 255), uv, frame.depth[frame.valid], radius=2)


def _training(run: Run) -> list[Element]:
    def series(name: str) -> tuple[str, list[float], list[float]]:
        curve = np.array(read_json(run.curve(name)), dtype=float)
        width = max(len(curve) // 50, 1)
        smooth = np.convolve(curve[:, 1], np.ones(width) / width, mode="valid")
        return name, list(curve[width - 1 :, 0]), list(smooth)

    return [
        Section(
            "2 Pretraining and distillation",
            "The teacher learns from prompts drawn from each frame's own depth by random masking. It then labels all "
            "frames densely, and the students learn from these labels with the image alone.",
        ),
        LineChart(
            [series(name) for name in ("compact-teacher", *STUDENTS)], "step", "loss", log_y=True,
            caption="Training loss, running mean. The three losses have different terms; compare shapes, not heights.",
        ),
    ]  # fmt: skip


def _prompted(run: Run, frames: list[Frame], rows: Rows) -> list[Element]:
    present = [p for p in (*PATTERNS, SENSOR) if any(r["pattern"] == p for r in rows)]
    labels = {p: "phone ToF" if p == SENSOR else p for p in present}

    def table(key: str, title: str, better: Any) -> Table:
        body = [
            [m, *(100 * mean_of(rows, key, method=m, pattern=p) for p in present)] for m in _methods(rows, _METHODS)
        ]
        return Table(["method", *labels.values()], body, title, dict.fromkeys(labels.values(), better))

    return [
        Section(
            "3 Prediction with a prompt",
            "Held-out photographs from sources that were not trained on, with the teacher and with methods that "
            "interpolate the prompt (guided looks at the image too); the bundled teacher, where there is one, is "
            "the package's, trained for longer. In the column of the phone, half of the points of one low-resolution "
            "ToF map are the prompt and the other half the truth.",
        ),
        table("abs_rel", "AbsRel in %, over measured pixels outside the prompt.", "lower"),
        table("delta1", "δ1 in %, over the same pixels.", "higher"),
        Text(_verdict(rows, present, labels)),
        _gallery(run, frames, rows),
    ]


def _methods(rows: Rows, names: Sequence[str]) -> list[str]:
    """Those that were measured: not every version bundles trained models."""
    return [name for name in names if any(r["method"] == name for r in rows)]


def _verdict(rows: Rows, present: list[str], labels: dict[str, str]) -> str:
    """In words where the little run wins and loses."""
    won: list[str] = []
    lost: list[str] = []
    for pattern in present:
        ours = mean_of(rows, "abs_rel", method=TEACHER, pattern=pattern)
        best = min(prompt_only(), key=lambda name: mean_of(rows, "abs_rel", method=name, pattern=pattern))
        theirs = mean_of(rows, "abs_rel", method=best, pattern=pattern)
        text = f"{labels[pattern]} ({100 * ours:.2f} % against {100 * theirs:.2f} % of {best})"
        (won if ours < theirs else lost).append(text)
    parts = []
    if won:
        parts.append(f"The teacher of this run beats the best baseline on {', '.join(won)}.")
    if lost:
        parts.append(f"The teacher of this run loses to the best baseline on {', '.join(lost)}.")
    return " ".join(parts)


def _gallery(run: Run, frames: list[Frame], rows: Rows) -> Gallery:
    body = []
    for number, frame in enumerate(frames):
        prompts = prompts_of(frame, number, run.settings.seed)
        pattern = _SHOWN_PATTERN if _SHOWN_PATTERN in prompts else SENSOR
        prompt = prompts[pattern]
        ours = read_depth(run.prediction(frame.name, f"teacher-{pattern}") / "depth.npy")
        linear = BASELINES["linear"].complete(prompt.uv, prompt.depth, frame.height, frame.width)
        near, far = np.quantile(frame.depth[frame.valid], [0.01, 0.99])
        errors = {
            name: mean_of(rows, "abs_rel", frame=frame.name, pattern=pattern, method=name)
            for name in (TEACHER, "linear")
        }

        def depth(values: NDArray[np.float32], near: float = near, far: float = far) -> Figure:
            return Figure(colourise_depth(values, near, far))

        def error(values: NDArray[np.float32], method: str, frame: Frame = frame, errors: Any = errors) -> Figure:
            truth = np.where(frame.valid, frame.depth, np.float32(np.nan))
            relative = np.abs(values - truth) / truth
            return Figure(colourise_error(relative, _ERROR_LIMIT), f"AbsRel {100 * errors[method]:.2f} %")

        sparse = frame.sensor == "tof"  # too few measured pixels for a map of errors
        dots = overlay_points(frame.image, prompt.uv, prompt.depth, 2, near, far)
        cells = [
            Figure(dots),
            depth(linear),
            depth(ours),
            Figure(_shown(frame)) if sparse else depth(frame.depth),
            None if sparse else error(linear, "linear"),
            None if sparse else error(ours, TEACHER),
        ]
        body.append((f"{frame.name}: {len(prompt)} points ({pattern if pattern != SENSOR else 'phone ToF'})", cells))
    heads = ["prompt", "linear", "teacher", "measured", "error of linear", "error of teacher"]
    scale = ColourScale(
        colourise_error(np.linspace(0, _ERROR_LIMIT, 256)[None], _ERROR_LIMIT)[0],
        [(0.0, "0"), (0.5, f"{50 * _ERROR_LIMIT:.0f} %"), (1.0, f"{100 * _ERROR_LIMIT:.0f} % and more")],
        "relative error",
    )
    return Gallery(heads, body, "Depth from near (red) to far (blue), one scale per row.", scale)


def _prompt_free(run: Run, frames: list[Frame], rows: Rows) -> list[Element]:
    others = (f"{kind} {name}" for kind in ("untrained", "bundled") for name in STUDENTS)
    methods = _methods(rows, (*STUDENTS, *others, CONSTANT))
    columns = {"AbsRel %": "abs_rel", "δ1 %": "delta1", "AbsRel % at the right scale": "abs_rel_scaled"}
    body = [
        [m, *(100 * mean_of(rows, key, method=m) for key in columns.values()), mean_of(rows, "fov_error", method=m)]
        for m in methods
    ]
    better: dict[str, Any] = dict.fromkeys(columns, "lower") | {"δ1 %": "higher", "FoV error °": "lower"}
    ours = min(mean_of(rows, "abs_rel", method=m) for m in STUDENTS)
    constant = mean_of(rows, "abs_rel", method=CONSTANT)
    verdict = "beats" if ours < constant else "does not beat"
    gallery = [
        (
            frame.name,
            [
                Figure(frame.image),
                *(
                    Figure(colourise_depth(read_depth(run.prediction(frame.name, name) / "depth.npy")))
                    for name in STUDENTS
                ),
                Figure(colourise_depth(frame.depth)),
            ],
        )
        for frame in frames
        if frame.sensor != "tof"
    ]
    return [
        Section(
            "4 Prediction from the image alone",
            "The students see no prompt. Depth is measured with the frame's camera given; the field of view that the "
            "point-map student recovers by itself is compared with the true one.",
        ),
        Table(["method", *columns, "FoV error °"], body, "Held-out photographs, no prompt.", better,
              note="The constant guess is the median depth of the training frames, and a focal length equal to the "
              "image width."),
        Text(
            f"The better student {verdict} the constant guess in metric depth ({100 * ours:.1f} % against "
            f"{100 * constant:.1f} %)."
        ),
        Gallery(["image", "depth-map student", "point-map student", "measured"], gallery,
                "Each map has its own colour scale: what is compared here is shape."),
    ]  # fmt: skip


def _cloud(run: Run, frames: list[Frame]) -> list[Element]:
    """One teacher prediction as points, without the pixels that bridge depth edges."""
    frame = frames[0]
    depth = read_depth(run.prediction(frame.name, "teacher-uniform-500") / "depth.npy")
    points = depth_to_points(depth, frame.camera)
    keep = np.isfinite(depth) & ~depth_edges(depth, 0.1)
    return [
        Section("5 In three dimensions"),
        PointCloud(
            points[keep], frame.image[keep], f"{frame.name}, teacher with 500 points at {INPUT_SIDE} px, in metres."
        ),
    ]
