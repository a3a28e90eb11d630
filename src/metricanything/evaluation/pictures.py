"""What a frame looks like in an evaluation report: image, prompt, prediction, error; and plots of many frames."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.colour import colourise_depth, colourise_error, overlay_points
from metricanything.core.report import ColourScale, Figure
from metricanything.evaluation.datasets import Map
from metricanything.evaluation.measuring import Case

ERROR_LIMIT = 0.2
_SIDE = 360  # pixels of the longer side of the pictures in a report
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_SPARSE = 0.3  # maps with a smaller known share are shown by blocks


def frame_pictures(case: Case, pred: Map, caption: str) -> list[Figure]:
    """Image, prompt over the image, ground truth, prediction and error map; all depths on one colour scale."""
    truth = np.where(case.counts, case.frame.depth, np.float32(np.nan))
    near, far = (float(q) for q in np.nanquantile(truth, [0.01, 0.99])) if case.counts.any() else (None, None)
    step = max(1, round(max(truth.shape) / _SIDE))
    image = _image_blocks(case.frame.image, step)
    dots = image
    if case.prompt is not None:
        scale = np.array([case.frame.width / case.prompt.width, case.frame.height / case.prompt.height]) / step
        radius = 1 if len(case.prompt) > 1500 else 2
        dots = overlay_points(image, case.prompt.uv * scale, case.prompt.depth, radius, near, far)
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(pred) & (pred > 0)
        error = np.where(usable, np.abs(pred - truth) / truth, np.where(case.counts, np.inf, np.nan))
    points = "no prompt" if case.prompt is None else f"{len(case.prompt)} points"
    return [
        Figure(image),
        Figure(dots, points),
        Figure(colourise_depth(_blocks(truth, step, np.nanmin), near, far)),
        Figure(colourise_depth(pred[::step, ::step], near, far)),
        Figure(colourise_error(np.minimum(_blocks(error, step, np.nanmax), 10), ERROR_LIMIT), caption),
    ]


PICTURE_HEADS = ("image", "prompt", "measured", "prediction", "relative error")


def error_scale() -> ColourScale:
    """The legend of the error maps."""
    return ColourScale(
        colourise_error(np.linspace(0, ERROR_LIMIT, 256)[None], ERROR_LIMIT)[0],
        [(0.0, "0"), (0.5, f"{50 * ERROR_LIMIT:.0f} %"), (1.0, f"{100 * ERROR_LIMIT:.0f} % and more")],
        "relative error",
    )


def _padded(values: NDArray[Any], step: int, fill: Any) -> NDArray[Any]:
    pad = [(0, -n % step) for n in values.shape[:2]] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values, pad, mode="edge") if fill is None else np.pad(values, pad, constant_values=fill)


def _image_blocks(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    padded = _padded(image, step, None)
    h, w = padded.shape[0] // step, padded.shape[1] // step
    return padded.reshape(h, step, w, step, 3).mean(axis=(1, 3)).astype(np.uint8)


def _blocks(values: NDArray[Any], step: int, reduce: Any) -> NDArray[Any]:
    """One value per block of `step` x `step`: single pixels, or the extreme of what is known where little is."""
    if np.isfinite(values).mean() >= _SPARSE:
        return values[::step, ::step]
    step = max(step, 4)  # a point of a LiDAR, one pixel wide, would not be seen
    padded = _padded(values, step, np.nan)
    h, w = padded.shape[0] // step, padded.shape[1] // step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # blocks where nothing is known
        return np.asarray(reduce(padded.reshape(h, step, w, step), axis=(1, 3)))


def side_by_side(values: dict[str, dict[str, float]], label: str) -> NDArray[np.uint8]:
    """One number by protocol and model, a line for each protocol and a mark for each model: uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    models = list(dict.fromkeys(model for own in values.values() for model in own))
    plot = Plot(figsize=(6.4, 0.9 + 0.26 * len(values) + 0.11 * len(models)), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(plot), plot.add_subplot()
    for number, model in enumerate(models):
        rows = [(own[model], row) for row, own in enumerate(values.values()) if model in own]
        axes.plot(*zip(*rows, strict=True), _MARKS[number % len(_MARKS)], label=model, markersize=5.5, alpha=0.8)
    axes.set_yticks(range(len(values)), list(values))
    axes.set(xlabel=label, ylim=(len(values) - 0.5, -0.5))
    axes.grid(axis="both", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    plot.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def histogram(series: dict[str, list[float]], label: str, title: str) -> NDArray[np.uint8]:
    """Shares of frames by the value of a metric, a line for each model: uint8 (H, W, 3); values may be clipped."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Plot

    values = np.concatenate([np.asarray(v, dtype=float) for v in series.values()] or [np.zeros(1)])
    high = float(np.quantile(values, 0.98)) if values.size else 1.0
    low = float(values.min()) if values.size else 0.0
    edges = np.linspace(low, high if high > low else low + 1, 25)
    plot = Plot(figsize=(6.4, 3.2), dpi=100, layout="constrained")
    canvas, axes = FigureCanvasAgg(plot), plot.add_subplot()
    for name, own in series.items():
        counts, _ = np.histogram(np.clip(own, edges[0], edges[-1]), edges)
        axes.stairs(100 * counts / max(len(own), 1), edges, label=f"{name} ({len(own)})", linewidth=1.5)
    axes.set(xlabel=f"{label} (last bin: and beyond)", ylabel="% of frames", title=title, xlim=(edges[0], edges[-1]))
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
