"""Predict held-out real frames with every model and prompt pattern, and measure against baselines.

Errors are over measured pixels that were not in the prompt, averaged per image, then over images. The held-out frames
are photographs from other sources than the training frames.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything import samples, sources
from metricanything.core.camera import Camera
from metricanything.core.files import write_json
from metricanything.core.frame import Frame
from metricanything.core.prediction import Prediction
from metricanything.core.prompt import SparsePrompt
from metricanything.curate.shards import Shards
from metricanything.evaluation.metrics import abs_rel, delta
from metricanything.inference.baselines import prompt_only
from metricanything.inference.predictor import Model, load
from metricanything.models.registry import get_spec
from metricanything.patterns import draw_prompt
from metricanything.quickstart import Run

PATTERNS = ("uniform-500", "uniform-100", "lidar-8", "grid-16")
SENSOR = "sensor"  # the held-out phone frame: half of its own ToF points are the prompt, the other half the truth
INPUT_SIDE = 256  # longer side of the networks' input in pixels; they are trained on views of 160
TEACHER, UNTRAINED, BUNDLED = "teacher", "untrained teacher", "bundled teacher"
STUDENTS = ("compact-depthmap", "compact-pointmap")
CONSTANT = "constant guess"  # one depth, and a focal length equal to the image width


def training_samples() -> dict[str, str]:
    """The bundled real samples to train on, with their readers; the COLMAP one only where pycolmap is installed."""
    wanted = {name: kind for name, kind in samples.SAMPLES.items() if name != "heldout"}
    if find_spec("pycolmap") is None:
        wanted.pop("colmap_hospital")
    return wanted


def heldout() -> list[Frame]:
    """The bundled frames that are never trained on."""
    return list(sources.read("folder", samples.path("heldout")))


def prompts_of(frame: Frame, number: int, seed: int) -> dict[str, SparsePrompt]:
    """The test prompts of a held-out frame: every pattern, or half of its own points where the sensor is sparse."""
    if frame.sensor != "tof":
        return {pattern: draw_prompt(frame.depth, pattern, seed + number) for pattern in PATTERNS}
    every = SparsePrompt.from_depth(frame.depth, unit="m")
    half = np.random.default_rng(seed).permutation(len(every))[: len(every) // 2]
    return {SENSOR: SparsePrompt(every.uv[half], every.depth[half], every.height, every.width)}


def measure(run: Run) -> None:
    """Write `results.json` and the predictions of the trained models."""
    frames = heldout()
    teacher = load(run.model("compact-teacher"), device="cpu")
    others = {UNTRAINED: load(run.model("untrained-compact-teacher"), device="cpu")}
    students = {name: load(run.model(name), device="cpu") for name in STUDENTS}
    students |= {f"untrained {name}": load(run.model(f"untrained-{name}"), device="cpu") for name in STUDENTS}
    # What hours of the same training give, where this version has it.
    if get_spec("compact-teacher").weights_path().is_file():
        others[BUNDLED] = load("compact-teacher", device="cpu")
    bundled = (name for name in STUDENTS if get_spec(name).weights_path().is_file())
    students |= {f"bundled {name}": load(name, device="cpu") for name in bundled}
    constant = _typical_depth(Shards(run.shards))
    prompted: list[dict[str, Any]] = []
    free: list[dict[str, Any]] = []
    with run.open_bar("4 predict and measure", len(frames), "frame") as bar:
        for number, frame in enumerate(frames):
            for pattern, prompt in prompts_of(frame, number, run.settings.seed).items():
                prediction = teacher.predict(frame.image, prompt=prompt, camera=frame.camera)
                prediction.save(run.prediction(frame.name, f"teacher-{pattern}"), ("png16", "npy", "colour", "ply"))
                maps = {TEACHER: prediction.depth}
                maps |= {name: _depth(model, frame, prompt) for name, model in others.items()}
                maps |= {
                    name: b.complete(prompt.uv, prompt.depth, frame.height, frame.width, image=frame.image)
                    for name, b in prompt_only().items()
                }
                prompted += [_row(frame, pattern, name, depth, prompt) for name, depth in maps.items()]
            if frame.sensor != "tof":
                free += _prompt_free(run, frame, students, constant)
            bar(number + 1, frame.name)
    write_json(run.results, {"prompted": prompted, "prompt_free": free})


def _depth(model: Model, frame: Frame, prompt: SparsePrompt) -> NDArray[np.float32]:
    return model.predict(frame.image, prompt=prompt, camera=frame.camera).depth


def _row(frame: Frame, pattern: str, method: str, depth: NDArray[np.float32], prompt: SparsePrompt) -> dict[str, Any]:
    unseen = np.isnan(prompt.rasterise(frame.height, frame.width))
    return {
        "frame": frame.name,
        "pattern": pattern,
        "points": len(prompt),
        "method": method,
        "abs_rel": abs_rel(depth, frame.depth, unseen),
        "delta1": delta(depth, frame.depth, mask=unseen),
    }


def _prompt_free(run: Run, frame: Frame, students: dict[str, Model], constant: float) -> list[dict[str, Any]]:
    """Students with the frame's camera (metric depth), and without it (recovered camera, point maps only)."""
    rows = []
    for name, model in students.items():
        prediction = model.predict(frame.image, camera=frame.camera)
        recovered: Prediction | None = model.predict(frame.image) if model.spec.task == "points" else None
        rows.append(_free_row(frame, name, prediction.depth, recovered.camera if recovered else None))
        if name in STUDENTS:
            # The point map is kept with the camera that the model recovered by itself.
            (recovered or prediction).save(run.prediction(frame.name, name), ("png16", "npy", "colour", "ply"))
    guess = np.full(frame.depth.shape, constant, dtype=np.float32)
    assumed = Camera.centred(frame.width, frame.width, frame.height)
    return [*rows, _free_row(frame, CONSTANT, guess, assumed)]


def _free_row(frame: Frame, method: str, depth: NDArray[np.float32], recovered: Camera | None) -> dict[str, Any]:
    known = frame.valid
    scale = float(np.median(frame.depth[known]) / np.median(depth[known]))
    return {
        "frame": frame.name,
        "method": method,
        "abs_rel": abs_rel(depth, frame.depth),
        "delta1": delta(depth, frame.depth),
        "abs_rel_scaled": abs_rel(depth * np.float32(scale), frame.depth),
        "fov_error": None if recovered is None else abs(recovered.fov_x - frame.camera.fov_x),
    }


def _typical_depth(shards: Shards) -> float:
    """The median over the metric training frames of their median depth in metres: a guess without looking."""
    medians = []
    for i in range(len(shards)):
        frame = shards.frame(i)
        if frame.scale == "metric" and frame.valid.any():
            medians.append(float(np.median(frame.depth[frame.valid])))
    return float(np.median(medians))


def mean_of(rows: list[dict[str, Any]], key: str, **where: str) -> float:
    """Mean of a number over the rows that match; NaN when there is none."""
    values = [r[key] for r in rows if r[key] is not None and all(r[k] == v for k, v in where.items())]
    return float(np.mean(values)) if values else float("nan")
