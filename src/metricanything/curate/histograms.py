"""Histograms of a column by group, as line charts of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metricanything.core.report import LineChart

_BINS = 40
_LINES = 7  # groups with a line of their own; the others share one


def histogram(
    values: NDArray[np.floating], groups: Sequence[tuple[str, NDArray[np.int64]]], label: str, *, log: bool
) -> LineChart | None:
    """Shares of frames by value (N,), a line for each of the largest groups (a name and frame numbers).

    Values that are not finite, or not positive where `log`, are left out, those beyond the outer 0.2 % lie in the outer
    bins; None where no value is left.
    """
    usable = np.isfinite(values) & ((values > 0) | (not log))
    if not usable.any():
        return None
    low, high = (float(q) for q in np.quantile(values[usable], [0.002, 0.998]))
    if high - low <= 1e-3 * abs(low):
        low, high = low - 0.1 * abs(low), high + (0.1 * abs(high) or 1.0)
    edges = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    order = sorted(groups, key=lambda group: -len(group[1]))
    shown = list(order[:_LINES])
    if order[_LINES:]:
        shown.append(("others", np.concatenate([numbers for _, numbers in order[_LINES:]])))
    series = []
    for name, numbers in shown:
        known = values[numbers][usable[numbers]]
        counts = np.histogram(np.clip(known, low, high), edges)[0]
        # Steps: every bin as a level from its lower to its upper edge, back to nothing at both ends.
        x, y = np.repeat(edges, 2), np.concatenate([[0], np.repeat(100 * counts / max(len(known), 1), 2), [0]])
        series.append((short(name), x, y))
    return LineChart(series, label, "% of the frames", log_x=log, caption=f"Frames by {label}.")


def short(name: str, length: int = 36) -> str:
    """A name cut to `length` characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
