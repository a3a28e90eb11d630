"""The report on shards: what is in them, what was put aside and why, what occurs twice.

All numbers come from the columns of the index; frames are decoded for the galleries alone, so that the report of
twenty million frames takes little longer than that of a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.report import Element, Gallery, KeyValues, Section, Table, Text, write_page
from metricanything.curate.collection import Collection
from metricanything.curate.duplicates import Overlap, earlier_equal, overlaps, similar_pairs
from metricanything.curate.histograms import histogram, short
from metricanything.curate.pictures import PICTURE_HEADS, frame_pictures

SIMILAR = 4  # bits of 64 between hashes of images that are shown as alike
_ROWS = 100  # of tables about pairs

Numbers = NDArray[np.int64]


def write_inspection(
    path: str | Path, folders: Sequence[str | Path], *, examples: int = 3, progress: Callable[[], None] = lambda: None
) -> int:
    """Write the report on shard folders as one HTML file; how many frames they hold.

    examples: frames shown of each source and of each reason. progress: called after every frame that was drawn.
    Raises InputError for folders that hold no shards and for damaged frames.
    """
    data = _Data(Collection(folders), examples, progress)
    elements: list[Element] = [
        KeyValues(
            {
                "Frames": data.frames,
                "Kept": data.kept.sum(),
                "Put aside": data.frames - data.kept.sum(),
                "Sources": len(data.sources),
                "Folders": len(data.all.folders),
            }
        ),
        *_contents(data),
        *_distributions(data),
        *_aside(data),
        *_galleries(data),
        *_twice(data),
    ]
    title = ", ".join(folder.resolve().name for folder in data.all.folders)
    write_page(path, f"Training data: {title}", elements, "Counts, distributions, quarantine, duplicates and leaks")
    return data.frames


@dataclass(frozen=True)
class _Data:
    """The columns, with what several sections ask of them."""

    all: Collection
    examples: int
    progress: Callable[[], None]

    @property
    def frames(self) -> int:
        return self.all.frames

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        return np.asarray(self.all["kept"], dtype=bool)

    @cached_property
    def source(self) -> Numbers:
        return self.all.coded("source")[0]

    @cached_property
    def sources(self) -> list[str]:
        return self.all.coded("source")[1]

    @cached_property
    def members(self) -> list[Numbers]:
        """Frame numbers of every source, rising."""
        order = np.argsort(self.source, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.source, minlength=len(self.sources)))[:-1])

    @cached_property
    def by_reason(self) -> dict[str, Numbers]:
        """Frame numbers of every rule that fired, most frequent first."""
        codes, texts = self.all.coded("reasons")
        found: dict[str, list[Numbers]] = {}
        for code, text in enumerate(texts):
            for reason in filter(None, text.split(";")):
                found.setdefault(reason, []).append(np.flatnonzero(codes == code))
        joined = {reason: np.sort(np.concatenate(numbers)) for reason, numbers in found.items()}
        return dict(sorted(((r, n) for r, n in joined.items() if len(n)), key=lambda pair: -len(pair[1])))

    def pictures(self, number: int, note: str) -> tuple[str, list[Any]]:
        """A gallery row: the frame's name and source, a note, and its pictures."""
        frame = self.all.frame(number)
        self.progress()
        folder = f"{self.all.folders[int(self.all.folder_of(np.array([number]))[0])].name}, " * (
            len(self.all.parts) > 1
        )
        return f"{folder}{frame.source}: {frame.name}{' · ' * bool(note)}{note}", list(frame_pictures(frame))


def _contents(data: _Data) -> list[Element]:
    elements: list[Element] = [Section("Contents", "What the shards hold, kept or not.")]
    rows = []
    columns = ("fov", "depth_p05", "depth_p50", "depth_p95", "valid")
    values = {name: data.all[name] for name in columns}
    for name, own in zip(data.sources, data.members, strict=True):
        aside = 1 - data.kept[own].mean() if len(own) else np.nan
        rows.append([name, len(own), 100 * aside, *(_median(values[c][own]) for c in columns)])
    elements.append(
        Table(
            ["source", "frames", "put aside %", "FoV °", "depth 5 %", "depth 50 %", "depth 95 %", "known share"],
            rows,
            "Sources; medians over their frames, depth in metres (in the unit of the source where it has no scale).",
        )
    )
    titles = {"kind": "Kinds", "sensor": "Sensors", "scale": "Scales", "camera_model": "Cameras", "licence": "Terms"}
    for column, title in titles.items():
        codes, texts = data.all.coded(column)
        total = np.bincount(codes, minlength=len(texts))
        kept = np.bincount(codes[data.kept], minlength=len(texts))
        counts = [[text, int(n), int(k)] for text, n, k in zip(texts, total, kept, strict=True) if n]
        elements.append(Table([column.replace("_", " "), "frames", "kept"], counts, f"{title}."))
    return elements


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


# ---------------------------------------------------------------- distributions

_SHOWN = (
    ("fx", "focal length, pixels", True),
    ("fov", "horizontal field of view, degrees", False),
    ("depth_p50", "median depth, metres", True),
    ("depth_p95", "95 % quantile of the depth, metres", True),
    ("valid", "share of the pixels with a depth", False),
    ("q_edge_margin", "agreement of depth and image edges: best score at the place over best elsewhere", False),
    ("q_outliers", "share of measurements that stray from their neighbours", False),
)


def _distributions(data: _Data) -> list[Element]:
    groups = list(zip(data.sources, data.members, strict=True))
    charts = [histogram(data.all[name], groups, label, log=log) for name, label, log in _SHOWN if name in data.all]
    return [Section("Distributions", "Share of the frames of each source."), *(c for c in charts if c is not None)]


# ---------------------------------------------------------------- put aside


def _aside(data: _Data) -> list[Element]:
    elements: list[Element] = [
        Section("Put aside", "Frames that a rule keeps out of training. They stay in the shards, with the reason.")
    ]
    if "q_aspect" not in data.all:
        return [*elements, Text("These shards were written without measuring quality, so that all frames are kept.")]
    rows = [
        [
            reason,
            len(numbers),
            100 * len(numbers) / data.frames,
            ", ".join(f"{short(data.sources[s])} ({n})" for s, n in _most(data.source[numbers])),
        ]
        for reason, numbers in data.by_reason.items()
    ]
    if rows:
        note = "A frame may have several reasons."
        elements.append(Table(["reason", "frames", "%", "most in"], rows, "Reasons.", note=note))
    else:
        elements.append(Text("No rule fired."))
    shifts = []
    for name, own in zip(data.sources, data.members, strict=True):
        across, down = _median(data.all["q_edge_dx"][own]), _median(data.all["q_edge_dy"][own])
        known = int(np.isfinite(data.all["q_edge_dx"][own]).sum())
        shifts.append([name, known, across, down, float(np.hypot(across, down))])
    elements.append(
        Table(
            ["source", "measurable frames", "across", "down", "distance"],
            shifts,
            "Median shift, in pixels, that puts the depth edges of a source onto its image edges.",
            note="Steps of the search are two pixels, of wide images more; of sparse depth only shifts across.",
        )
    )
    return elements


def _most(codes: Numbers, count: int = 3) -> list[tuple[int, int]]:
    found, times = np.unique(codes, return_counts=True)
    return [(int(found[k]), int(times[k])) for k in np.argsort(-times, kind="stable")[:count]]


# ---------------------------------------------------------------- galleries


def _galleries(data: _Data) -> list[Element]:
    elements: list[Element] = [
        Section(
            "Frames",
            "Depth from near (red) to far (blue), white is unknown. In the third picture the edges of the depth lie on "
            "the image: red across rows, green across columns; sparse depth is shown as points.",
        )
    ]
    typical = [n for own in data.members for n in _near_median(data, own)]
    best = [n for own in data.members for n in _best(data, own)]
    kinds = (
        ("Typical frames: of each source those nearest to its median depth and edge agreement.", typical),
        ("Best frames: of each source those whose depth edges fit the image best.", best),
    )
    for caption, numbers in kinds:
        if numbers:
            elements.append(Gallery(PICTURE_HEADS, [data.pictures(n, _facts(data, n)) for n in numbers], caption))
    for reason, own in data.by_reason.items():
        chosen = _spread(own, data.source[own], data.examples)
        rows = [data.pictures(n, _facts(data, n)) for n in chosen]
        elements.append(Gallery(PICTURE_HEADS, rows, f"Put aside: {reason}."))
    return elements


def _near_median(data: _Data, own: Numbers) -> list[int]:
    own = own[data.kept[own]]
    away = np.zeros(len(own))
    for column in ("depth_p50", "q_edge_margin"):
        values = data.all.get(column)
        if values is not None and np.isfinite(values[own]).any():
            ratio = np.abs(np.log(np.maximum(values[own], 1e-6) / max(_median(values[own]), 1e-6)))
            away += np.nan_to_num(ratio / (_median(ratio) + 1e-6), nan=10.0)
    return [int(own[k]) for k in np.argsort(away, kind="stable")[: max(1, data.examples // 3)]]


def _best(data: _Data, own: Numbers) -> list[int]:
    margin = data.all.get("q_edge_margin")
    if margin is None:
        return []
    own = own[data.kept[own] & np.isfinite(margin[own])]
    return [int(own[k]) for k in np.argsort(-margin[own], kind="stable")[: max(1, data.examples // 3)]]


def _spread(numbers: Numbers, groups: Numbers, count: int) -> list[int]:
    """`count` of the numbers, from as many groups as there are, else from the whole length of a group."""
    chosen: list[int] = []
    own = [numbers[groups == g] for g in np.unique(groups)]
    for turn in range(count):
        for members in own:
            place = turn * len(members) // count
            if len(chosen) < count and int(members[place]) not in chosen:
                chosen.append(int(members[place]))
    return chosen


_FACTS = {
    "depth_p50": "median depth {:.3g}",
    "valid": "{:.1%} known",
    "fx": "fx {:.4g} px",
    "q_edge_margin": "edge margin {:.2f}",
    "q_edge_peak": "peak {:.2f}",
    "q_outliers": "outliers {:.1%}",
}


def _facts(data: _Data, number: int) -> str:
    """The main measurements of a frame, and why it was put aside."""
    codes, texts = data.all.coded("reasons")
    facts = [text.format(float(data.all[c][number])) for c, text in _FACTS.items() if c in data.all]
    reasons = texts[int(codes[number])]
    return ", ".join([*([reasons.replace(";", ", ")] if reasons else []), *(f for f in facts if "nan" not in f)])


# ---------------------------------------------------------------- twice


def _twice(data: _Data) -> list[Element]:
    hashes = data.all["hash"]
    elements: list[Element] = [
        Section(
            "Duplicates and leaks",
            f"Images are compared by perceptual hashes of 64 bits; up to {SIMILAR} that differ count as alike. "
            "Neighbours of a slow video are alike too, frames of different sources or folders hardly ever by chance.",
        )
    ]
    if not hashes.any():
        return [*elements, Text("These shards were written without hashes.")]
    equal = int((earlier_equal(hashes) >= 0).sum())
    pairs = similar_pairs(hashes, SIMILAR)
    repeated = np.unique(pairs[:, 1]).size
    depth = int((earlier_equal(data.all["depth_hash"]) >= 0).sum())
    elements.append(
        KeyValues(
            {
                "Images with the hash of an earlier one": equal,
                "Images like an earlier one": repeated,
                "Depth maps equal to an earlier one": depth,
            }
        )
    )
    elements += _overlap(data, hashes, data.source, data.sources, "sources")
    if len(data.all.parts) > 1:
        folders = data.all.folder_of(np.arange(data.frames))
        elements += _overlap(data, hashes, folders, [str(f) for f in data.all.folders], "folders")
    return elements


def _overlap(
    data: _Data, hashes: NDArray[np.uint64], groups: Numbers, names: Sequence[str], what: str
) -> list[Element]:
    found: list[Overlap] = sorted(overlaps(hashes, groups, SIMILAR), key=lambda o: -o.frames)
    if not found:
        return [Text(f"No image occurs in two {what}.")]
    rows = [[names[o.first], names[o.second], o.frames, *map(data.all.name, o.example)] for o in found[:_ROWS]]
    shown = [o for o in found if o.first < o.second][: data.examples]
    pictures = [data.pictures(n, f"shared by {what}") for o in shown for n in o.example]
    head = ["frames of", "that are also in", "frames", "such as", "and"]
    return [
        Table(head, rows, f"Images that occur in two {what}: a leak, if one is for testing."),
        Gallery(PICTURE_HEADS, pictures, f"Examples, two rows each, of images in two {what}."),
    ]
