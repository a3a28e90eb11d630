"""Report pages: well-formed, self-contained, escaped, complete and limited in size."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metricanything.core import report_chart, report_cloud
from metricanything.core.errors import InputError
from metricanything.core.report import (
    MAX_IMAGE_SIDE,
    MAX_TABLE_ROWS,
    ColourScale,
    Figure,
    Gallery,
    KeyValues,
    LineChart,
    PointCloud,
    Section,
    Table,
    Text,
    render_page,
    write_page,
)
from metricanything.core.report_format import common_format, format_value, tick_label

VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = "</script></style><script>alert(1)</script><img src=http://x onerror=\"a\" b='c'>&\udcff"


class Page(HTMLParser):
    """Checks that tags balance and collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> repeats an attribute: {names}"
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.stack[-1] if self.stack else "", data))

    @property
    def text(self) -> str:
        return " ".join(t for tag, t in self.texts if tag not in ("script", "style"))

    def all(self, tag: str, name: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.tags if t == tag and name in ("", *a.get("class", "").split())]


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def cloud(n: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-1, -1, 1), (1, 1, 4), (n, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (n, 3), dtype=np.uint8)


def everything(text: str = "plain") -> list[Any]:
    """One of each element, with `text` in every place that takes text."""
    scale = ColourScale(picture(1, 8)[0], [(0, text), (1, "far")], text)
    figure = Figure(picture(), text, scale=scale)
    return [
        KeyValues({text: text, "n": 3}),
        Section(text, text),
        Text(f"{text}\n\nsecond"),
        Table([text, "b"], [[text, 1.5], ["y", 2.5]], text, {"b": "lower", text: "higher"}, note=text),
        Table(["x", text], [[text, 1.5]], text, {text: "lower"}, compare="row"),
        Section("Images"),
        figure,
        Gallery([text, "b"], [(text, [figure, None])], text, scale),
        LineChart([(text, [1, 2], [3, 4])], text, text, caption=text),
        PointCloud(*cloud(), text),
    ]


@pytest.mark.parametrize("text", ["plain", HOSTILE, "", 'A "quoted" & <b>bold</b> name – δ₁'])
def test_page_is_well_formed_and_loads_nothing(tmp_path: Path, text: str) -> None:
    write_page(tmp_path / "sub" / "page.html", text, everything(text), subtitle=text)
    html = (tmp_path / "sub" / "page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["page.html"]
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "b1")
        for name in ("src", "href", "srcset", "action", "poster", "xlink:href"):
            assert attributes.get(name, "#").startswith(("data:image/", "#")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
    code = "".join(t for tag, t in page.texts if tag in ("script", "style"))
    assert "url(" not in code and "@import" not in code and "fetch(" not in code and "import(" not in code
    assert "default-src 'none'" in html


def test_hostile_text_stays_text() -> None:
    plain, hostile = Page(render_page("plain", everything("plain"))), Page(render_page(HOSTILE, everything(HOSTILE)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    shown = HOSTILE.replace("\udcff", "?")
    assert hostile.text.count(shown) == plain.text.count("plain") > 15
    data = [json.loads(t) for tag, t in hostile.texts if tag == "script" and t.startswith("{")]
    assert data[0]["series"][0]["name"] == shown


def test_contents_lists_the_sections() -> None:
    page = Page(render_page("t", [Section("One"), Section("Two"), Section("Three")]))
    targets = [a["href"][1:] for a in page.all("a")]
    assert targets == [a["id"] for a in page.all("h2")] and len(set(targets)) == 3
    assert not Page(render_page("t", [Section("Only")])).all("nav")


def test_captions_are_numbered_by_kind() -> None:
    figure, table = Figure(picture(), "f"), Table(["a"], [[1]], "t")
    text = Page(render_page("t", [figure, table, figure, Figure(picture()), figure, table])).text
    assert re.findall(r"(?:Figure|Table) \d", text) == ["Figure 1", "Table 1", "Figure 2", "Figure 3", "Table 2"]


class TestTable:
    def test_every_number_is_in_the_page(self) -> None:
        rng = np.random.default_rng(1)
        values = np.concatenate([rng.normal(0, 10.0**e, 4) for e in range(-6, 7)]).reshape(-1, 4)
        html = render_page("t", [Table(list("abcd"), values.tolist())])
        exact = {f"{v:.10g}" for v in values.ravel()}
        assert exact <= set(re.findall(r'title="([^"]*)"', html))

    def test_shown_with_common_decimals_and_dashes(self) -> None:
        page = Page(render_page("t", [Table(["m", "v"], [["a", 0.12345], ["b", math.nan], ["c", None], ["d", 0.5]])]))
        cells = [t for tag, t in page.texts if tag in ("td", "span", "th") and t[0] in "0–"]
        assert cells == ["0.1235", "–", "–", "0.5000"]
        assert not re.search(r"\bnan\b|None", page.text, re.IGNORECASE)

    @staticmethod
    def best(table: Table) -> list[str]:
        return re.findall(r'class="n best">(?:<span[^>]*>)?([^<]+)', render_page("t", [table]))

    def test_best_by_column_and_by_row(self) -> None:
        rows = [["a", 1.0, 5], ["b", 3.0, 9], ["c", math.nan, 9], ["d", math.inf, None]]
        assert self.best(Table(["m", "x", "y"], rows, better={"x": "lower", "y": "higher"})) == ["1.000", "9", "9"]
        assert self.best(Table(["m", "x", "y"], rows, better={"x": "higher"})) == ["3.000"]
        assert self.best(Table(["m", "x", "y"], rows, better={"a": "lower", "b": "higher"}, compare="row")) == [
            "1.000",
            "9",
        ]
        assert self.best(Table(["m", "x"], [["a", 1.0]], better={"x": "lower"})) == []
        assert self.best(Table(["m", "x"], [["a", 1.0], ["b", 2.0]])) == []

    def test_direction_is_said(self) -> None:
        html = render_page("t", [Table(["m", "x", "y"], [["a", 1, 2]], better={"x": "lower", "y": "higher"})])
        assert 'title="lower is better">↓' in html and 'title="higher is better">↑' in html

    def test_long_tables_are_cut_and_say_so(self) -> None:
        page = Page(render_page("t", [Table(["i"], [[i] for i in range(MAX_TABLE_ROWS + 7)])]))
        assert len(page.all("tr")) == MAX_TABLE_ROWS + 1 and "7 more rows are not shown." in page.text

    def test_ragged_rows_are_refused(self) -> None:
        with pytest.raises(InputError, match="2 columns but a row has 1"):
            Table(["a", "b"], [[1]])


class TestImages:
    @staticmethod
    def embedded(html: str) -> list[Image.Image]:
        return [
            Image.open(io.BytesIO(base64.b64decode(d))) for d in re.findall(r"data:image/\w+;base64,([\w+/=]+)", html)
        ]

    def test_lossless_keeps_every_pixel_and_photographs_are_jpeg(self) -> None:
        exact, photo = self.embedded(render_page("t", [Figure(picture(), lossless=True), Figure(picture())]))
        np.testing.assert_array_equal(np.asarray(exact), picture())
        assert exact.format == "PNG" and photo.format == "JPEG" and photo.size == (16, 12)

    @pytest.mark.parametrize("lossless", [False, True])
    def test_large_images_are_reduced(self, lossless: bool) -> None:
        large = np.zeros((50, 3 * MAX_IMAGE_SIDE, 3), np.uint8)
        large[:, ::2] = 255
        (image,) = self.embedded(render_page("t", [Figure(large, lossless=lossless)]))
        assert image.size == (MAX_IMAGE_SIDE, 17)
        if lossless:  # no colour appears that was not there
            assert set(np.unique(np.asarray(image))) <= {0, 255}

    def test_gallery_keeps_its_places(self) -> None:
        one = Figure(picture(), "note")
        page = Page(render_page("t", [Gallery(["a", "b", "c"], [("r1", [one, None, one]), ("r2", [one] * 3)])]))
        assert len(page.all("img")) == 5 and len(page.all("div", "cell")) == 6 and len(page.all("div", "empty")) == 1
        assert [a["alt"] for a in page.all("img")][:2] == ["r1 · a · note", "r1 · c · note"]
        assert {a["style"] for a in page.all("figure")} == {"--n:3"}

    def test_wrong_input_is_refused(self) -> None:
        for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
            with pytest.raises(InputError, match="image must be uint8"):
                Figure(bad)
        with pytest.raises(InputError, match="1 figures for 2 columns"):
            Gallery(["a", "b"], [("r", [Figure(picture())])])


class TestLineChart:
    @staticmethod
    def data(chart: LineChart) -> dict[str, Any]:
        page = Page(render_page("t", [chart]))
        value = json.loads(next(t for tag, t in page.texts if tag == "script" and t.startswith("{")))
        assert isinstance(value, dict)
        return value

    @staticmethod
    def path(chart: LineChart) -> list[tuple[float, float]]:
        d = re.search(r'class="line[^"]*" d="([^"]*)"', render_page("t", [chart]))
        assert d
        return [(float(a), float(b)) for a, b in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", d[1])]

    def test_values_are_in_the_page_and_in_place(self) -> None:
        chart = LineChart([("a", [0, 5, 10], [1.25, 3.5, 2.0])], "step", "loss")
        data = self.data(chart)
        assert data["series"] == [{"name": "a", "x": [0, 5, 10], "y": [1.25, 3.5, 2.0]}]
        low, high, _ = data["y"]
        expected = [(100.0 * x, 1000 - 1000 * (y - low) / (high - low)) for x, y in ((0, 1.25), (5, 3.5), (10, 2.0))]
        np.testing.assert_allclose(self.path(chart), expected, atol=0.06)

    def test_logarithmic_axes(self) -> None:
        x, y = [1, 10, 100, 1000], [1, 0.1, 0.01, 0.001]
        chart = LineChart([("a", x, y)], "x", "y", log_x=True, log_y=True)
        path = np.array(self.path(chart))
        np.testing.assert_allclose(np.diff(path, axis=0), np.tile(np.diff(path[:2], axis=0), (3, 1)), atol=0.11)
        labels = [t for tag, t in Page(render_page("t", [chart])).texts if tag == "span"]
        assert {"1", "10", "100", "1000", "0.001", "0.01", "0.1"} <= set(labels)

    def test_gaps_interrupt_the_line(self) -> None:
        html = render_page("t", [LineChart([("a", [0, 1, 2, 3, 4], [1, 2, math.nan, 4, 5])], "x", "y")])
        line = re.search(r'class="line[^"]*" d="([^"]*)"', html)
        assert line and line[1].count("M") == 2 and line[1].count("L") == 2
        assert self.data(LineChart([("a", [0, 1, 2], [1, 0, -3])], "x", "y", log_y=True))["series"][0]["y"] == [1]

    def test_long_series_keep_their_extremes(self) -> None:
        n = 100_000
        y = np.sin(np.linspace(0, 9, n))
        y[12_345], y[67_890], y[500:900] = 40, -30, np.nan
        series = self.data(LineChart([("a", np.arange(n), y)], "x", "y"))["series"][0]
        assert len(series["y"]) <= report_chart.MAX_SERIES_POINTS
        assert max(series["y"]) == 40 and min(series["y"]) == -30 and series["x"] == sorted(series["x"])
        assert series["x"][series["y"].index(40)] == 12_345

    @pytest.mark.parametrize("log", [False, True])
    @pytest.mark.parametrize("y", [[], [math.nan], [0.0], [-1.0], [3.0], [2.0, 2.0], [1e-100, 1e100], [1e-9, 1.1e-9]])
    def test_degenerate_series(self, y: list[float], log: bool) -> None:
        chart = LineChart([("a", range(len(y)), y), ("b", [], [])], "x", "y", log_y=log)
        with np.errstate(all="raise", under="ignore"):
            html = render_page("t", [chart, LineChart([], "x", "y")])
        assert not re.search(r"\b(nan|inf)\b", html[html.index("<main>") : html.index("</main>")])
        assert self.data(chart)["series"][1] == {"name": "b", "x": [], "y": []}

    def test_wrong_shapes_are_refused(self) -> None:
        with pytest.raises(InputError, match="series 'a'"):
            LineChart([("a", [1, 2], [1])], "x", "y").html(report_chart.Numbering())


class TestPointCloud:
    @staticmethod
    def stored(element: PointCloud) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        page = Page(render_page("t", [element]))
        view = json.loads(page.all("div", "stage")[0]["data-view"])
        text = next(t for tag, t in page.texts if tag == "script" and re.fullmatch(r"[\w+/=]+", t))
        raw, n = base64.b64decode(text), view["count"]
        steps = np.frombuffer(raw, "<u2", 3 * n).reshape(n, 3)
        points = np.array(view["low"]) + steps / 65535 * np.array(view["extent"])
        return view, points, np.frombuffer(raw, np.uint8, offset=6 * n).reshape(n, 3)

    def test_points_and_colours_survive(self) -> None:
        points, colours = cloud(500)
        _, stored, shown = self.stored(PointCloud(points, colours))
        np.testing.assert_allclose(stored, points, atol=3 / 65535)
        np.testing.assert_array_equal(shown, colours)

    def test_points_that_are_not_finite_are_left_out(self) -> None:
        points, colours = cloud(10)
        points[2, 0], points[5, 2], points[6] = np.nan, np.inf, np.nan
        view, stored, shown = self.stored(PointCloud(points, colours))
        keep = [0, 1, 3, 4, 7, 8, 9]
        assert view["count"] == 7
        np.testing.assert_allclose(stored, points[keep], atol=1e-4)
        np.testing.assert_array_equal(shown, colours[keep])

    def test_large_clouds_are_thinned_out_evenly_and_say_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report_cloud, "MAX_CLOUD_POINTS", 1000)
        points, colours = cloud(2500)
        element = PointCloud(points, colours, "A cloud.")
        view, stored, shown = self.stored(element)
        assert view["count"] == 1000 and len(np.unique(stored, axis=0)) == 1000
        order = np.array([np.abs(points - p).sum(axis=1).argmin() for p in stored])
        np.testing.assert_array_equal(colours[order], shown)
        assert np.diff(order).min() >= 1 and np.diff(order).max() <= 5
        page = render_page("t", [element])
        assert "A cloud. 1,000 of 2,500 points are shown." in Page(page).text
        assert page == render_page("t", [element])

    def test_first_view_is_that_of_the_camera(self) -> None:
        v, u = np.mgrid[-240:240, -320:320] + 0.5
        depth = 2 + u / 640
        points = np.stack([u / 500 * depth, v / 500 * depth, depth], axis=-1).reshape(-1, 3)
        view = self.stored(PointCloud(points[::50], np.zeros((6144, 3), np.uint8)))[0]
        assert view["by_depth"] and view["target"] == pytest.approx([0, 0, 2], abs=0.02)
        assert view["distance"] == pytest.approx(2, abs=0.01)
        assert view["tangents"] == pytest.approx([0.64, 0.48], rel=0.03)

    def test_points_all_around_are_seen_from_outside(self) -> None:
        points = np.random.default_rng(0).normal((0, 5, 0), 1, (500, 3))
        view = self.stored(PointCloud(points, np.zeros((500, 3), np.uint8)))[0]
        assert not view["by_depth"] and view["target"] == pytest.approx([0, 5, 0], abs=0.2) and view["distance"] > 4

    def test_degenerate_clouds(self) -> None:
        nothing = PointCloud(np.full((3, 3), np.nan), np.zeros((3, 3), np.uint8), "empty")
        assert "No point to show." in Page(render_page("t", [nothing, PointCloud(*cloud(0))])).text
        view, stored, _ = self.stored(PointCloud(*cloud(1)))
        np.testing.assert_allclose(stored, cloud(1)[0], atol=1e-6)
        assert view["distance"] > 0

    def test_wrong_shapes_are_refused(self) -> None:
        points, colours = cloud(4)
        for p, c in ((points[:, :2], colours), (points, colours[:3]), (points, colours.astype(np.float32))):
            with pytest.raises(InputError, match="points must be"):
                PointCloud(p, c)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (math.nan, "–"), (np.float32("nan"), "–"), (math.inf, "∞"), (-math.inf, "−∞"), (True, "yes"),
        (12345678, "12,345,678"), (np.int64(-5), "−5"), (0.0, "0"), (3e-5, "3×10⁻⁵"), (1e-5, "10⁻⁵"),
        (-1.2345e9, "−1.234×10⁹"), (0.123456, "0.12346"), (1234.5, "1,234.5"), (654321.9, "654,322"), ("a-b", "a-b"),
    ],
)  # fmt: skip
def test_format_value(value: Any, text: str) -> None:
    assert format_value(value) == text


def test_common_format() -> None:
    assert common_format([12.3456, 0.5, math.nan, "x", 7]) == ["12.35", "0.50", "–", "x", "7"]
    assert common_format([0.00987654, 0.01]) == ["0.00988", "0.01000"]
    assert common_format([123456.7, 1.5]) == ["123,457", "2"]
    assert common_format([]) == [] and common_format([0.0, 0.0]) == ["0", "0"]


def test_tick_label() -> None:
    assert [tick_label(v, 20_000) for v in (0, 2500, 20_000, -5000)] == ["0", "2.5k", "20k", "−5k"]
    assert [tick_label(v, v) for v in (1e-4, 0.002, 250, 1e6, 2e9)] == ["10⁻⁴", "0.002", "250", "1M", "2×10⁹"]
