"""Line charts of a report: inline SVG that stretches with the page; labels are HTML, so they keep their size."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metricanything.core.errors import InputError
from metricanything.core.report_format import Numbering, escape, tick_label

MAX_SERIES_POINTS = 2000
_COLOURS = 8
_MARKED = 24  # a series of at most this many points shows them as dots
_DENSE = 400  # one of more than this many points is drawn with a thin line

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class LineChart:
    """Lines (name, x, y) over common axes, with values on hover.

    A y that is not finite, or not positive on a logarithmic axis, interrupts its line. Of series with more than
    `MAX_SERIES_POINTS` points, the extremes of short stretches are drawn, so that peaks stay visible.
    """

    series: Sequence[tuple[str, ArrayLike, ArrayLike]]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    caption: str = ""

    def html(self, numbering: Numbering) -> str:
        lines = [(name, *self._points(name, x, y)) for name, x, y in self.series]
        x_axis = _Axis.around(np.concatenate([x[np.isfinite(y)] for _, x, y in lines] or [np.empty(0)]), self.log_x)
        y_axis = _Axis.around(np.concatenate([y for _, _, y in lines] or [np.empty(0)]), self.log_y, margin=0.04)
        legend = "".join(f'<span class="s{_colour(i)}">{escape(name)}</span>' for i, (name, _, _) in enumerate(lines))
        grid = "".join(f'<path class="grid" d="M0 {1000 - 1000 * at:.1f}H1000"/>' for _, at in y_axis.ticks())
        paths = "".join(_path(x_axis.place(x), y_axis.place(y), _colour(i)) for i, (_, x, y) in enumerate(lines))
        return (
            f'<figure class="chart"><div class="chart-head"><span class="y-label">{escape(self.y_label)}</span>'
            f'<span class="legend">{legend}</span></div><div class="plot">'
            f'<div class="ticks y">{_tick_spans(y_axis, "bottom")}</div><div class="area">'
            f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
            f'aria-label="{escape(self.caption or self.y_label)}">{grid}{paths}</svg></div>'
            f'<div class="ticks x">{_tick_spans(x_axis, "left")}</div><div class="x-label">{escape(self.x_label)}</div>'
            f'</div><script type="application/json">{self._data(lines, x_axis, y_axis)}</script>'
            f"{numbering.caption('Figure', self.caption)}</figure>"
        )

    def _points(self, name: str, x: ArrayLike, y: ArrayLike) -> tuple[Vector, Vector]:
        """The points to draw, in the order given, y NaN where the line is interrupted."""
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if xs.ndim != 1 or xs.shape != ys.shape:
            raise InputError(f"series {name!r}: x and y must be vectors of one length, got {xs.shape} and {ys.shape}")
        usable = np.isfinite(xs) & np.isfinite(ys) & ((ys > 0) | (not self.log_y)) & ((xs > 0) | (not self.log_x))
        xs, ys = np.where(np.isfinite(xs), xs, np.nan), np.where(usable, ys, np.nan)
        if len(xs) <= MAX_SERIES_POINTS:
            return xs, ys
        # Of each stretch its lowest and its highest point, in order of appearance.
        stretches = np.array_split(np.arange(len(xs)), MAX_SERIES_POINTS // 2)
        extremes = [
            (
                s[np.argmin(np.where(np.isnan(ys[s]), np.inf, ys[s]))],
                s[np.argmax(np.where(np.isnan(ys[s]), -np.inf, ys[s]))],
            )
            for s in stretches
        ]
        kept = np.unique(np.concatenate([np.sort(pair) for pair in extremes]))
        return xs[kept], ys[kept]

    def _data(self, lines: Sequence[tuple[str, Vector, Vector]], x_axis: _Axis, y_axis: _Axis) -> str:
        """What the hover needs, as JSON that cannot end its script element."""
        series = []
        for name, x, y in lines:
            drawn = np.isfinite(y)
            points = [[float(f"{v:.6g}") for v in values[drawn]] for values in (x, y)]
            series.append({"name": name.encode("utf-8", "replace").decode(), "x": points[0], "y": points[1]})
        axes = {"x": [x_axis.low, x_axis.high, x_axis.log], "y": [y_axis.low, y_axis.high, y_axis.log]}
        data = {"label": self.x_label.encode("utf-8", "replace").decode(), "series": series, **axes}
        return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


@dataclass(frozen=True)
class _Axis:
    """A linear or logarithmic range of values that maps to 0..1."""

    low: float
    high: float
    log: bool

    @classmethod
    def around(cls, values: Vector, log: bool, margin: float = 0.0) -> _Axis:
        """The axis that shows all finite `values` with a relative margin."""
        finite = values[np.isfinite(values)]
        if not finite.size:
            return cls(1.0, 10.0, log) if log else cls(0.0, 1.0, log)
        low, high = float(finite.min()), float(finite.max())
        if log:
            if low == high:
                low, high = low / 2, high * 2
            room = math.exp(margin * (math.log(high) - math.log(low)))
            return cls(low / room, high * room, log)
        if low == high:
            pad = abs(low) / 2 or 1.0
            return cls(low - pad, high + pad, log)
        room = (high - low) * margin
        # A range that nearly reaches zero from above starts there.
        return cls(0.0 if 0 <= low < 0.25 * high and margin else low - room, high + room, log)

    def place(self, values: ArrayLike) -> Vector:
        """Positions 0..1 of `values` on the axis."""
        v = np.asarray(values, dtype=np.float64)
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.asarray((np.log(v) - math.log(self.low)) / (math.log(self.high) - math.log(self.low)))
        return np.asarray((v - self.low) / (self.high - self.low))

    def ticks(self) -> list[tuple[float, float]]:
        """Round values inside the range and their positions, about five."""
        values = self._log_values() if self.log else None
        if values is None:
            values = self._linear_values()
        return [(float(v), float(self.place(v))) for v in values]

    def _linear_values(self) -> Vector:
        raw = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(s for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.9999) * power
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return np.array([float(f"{k * step:.12g}") for k in range(first, last + 1)])

    def _log_values(self) -> Vector | None:
        """Decades, or 1-2-5 steps over few decades; None over less than one step, where linear ticks serve better."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        digits = (1, 2, 5) if math.log10(self.high) - math.log10(self.low) < 2.5 else (1,)
        every = max(1, round((last - first) / 6))
        values = np.array([d * 10.0**e for e in range(first, last + 1, every) for d in digits])
        values = values[(values >= self.low * 0.9999) & (values <= self.high * 1.0001)]
        return values if len(values) >= 3 else None


def _tick_spans(axis: _Axis, side: str) -> str:
    largest = max(abs(axis.low), abs(axis.high))
    labels = [(tick_label(v, abs(v) if axis.log else largest), at) for v, at in axis.ticks()]
    return "".join(f'<span style="{side}:{100 * at:.2f}%">{escape(text)}</span>' for text, at in labels)


def _path(x: Vector, y: Vector, colour: int) -> str:
    """One line as SVG paths in a 1000 x 1000 box; points that stand alone and those of short series are dots."""
    drawn = np.isfinite(y) & np.isfinite(x)
    starts = drawn & ~np.concatenate([[False], drawn[:-1]])
    ends = drawn & ~np.concatenate([drawn[1:], [False]])
    dots = drawn if drawn.sum() <= _MARKED else starts & ends
    places = [f"{1000 * a:.1f} {1000 - 1000 * b:.1f}" if ok else "" for a, b, ok in zip(x, y, drawn, strict=True)]
    line = "".join(("M" if start else "L") + p for p, ok, start in zip(places, drawn, starts, strict=True) if ok)
    marks = "".join(f"M{p}h0" for p, dot in zip(places, dots, strict=True) if dot)
    weight = "line dense" if drawn.sum() > _DENSE else "line"
    return f'<path class="{weight} s{colour}" d="{line}"/>' + (
        f'<path class="dot s{colour}" d="{marks}"/>' if marks else ""
    )


def _colour(index: int) -> int:
    return index % _COLOURS + 1
