"""The report of an evaluation as one HTML page: tables, histograms, and the best, median and worst frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metricanything.core.codecs import write_image
from metricanything.core.errors import InputError
from metricanything.core.report import Element, Figure, Gallery, KeyValues, Section, Table, Text, write_page
from metricanything.evaluation.measuring import ALL, UNPROMPTED, answers, make_case, prepared_depth
from metricanything.evaluation.pictures import PICTURE_HEADS, error_scale, frame_pictures, histogram, side_by_side
from metricanything.evaluation.running import Done, Row, Settings, data_of, slug, subject_of
from metricanything.evaluation.scores import SCORES
from metricanything.evaluation.summary import RANK_NOTE, REGION_TITLES, by_protocol, facts_of, mean_ranks, title_of

_RANKS = ("best", "median", "worst")


def write_report(
    output: Path,
    settings: Settings,
    done: Sequence[Done],
    results: Sequence[dict[str, Any]],
    progress: Callable[[int], None] = lambda drawn: None,
) -> None:
    """Write `report.html` and `plots/PROTOCOL.png` into a folder; the shown frames are predicted once more.

    progress: called with the number of results whose frames are drawn.
    """
    data = results[0]["record"]["data"]
    elements: list[Element] = [
        KeyValues(
            {
                "Data": data["name"],
                "Split": data["split"],
                "Frames": data["frames"],
                "Models": len({d.model["name"] for d in done}),
                "Protocols": len({d.protocol.name for d in done}),
                "Code": f"metricanything {results[0]['record']['code_version']}",
            }
        ),
        _models(done),
        *_overview(output, results),
    ]
    drawn = 0
    for name, group in by_protocol(results).items():
        own = [d for d in done if d.protocol.name == name]
        elements += [*_tables(name, group), *_plot(output, own)]
        rows = []
        for d in own:
            rows += _shown(settings, d)
            drawn += 1
            progress(drawn)
        if rows:
            elements.append(
                Gallery(PICTURE_HEADS, rows, f"Best, median and worst frame by {_ranking(own[0])}. Depth from near "
                        "(red) to far (blue), one scale per row; white is not measured. Sparse ground truth is shown "
                        "by blocks, errors by the largest in each.", error_scale())
            )  # fmt: skip
        elements += _failed(group)
    write_page(output / "report.html", f"Evaluation on {data['name']}", elements, f"Split: {data['split']}")


def _models(done: Sequence[Done]) -> Table:
    seen = {d.model["name"]: d.model for d in done}
    rows = [[name, m["what"], (m["sha256"] or "no weights")[:12], m["batch_size"]] for name, m in seen.items()]
    return Table(["model", "what", "weights (SHA-256, beginning)", "batch"], rows, "Models.")


def _overview(output: Path, results: Sequence[dict[str, Any]]) -> list[Element]:
    """The first metric of every protocol by model, where there are several protocols, as table, plots and mean rank."""
    groups = by_protocol(results)
    if len(groups) < 2:
        return []
    models = list(dict.fromkeys(result["record"]["model"]["name"] for result in results))
    rows = []
    for name, group in groups.items():
        metric = group[0]["record"]["protocol"]["metrics"][0]
        region = UNPROMPTED if UNPROMPTED in group[0]["scores"] else ALL
        values = {r["record"]["model"]["name"]: r["scores"].get(region, {}).get(metric) for r in group}
        rows.append([name, metric, *(values.get(model) for model in models)])
    better: dict[str, Any] = {row[0]: SCORES[row[1]].better for row in rows}
    note = "Without prompted pixels, where there is a prompt."
    elements: list[Element] = [
        Section("Overview"),
        Table(["protocol", "metric", *models], rows, "First metric of each.", better, "row", note),
    ]
    for metric in dict.fromkeys(row[1] for row in rows):
        values = {
            row[0]: {m: v for m, v in zip(models, row[2:], strict=True) if v is not None}
            for row in rows
            if row[1] == metric
        }
        if len(values) > 1 and any(values.values()):
            picture = side_by_side(values, title_of(metric)[:-2])
            write_image(output / "plots" / f"overview-{metric}.png", picture)
            elements.append(Figure(picture, f"{metric} by protocol.", lossless=True))
    if ranks := mean_ranks(results):
        heads = ["model", "by first metric", "by all metrics", "protocols"]
        lower: dict[str, Any] = dict.fromkeys(heads[1:3], "lower")
        elements.append(Table(heads, [list(row) for row in ranks], "Mean rank.", lower, note=RANK_NOTE))
    return elements


def _tables(name: str, group: Sequence[dict[str, Any]]) -> list[Element]:
    protocol = group[0]["record"]["protocol"]
    elements: list[Element] = [Section(name, f"{protocol['summary']}."), KeyValues(facts_of(protocol))]
    heads = {metric: title_of(metric)[:-2] for metric in protocol["metrics"]}
    better: dict[str, Any] = {head: SCORES[metric].better for metric, head in heads.items()}
    for region, title in REGION_TITLES.items():
        rows = [
            [r["record"]["model"]["name"], *(r["scores"][region][m] for m in heads), r["scores"][region]["frames"]]
            for r in group
            if region in r["scores"]
        ]
        if rows:
            elements.append(Table(["model", *heads.values(), "frames"], rows, f"{name}, {title}.", better))
    return [*elements, *_by_source(name, group)]


def _by_source(name: str, group: Sequence[dict[str, Any]]) -> list[Element]:
    """The first metric by source, where the data is of several."""
    sources = list(dict.fromkeys(source for result in group for source in result["by_source"]))
    if len(sources) < 2:
        return []
    metric = group[0]["record"]["protocol"]["metrics"][0]
    models = [result["record"]["model"]["name"] for result in group]

    def value(result: dict[str, Any], source: str, key: str) -> Any:
        regions = result["by_source"].get(source, {})
        return regions.get(UNPROMPTED, regions.get(ALL, {})).get(key)

    rows = [[s, max(value(r, s, "frames") or 0 for r in group), *(value(r, s, metric) for r in group)] for s in sources]
    better: dict[str, Any] = dict.fromkeys(sources, SCORES[metric].better)
    note = "Without prompted pixels, where there is a prompt."
    # The numbers of frames are not compared with errors.
    rows = [[row[0], f"{row[1]}", *row[2:]] for row in rows]
    return [Table(["source", "frames", *models], rows, f"{name}, {title_of(metric)} by source.", better, "row", note)]


def _ranking(done: Done) -> str:
    return done.protocol.metrics[0]


def _region(row: Row) -> dict[str, Any]:
    regions: dict[str, Any] = row["regions"]
    entry = regions.get(UNPROMPTED, regions[ALL])
    return dict(entry if entry["pixels"] else regions[ALL])


def _valued(done: Done) -> list[tuple[float, Row]]:
    """The frames that have a number in the ranking metric, with it."""
    rows = [row for row in done.rows if "error" not in row]
    values = [_region(row)["values"][_ranking(done)] for row in rows]
    return [(value, row) for value, row in zip(values, rows, strict=True) if value is not None]


def _plot(output: Path, own: Sequence[Done]) -> list[Element]:
    metric, protocol = _ranking(own[0]), own[0].protocol.name
    series = {
        d.model["name"]: [
            v for row in d.rows if "error" not in row and (v := _region(row)["values"][metric]) is not None
        ]
        for d in own
    }
    if not any(series.values()):
        return []
    picture = histogram(series, title_of(metric)[:-2], protocol)
    write_image(output / "plots" / f"{slug(protocol)}.png", picture)
    return [Figure(picture, f"{protocol}: frames by {metric}.", lossless=True)]


def _shown(settings: Settings, done: Done) -> list[tuple[str, list[Figure | None]]]:
    """Gallery rows of the best, median and worst frame; of fewer than three frames, those that there are."""
    metric = _ranking(done)
    if not SCORES[metric].depth:
        return []
    ranked = _valued(done)
    ranked.sort(key=lambda pair: (pair[0] if SCORES[metric].better == "lower" else -pair[0], pair[1]["frame"]))
    if not ranked:
        return []
    places = dict(zip((0, len(ranked) // 2, len(ranked) - 1), _RANKS, strict=True))
    subject, data = subject_of(settings, done.model_name), data_of(settings)
    rows: list[tuple[str, list[Figure | None]]] = []
    for place, rank in places.items():
        value, row = ranked[place]
        case = make_case(done.protocol, data.load(row["frame"]))
        answer = answers(subject, [case])[0]
        if isinstance(answer, InputError):
            raise answer  # it was measured a moment ago
        pred = prepared_depth(done.protocol, case, answer)
        figures: list[Figure | None] = [*frame_pictures(case, pred, f"{metric} {value:.4g}")]
        rows.append((f"{done.model['name']}, {rank}: {row['name']}", figures))
    return rows


def _failed(group: Sequence[dict[str, Any]]) -> list[Element]:
    missing = {name: why for result in group for name, why in result["not_measured"].items()}
    elements: list[Element] = [Text(f"{name} has no number: {why}.") for name, why in missing.items()]
    reasons = {name: reason for result in group for name, reason in result["failed"].items()}
    if not reasons:
        return elements
    rows = [[name, reason] for name, reason in reasons.items()]
    return [
        *elements,
        Text(f"{len(reasons)} frames could not be measured and are in no number above."),
        Table(["frame", "reason"], rows, "Frames that failed."),
    ]
