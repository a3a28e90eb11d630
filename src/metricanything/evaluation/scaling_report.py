"""What is written of scaling fits: scaling.json with all numbers, scaling.png, and scaling.md in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.files import atomic_path, write_json, write_text
from metricanything.evaluation.scaling import LEVEL, REACH, Interval, ScalingFit, ScalingRun, error_name, model_name


def write_scaling(folder: str | Path, fits: Sequence[ScalingFit], runs: Sequence[ScalingRun], metric: str) -> Path:
    """Write scaling.json, scaling.png and scaling.md into `folder`; returns the Markdown file."""
    folder = Path(folder)
    record = {
        "metric": metric,
        "level": LEVEL,
        "fits": [fit.to_dict() for fit in fits],
        "runs": [{"pairs": r.pairs, "parameters": r.parameters, "error": r.error} for r in runs],
    }
    write_json(folder / "scaling.json", record)
    _draw(folder / "scaling.png", fits, runs, metric)
    write_text(folder / "scaling.md", scaling_markdown(fits, runs, metric))
    return folder / "scaling.md"


def scaling_markdown(fits: Sequence[ScalingFit], runs: Sequence[ScalingRun], metric: str) -> str:
    """The fits in words: a table, what is supported and what is not, and the errors expected at other sizes."""
    lines = [
        f"# Scaling of {error_name(metric)} with training pairs",
        "",
        f"{len(runs)} runs. error = a N^-b + c, N training pairs; {100 * LEVEL:.0f} % bootstrap intervals in brackets.",
        "",
        "| runs of | sizes | b | a | c | spread | supported |",
        "|---|---|---|---|---|---|---|",
    ]
    for fit in fits:
        c = _value(fit.c, fit.c_interval) if fit.form == "power+floor" else "0 (pure power law)"
        a, b = _value(fit.a, fit.a_interval), _value(fit.b, fit.b_interval)
        supported = "yes" if fit.supported else "**no**"
        lines.append(
            f"| {fit.group} ({fit.runs}) | {fit.sizes} | {b} | {a} | {c} | {100 * fit.spread:.2g} % | {supported} |"
        )
    for fit in fits:
        lines += ["", f"**{fit.group}**: {verdict(fit)}"]
        lines += [f"- {note}" for note in fit.notes]
        lines += [
            f"- expected at {e.pairs:.3g} pairs: {_value(e.error, e.interval)}"
            + ("" if e.within_reach else f" (beyond {REACH:g} times the data: not supported)")
            for e in fit.extrapolations
        ]
    return "\n".join([*lines, "", "![Error against training pairs](scaling.png)", ""])


def verdict(fit: ScalingFit) -> str:
    """One sentence: what the fit says, or that it is not supported and why."""
    if fit.objections:
        return f"these runs do not support a scaling law: {'; '.join(fit.objections)}."
    floor = f" towards a floor of {fit.c:.3g}" if fit.form == "power+floor" else ""
    part = "the part of the error above the floor" if floor else "the error"
    return f"{fit.sizes} sizes; ten times the data multiply {part} by {10**-fit.b:.2f}{floor}."


def _value(value: float, interval: Interval | None) -> str:
    return f"{value:.3g}" + ("" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]")


def _draw(path: Path, fits: Sequence[ScalingFit], runs: Sequence[ScalingRun], metric: str) -> None:
    """Runs and curves over logarithmic axes; a curve is drawn as far as it may be believed, dashed if unsupported."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    models = sorted({run.parameters for run in runs}, key=lambda p: (p is not None, p or 0))
    colours = {model_name(parameters): f"C{i}" for i, parameters in enumerate(models)}
    for parameters in models:
        of = [run for run in runs if run.parameters == parameters]
        name = model_name(parameters)
        label = name if len(models) > 1 else None
        axes.plot([r.pairs for r in of], [r.error for r in of], "o", ms=5, color=colours[name], label=label)
    for fit in fits[1:] if len(fits) > 1 else fits:  # all runs together only where there is nothing finer
        x = np.geomspace(fit.smallest, fit.largest * REACH, 200)
        name = f"{fit.group}: b = {fit.b:.3g}" + ("" if fit.supported else " (not supported)")
        style = "-" if fit.supported else "--"
        axes.plot(x, fit.error_at(x), style, lw=1.2, color=colours.get(fit.group, "C0"), label=name)
    axes.set(xscale="log", yscale="log", xlabel="training pairs", ylabel=error_name(metric))
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})
