"""Self-contained HTML reports: one file with its images, charts and point clouds, readable offline and on a phone.

A page is a list of elements (`Section`, `Text`, `KeyValues`, `Table`, `Figure`, `Gallery`, `LineChart`, `PointCloud`)
given to `write_page`. Everything is embedded; a content security policy in the page forbids it to load anything.
All text is plain text and is escaped. What is too large for a page is reduced, and the page says so.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metricanything.core.errors import InputError
from metricanything.core.files import write_text
from metricanything.core.report_chart import LineChart
from metricanything.core.report_cloud import PointCloud
from metricanything.core.report_format import Numbering, as_number, common_format, escape, format_value

MAX_IMAGE_SIDE = 1280  # pixels; larger images are reduced
MAX_TABLE_ROWS = 1000

__all__ = [
    "ColourScale",
    "Element",
    "Figure",
    "Gallery",
    "KeyValues",
    "LineChart",
    "PointCloud",
    "Section",
    "Table",
    "Text",
    "render_page",
    "write_page",
]

Better = Literal["lower", "higher"]


class Element(Protocol):
    """Anything a page can show."""

    def html(self, numbering: Numbering) -> str:
        """The element as HTML, well-formed and escaped."""
        ...


@dataclass(frozen=True)
class Section:
    """Starts a section, listed in the contents; `intro` is a lead paragraph under its title."""

    title: str
    intro: str = ""

    def html(self, numbering: Numbering) -> str:
        lead = f'<p class="lead">{escape(self.intro)}</p>' if self.intro else ""
        return f'<h2 id="section-{numbering.next("section")}">{escape(self.title)}</h2>{lead}'


@dataclass(frozen=True)
class Text:
    """Plain paragraphs, separated by empty lines."""

    text: str

    def html(self, numbering: Numbering) -> str:
        paragraphs = (p.strip() for p in self.text.split("\n\n"))
        return "".join(f"<p>{escape(p)}</p>" for p in paragraphs if p)


@dataclass(frozen=True)
class KeyValues:
    """A short list of facts: names and their values (numbers, text; NaN and None are shown as a dash)."""

    values: Mapping[str, Any]

    def html(self, numbering: Numbering) -> str:
        items = (f"<div><dt>{escape(k)}</dt><dd>{_cell(v, format_value(v))}</dd></div>" for k, v in self.values.items())
        return f'<dl class="facts">{"".join(items)}</dl>'


@dataclass(frozen=True)
class Table:
    """A table of numbers and text; numbers that are compared with each other share their decimals.

    better: which direction is better, by column name, or with `compare="row"` by the text of a row's first cell.
        The best number of each such column (row) is highlighted.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    better: Mapping[str, Better] = field(default_factory=dict)
    compare: Literal["column", "row"] = "column"
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"table has {len(self.columns)} columns but a row has {len(row)} cells: {row!r}")

    def html(self, numbering: Numbering) -> str:
        rows = [list(row) for row in self.rows[:MAX_TABLE_ROWS]]
        texts = [[""] * len(self.columns) for _ in rows]
        best: set[tuple[int, int]] = set()
        for name, places in self._groups(rows):
            values = [rows[i][j] for i, j in places]
            for (i, j), text in zip(places, common_format(values), strict=True):
                texts[i][j] = text
            best |= {places[k] for k in _best(values, self.better.get(name))}
        numeric = [any(as_number(row[j]) is not None for row in rows) for j in range(len(self.columns))]
        head = "".join(
            f'<th scope="col"{_class("n" * numeric[j])}>{escape(name)}{self._arrow("column", name)}</th>'
            for j, name in enumerate(self.columns)
        )
        body = "".join(self._row(i, row, texts[i], numeric, best) for i, row in enumerate(rows))
        dropped = len(self.rows) - len(rows)
        notes = [self.note] if self.note else []
        notes += [f"{dropped} more rows are not shown."] if dropped else []
        note = f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""
        return (
            f'<figure class="table">{numbering.caption("Table", self.caption)}<div class="scroll"><table>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}</figure>"
        )

    def _groups(self, rows: list[list[Any]]) -> list[tuple[str, list[tuple[int, int]]]]:
        """The cells that are compared with each other, under the name of their column or row."""
        height, width = len(rows), len(self.columns)
        if self.compare == "row":
            first = [("", [(i, 0)]) for i in range(height)]
            return first + [(str(rows[i][0]), [(i, j) for j in range(1, width)]) for i in range(height) if width > 1]
        return [(name, [(i, j) for i in range(height)]) for j, name in enumerate(self.columns)]

    def _row(self, i: int, row: list[Any], texts: list[str], numeric: list[bool], best: set[tuple[int, int]]) -> str:
        cells = []
        for j, (value, text) in enumerate(zip(row, texts, strict=True)):
            classes = _class("n" * numeric[j], "best" * ((i, j) in best))
            if j == 0:
                cells.append(f'<th scope="row"{classes}>{_cell(value, text)}{self._arrow("row", str(value))}</th>')
            else:
                cells.append(f"<td{classes}>{_cell(value, text)}</td>")
        return f"<tr>{''.join(cells)}</tr>"

    def _arrow(self, axis: str, name: str) -> str:
        if axis != self.compare or name not in self.better:
            return ""
        direction = self.better[name]
        return f'<span class="arrow" title="{direction} is better">{"↓" if direction == "lower" else "↑"}</span>'


@dataclass(frozen=True)
class ColourScale:
    """The legend of a colour map: `colours` (N, 3) uint8 from left to right, `ticks` as (position 0..1, text)."""

    colours: NDArray[np.uint8]
    ticks: Sequence[tuple[float, str]]
    label: str = ""

    def html(self) -> str:
        """The bar with its ticks and label."""
        chosen = self.colours[np.linspace(0, len(self.colours) - 1, 24).round().astype(int)]
        stops = ",".join(f"rgb({int(r)},{int(g)},{int(b)})" for r, g, b in chosen)
        ticks = "".join(
            f'<span style="left:{100 * at:.2f}%;transform:translateX({-100 * at:.2f}%)">{escape(text)}</span>'
            for at, text in self.ticks
        )
        return (
            f'<div class="scale"><span>{escape(self.label)}</span>'
            f'<div><i style="background:linear-gradient(90deg,{stops})"></i><div>{ticks}</div></div></div>'
        )


@dataclass(frozen=True)
class Figure:
    """An image uint8 (H, W, 3) sRGB with a caption; a click enlarges it.

    lossless: embed as PNG (colour maps with flat areas) rather than as JPEG (photographs).
    """

    image: NDArray[np.uint8]
    caption: str = ""
    lossless: bool = False
    scale: ColourScale | None = None

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.image), np.asarray(self.image).dtype
        if len(shape) != 3 or shape[2] != 3 or min(shape) < 1 or dtype != np.uint8:
            raise InputError(f"figure {self.caption!r}: image must be uint8 (H, W, 3), got {dtype} {shape}")

    def html(self, numbering: Numbering) -> str:
        scale = self.scale.html() if self.scale else ""
        return f"<figure>{self.button(self.caption)}{scale}{numbering.caption('Figure', self.caption)}</figure>"

    def button(self, label: str) -> str:
        """The image as a button that enlarges it under the title `label`."""
        image = Image.fromarray(np.ascontiguousarray(self.image))
        factor = MAX_IMAGE_SIDE / max(image.size)
        if factor < 1:
            size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
            # Mixing neighbours of a colour map would show values that are not there.
            method = Image.Resampling.NEAREST if self.lossless else Image.Resampling.LANCZOS
            image = image.resize(size, method)
        buffer = io.BytesIO()
        if self.lossless:
            image.save(buffer, "PNG", optimize=True)
        else:
            image.save(buffer, "JPEG", quality=88, optimize=True, progressive=True)
        kind = "png" if self.lossless else "jpeg"
        return (
            f'<button class="zoom" type="button" title="Enlarge"><img alt="{escape(label)}" width="{image.width}" '
            f'height="{image.height}" decoding="async" '
            f'src="data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"></button>'
        )


@dataclass(frozen=True)
class Gallery:
    """Rows of figures under common column heads; a figure's caption stands under it, a None leaves its place empty."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Figure | None]]]
    caption: str = ""
    scale: ColourScale | None = None

    def __post_init__(self) -> None:
        for title, figures in self.rows:
            if len(figures) != len(self.columns):
                raise InputError(f"gallery row {title!r} has {len(figures)} figures for {len(self.columns)} columns")

    def html(self, numbering: Numbering) -> str:
        heads = "".join(f"<span>{escape(name)}</span>" for name in self.columns)
        rows = "".join(self._row(title, figures) for title, figures in self.rows)
        scale = self.scale.html() if self.scale else ""
        return (
            f'<figure class="gallery" style="--n:{max(1, len(self.columns))}"><div class="heads" aria-hidden="true">'
            f"{heads}</div>{rows}{scale}{numbering.caption('Figure', self.caption)}</figure>"
        )

    def _row(self, title: str, figures: Sequence[Figure | None]) -> str:
        cells = []
        for name, figure in zip(self.columns, figures, strict=True):
            if figure is None:
                cells.append('<div class="cell empty"></div>')
                continue
            label = " · ".join(part for part in (title, name, figure.caption) if part)
            note = f'<span class="cell-note">{escape(figure.caption)}</span>' if figure.caption else ""
            cells.append(
                f'<div class="cell"><span class="cell-head">{escape(name)}</span>{figure.button(label)}{note}</div>'
            )
        head = f'<p class="row-title">{escape(title)}</p>' if title else ""
        return f'{head}<div class="cells">{"".join(cells)}</div>'


def _best(values: Sequence[Any], better: Better | None) -> list[int]:
    """Places of the best finite number, when there are at least two to choose from."""
    numbers = {k: x for k, x in enumerate(map(as_number, values)) if x is not None and math.isfinite(x)}
    if better is None or len(numbers) < 2:
        return []
    best = min(numbers.values()) if better == "lower" else max(numbers.values())
    return [k for k, x in numbers.items() if x == best]


def _cell(value: Any, text: str) -> str:
    """The text of a value; a number that was rounded for display has its exact value as a tooltip."""
    number = as_number(value)
    if number is None or not math.isfinite(number) or text == (exact := f"{number:.10g}"):
        return escape(text)
    return f'<span title="{exact}">{escape(text)}</span>'


def _class(*names: str) -> str:
    chosen = " ".join(name for name in names if name)
    return f' class="{chosen}"' if chosen else ""


def render_page(title: str, elements: Sequence[Element], subtitle: str | None = None) -> str:
    """The page of `elements` as one HTML document without any external resource."""
    numbering = Numbering()
    body = "\n".join(element.html(numbering) for element in elements)
    sections = [element.title for element in elements if isinstance(element, Section)]
    contents = "".join(f'<li><a href="#section-{i}">{escape(name)}</a></li>' for i, name in enumerate(sections, 1))
    toc = f"<details open><summary>Contents</summary><ol>{contents}</ol></details>"
    under = f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else ""
    layout = "with-toc" if len(sections) > 1 else "plain"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_asset("page.css")}</style>
</head>
<body class="{layout}">
<header><p class="brand">MetricAnything</p><h1>{escape(title)}</h1>{under}</header>
{f'<nav class="toc" aria-label="Contents">{toc}</nav>' if layout == "with-toc" else ""}
<main>
{body}
</main>
<footer>One self-contained file: nothing is loaded from the network.</footer>
<script>{_asset("page.js")}</script>
<script>{_asset("cloud.js")}</script>
</body>
</html>
"""


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def _asset(name: str) -> str:
    return (resources.files("metricanything.core") / "report_assets" / name).read_text(encoding="utf-8")


def write_page(path: str | Path, title: str, elements: Sequence[Element], subtitle: str | None = None) -> None:
    """Write the page of `elements` to `path` atomically, as one HTML file without any external resource."""
    write_text(path, render_page(title, elements, subtitle))
