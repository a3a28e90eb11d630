"""`metricanything predict`: images in, metric depth out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from metricanything.core.camera import Camera
from metricanything.core.codecs import image_size
from metricanything.core.errors import InputError, MissingScale
from metricanything.core.prediction import FORMATS, holds_prediction

if TYPE_CHECKING:
    from metricanything.inference.engine import Options
    from metricanything.inference.predictor import Model, Prepared

_PROMPT_SUFFIXES = (".png", ".npy", ".npz", ".exr", ".pfm", ".csv", ".ply")
#: The images among the files that `Prediction.save` writes.
_SAVED_IMAGES = ("depth.png", "depth_colour.png", "normals.png")


@dataclass(frozen=True)
class _Job:
    image: Path
    folder: Path
    prompt: Path | None
    problem: str | None = None  # why this image cannot be predicted, known before it is opened


def predict(
    images: tyro.conf.Positional[tuple[Path, ...]],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    model: str | None = None,
    prompt: Path | None = None,
    prompt_scale: float | None = None,
    prompt_unit: Literal["m", "cm", "mm"] | None = None,
    camera: Path | None = None,
    fov_x: float | None = None,
    format: tuple[str, ...] = ("png16", "colour"),
    max_side: int | None = None,
    num_tokens: int | None = None,
    resolution_level: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    tiles_per_pass: int | None = None,
    low_memory: bool = False,
    batch_size: int | None = None,
) -> int:
    """Predict metric depth, points and camera of images; each image gets a folder below the output folder.

    Args:
        images: Image files, and folders that are searched for images.
        output: Folder to write to.
        model: A name from `metricanything models`, a checkpoint (.safetensors, .pt) or a Hugging Face Hub id; by
            default compact-teacher with a prompt and compact-depthmap without.
        prompt: Sparse metric depth: a depth map (.png .npy .exr .pfm), pixels (.csv with u,v,depth) or points in the
            camera frame (.ply); or a folder with one such file per image, of the same name.
        prompt_scale: Values per metre of 16-bit PNG prompts that do not state it, such as 1000 for millimetres.
        prompt_unit: Unit of the prompts' depths or points, instead of a scale; metres by default.
        camera: JSON file with the camera of all images: {"cam_in": [fx, fy, cx, cy]} in pixels, {"model", "params",
            "width", "height"} for one with distortion, or the camera.json of a prediction.
        fov_x: Horizontal field of view in degrees instead of a camera file.
        format: Outputs: png16 npy exr pfm ply glb colour normals.
        max_side: Longer side of a compact network's input in pixels for 4:3 images, others get as many pixels; by
            default what the model was trained for.
        num_tokens: Number of patches that a full-size point map looks at; more is finer and slower.
        resolution_level: 0 to 9, instead of a number of tokens; 9 by default.
        device: cpu, cuda, mps; by default the best at hand.
        dtype: float32, bfloat16, float16: half precision takes half the memory; float32 by default.
        tiles_per_pass: How many of its 35 tiles the full-size depth map looks at together; fewer need less memory.
        low_memory: Leave the weights in their .safetensors file and read every layer's when it runs (CPU).
        batch_size: Images that go through the network together; by default what suits the model.
    """
    from rich.markup import escape

    from metricanything.cli.console import console, errors, one_line_warnings, progress_bar
    from metricanything.sources.common import read_record

    if unknown := [name for name in format if name not in FORMATS]:
        raise InputError(f"output format {unknown[0]!r} is unknown; use {', '.join(FORMATS)}")
    if not format:
        raise InputError(f"--format names no output; use {', '.join(FORMATS)}")
    if camera is not None and fov_x is not None:
        raise InputError("--camera and --fov-x both state the camera; give one of them")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"--batch-size must be at least 1, got {batch_size}")
    # What holds for all images is said once, not for every image.
    if fov_x is not None and not 0 < fov_x < 180:
        raise InputError(f"--fov-x must lie between 0 and 180 degrees, got {fov_x:g}")
    if camera is not None:
        read_record(camera)
    jobs = _plan(images, output, prompt)
    one_line_warnings()

    from metricanything.inference.engine import Options
    from metricanything.inference.predictor import load

    name = model or ("compact-teacher" if prompt else "compact-depthmap")
    network = load(name, device=device, dtype=dtype, tiles_per_pass=tiles_per_pass, low_memory=low_memory)
    options = network.engine.check(Options(max_side, num_tokens, resolution_level))
    batch_size = batch_size or network.engine.batch_size
    failed = 0
    with progress_bar() as progress:
        task = progress.add_task("predict", total=len(jobs), unit="img", detail="")
        for start in range(0, len(jobs), batch_size):
            ready: list[tuple[Path, Prepared]] = []
            for job in jobs[start : start + batch_size]:
                try:
                    if job.problem is not None:
                        raise InputError(job.problem)
                    ready.append(
                        (job.folder, _prepare(network, job, camera, fov_x, prompt_scale, prompt_unit, options))
                    )
                except InputError as error:
                    failed += 1
                    image = "" if str(job.image) in str(error) else f"{job.image}: "
                    errors.print(f"[red]skipped[/] {escape(f'{image}{error}')}", highlight=False, soft_wrap=True)
            predictions = network.predict_prepared([item for _, item in ready], batch_size)
            for (folder, _), prediction in zip(ready, predictions, strict=True):
                try:
                    prediction.save(folder, format)
                except InputError as error:
                    failed += 1
                    errors.print(f"[red]incomplete[/] {escape(str(error))}", highlight=False, soft_wrap=True)
            progress.advance(task, len(jobs[start : start + batch_size]))
    summary = f"{len(jobs) - failed} of {len(jobs)} images written to {output}"
    console.print(escape(summary), highlight=False, soft_wrap=True)
    return 2 if failed else 0


def _plan(images: tuple[Path, ...], output: Path, prompt: Path | None) -> list[_Job]:
    """Which image goes where, with which prompt; raises InputError before anything is computed."""
    from metricanything.sources.common import list_images

    if not images:
        raise InputError("no images given; name image files or folders")
    if not (exists := next(p for p in (output, *output.parents) if p.exists())).is_dir():
        raise InputError(f"{exists}: is a file, not a folder; give another --output")
    jobs: dict[Path, _Job] = {}
    for path in images:
        if path.is_dir():
            found = _without_predictions(path, output, list_images(path))
        elif path.is_file():
            found = [path]
        else:
            raise InputError(f"{path}: no such file or folder; check the path")
        for file in found:
            relative = file.relative_to(path) if path.is_dir() else Path(file.name)
            folder = output / relative.with_suffix("")
            if folder in jobs and file.samefile(jobs[folder].image):
                continue  # named twice, by itself and by its folder, say
            if folder in jobs:
                raise InputError(f"{file} and {jobs[folder].image} would both be written to {folder}; rename one")
            jobs[folder] = _Job(file, folder, *_prompt_of(relative, prompt))
    if prompt is not None and prompt.is_file() and len(jobs) > 1:
        raise InputError(f"{prompt}: one prompt for {len(jobs)} images; give a folder with a prompt per image")
    problems = [job.problem for job in jobs.values() if job.problem is not None]
    if len(problems) == len(jobs):
        raise InputError(problems[0])  # the wrong folder, which need not be said of every image
    return list(jobs.values())


def _without_predictions(folder: Path, output: Path, images: list[Path]) -> list[Path]:
    """The `images` below `folder` without what earlier runs saved there; raises InputError when none is left.

    That lies beside the `camera.json` of a prediction, or, where a run was interrupted before it wrote that, in the
    folder in which this run would write the prediction of another of the images.
    """
    if not images:
        raise InputError(f"{folder}: no images in this folder; give image files or a folder that holds some")
    written = {output.resolve() / p.relative_to(folder).with_suffix("") for p in images}
    kept = [
        p
        for p in images
        if p.name not in _SAVED_IMAGES or not (holds_prediction(p.parent) or p.parent.resolve() in written)
    ]
    if not kept:
        raise InputError(
            f"{folder}: all {len(images)} images in this folder are depth maps that an earlier prediction wrote; "
            "give the folder of the photographs, or name an image file to predict it all the same"
        )
    return kept


def _prompt_of(image: Path, prompt: Path | None) -> tuple[Path | None, str | None]:
    """The prompt file of an image, and the problem where a folder of prompts holds none for it."""
    if prompt is None:
        return None, None
    if prompt.is_file():
        if prompt.suffix.lower() not in _PROMPT_SUFFIXES:
            raise InputError(f"{prompt}: prompts are {' '.join(_PROMPT_SUFFIXES)} files; convert it to one of these")
        return prompt, None
    if not prompt.is_dir():
        raise InputError(f"{prompt}: no such prompt file or folder; check the path")
    for suffix in _PROMPT_SUFFIXES:
        if (candidate := (prompt / image).with_suffix(suffix)).is_file():
            return candidate, None
    looked_for = f"{image.stem} with {' '.join(_PROMPT_SUFFIXES)}"
    return None, f"{prompt}: holds no prompt for {image} (looked for {looked_for}); add one or leave the image out"


def _prepare(
    network: Model,
    job: _Job,
    camera_file: Path | None,
    fov_x: float | None,
    prompt_scale: float | None,
    prompt_unit: Literal["m", "cm", "mm"] | None,
    options: Options,
) -> Prepared:
    from metricanything.inference.inputs import find_camera, read_camera, read_prompt

    height, width = image_size(job.image)
    camera = None
    if camera_file is not None:
        camera = read_camera(camera_file, height, width)
    elif fov_x is not None:
        camera = Camera.from_fov(fov_x, width, height)
    prompt = None
    if job.prompt is not None:
        seen_by, _ = find_camera(camera, job.image, height, width)
        try:
            prompt = read_prompt(job.prompt, (height, width), seen_by, scale=prompt_scale, unit=prompt_unit)
        except MissingScale as error:  # the reader cannot know how the command line states one
            raise InputError(f"{error}: --prompt-scale 1000, or --prompt-unit mm") from None
    return network.prepare(job.image, prompt, camera, options=options)
