"""From rows of frames to results: averages with their full record, as JSON and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metricanything import __version__
from metricanything.core.files import write_json, write_text
from metricanything.evaluation.measuring import ALL, INTERNAL, UNPROMPTED
from metricanything.evaluation.protocol import Protocol
from metricanything.evaluation.running import Done, Row
from metricanything.evaluation.scores import SCORES, pool

REGION_TITLES = {ALL: "all measured pixels", UNPROMPTED: "without prompted pixels"}


def average(protocol: Protocol, rows: Sequence[Row], region: str) -> dict[str, Any]:
    """Frames, pixels and every metric of these rows in a region; None where no frame has a number.

    Per image: the mean over the frames that have one. Pooled: over all their pixels.
    """
    entries = [row["regions"][region] for row in rows if region in row.get("regions", {})]
    result: dict[str, Any] = {
        "frames": sum(1 for entry in entries if entry["pixels"] or region == ALL),
        "pixels": sum(entry["pixels"] for entry in entries),
    }
    for name in protocol.metrics:
        known = [entry for entry in entries if entry["values"][name] is not None]
        if not known:
            result[name] = None
        elif protocol.averaging == "pooled":
            terms = [tuple(entry["terms"][name]) for entry in known]
            result[name] = pool(name, terms, [entry["pixels"] for entry in known])
        else:
            result[name] = math.fsum(entry["values"][name] for entry in known) / len(known)
    return result


def summarise(done: Sequence[Done], data: dict[str, Any], threads: int) -> list[dict[str, Any]]:
    """One result for each model and protocol: `record` (everything that its numbers depend on), `scores` by region,
    `by_source`, `mean_over_sources`, metrics `not_measured` and `failed` frames by name with the reason."""
    return [_result(d, data, threads) for d in done]


def _result(done: Done, data: dict[str, Any], threads: int) -> dict[str, Any]:
    rows = [row for row in done.rows if "error" not in row]
    failed = {row["name"]: row["error"] for row in done.rows if "error" in row}
    names = [region for region in REGION_TITLES if any(region in row["regions"] for row in rows)]
    sources = sorted({row["source"] for row in rows})
    by_source = {
        source: {r: average(done.protocol, [row for row in rows if row["source"] == source], r) for r in names}
        for source in sources
    }
    return {
        "record": {
            "model": done.model,
            "code_version": __version__,
            "data": {**data, "measured": len(rows), "failed": len(failed)},
            "protocol": done.protocol.record(),
            "camera_given": f"{sum(row['camera_given'] for row in rows)} of {len(rows)} frames",
            "threads": threads,
        },
        "scores": {region: average(done.protocol, rows, region) for region in names},
        "by_source": by_source,
        "mean_over_sources": {r: _mean_of(done.protocol, [by_source[s][r] for s in sources]) for r in names},
        "not_measured": _not_measured(rows),
        "failed": failed,
    }


def _not_measured(rows: Sequence[Row]) -> dict[str, str]:
    """Metrics that frames lack something for, with what, and how many frames."""
    reasons = [(name, reason) for row in rows for name, reason in row.get("not_measured", {}).items()]
    return {name: f"{reason} ({reasons.count((name, reason))} of {len(rows)} frames)" for name, reason in reasons}


def _mean_of(protocol: Protocol, averages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"sources": len(averages)}
    for name in protocol.metrics:
        known = [a[name] for a in averages if a[name] is not None]
        result[name] = math.fsum(known) / len(known) if known else None
    return result


def exit_code(results: Sequence[dict[str, Any]]) -> int:
    """0 when every frame was measured, 1 when one failed for a reason of ours, else 2."""
    failed = [reason for result in results for reason in result["failed"].values()]
    return 1 if any(r.startswith(INTERNAL) for r in failed) else 2 if failed else 0


def write_results(output: Path, results: Sequence[dict[str, Any]]) -> None:
    """`results.json` and `results.md` in a folder."""
    write_json(output / "results.json", {"version": 1, "results": list(results)})
    write_text(output / "results.md", markdown(results))


# ---------------------------------------------------------------- Markdown


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Tables of every protocol: a row for each model, for each region a table; best numbers in bold."""
    if not results:
        return "No results.\n"
    data = results[0]["record"]["data"]
    parts = [
        f"# Evaluation on {data['name']}",
        f"Split: {data['split']}. Format: {data['format']}. Frames: {data['frames']}. "
        f"metricanything {results[0]['record']['code_version']}. Every number's full record is in `results.json`.",
    ]
    if ranks := mean_ranks(results):
        parts.append(f"## Mean rank\n\n{RANK_NOTE}\n\n{_rank_table(ranks)}")
    for protocol, group in by_protocol(results).items():
        parts += [f"## {protocol}", _facts(group[0]["record"]["protocol"])]
        for region, title in REGION_TITLES.items():
            if any(region in result["scores"] for result in group):
                parts.append(f"{title[0].upper()}{title[1:]}:\n\n{_table(group, region)}")
        parts += _failures(group)
    return "\n\n".join(parts) + "\n"


def by_protocol(results: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results by the name of their protocol, in order."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(result["record"]["protocol"]["name"], []).append(result)
    return groups


RANK_NOTE = (
    "1 is best, equal numbers share the mean of their places; over the protocols that measured every model on the same "
    "number of frames, without prompted pixels where there is a prompt. By first metric, as Depth Pro ranks; by all "
    "metrics, as mean over a protocol's metrics except coverage, then over protocols."
)


def mean_ranks(results: Sequence[dict[str, Any]]) -> list[tuple[str, float, float, int]]:
    """Model, mean rank by the first metric, mean rank by all metrics, and number of protocols; best first.

    Empty for one model, and where no protocol measured all of them (see `RANK_NOTE`).
    """
    models = list(dict.fromkeys(result["record"]["model"]["name"] for result in results))
    first, every = [], []
    for group in by_protocol(results).values():
        region = UNPROMPTED if UNPROMPTED in group[0]["scores"] else ALL
        scores = {r["record"]["model"]["name"]: r["scores"].get(region, {}) for r in group}
        if len(models) < 2 or set(scores) != set(models) or len({s.get("frames", 0) for s in scores.values()}) > 1:
            continue
        metrics = [m for m in group[0]["record"]["protocol"]["metrics"] if m != "coverage"]
        ranks = [_ranks([scores[model].get(m) for model in models], m) for m in metrics]
        if ranks and ranks[0] is not None:
            known = [r for r in ranks if r is not None]
            first.append(ranks[0])
            every.append([math.fsum(place) / len(known) for place in zip(*known, strict=True)])
    if not first:
        return []
    means = [[math.fsum(place) / len(rows) for place in zip(*rows, strict=True)] for rows in (first, every)]
    return sorted(zip(models, *means, [len(first)] * len(models), strict=True), key=lambda row: row[1:3])


def _ranks(values: Sequence[float | None], metric: str) -> list[float] | None:
    """Places from 1 of one metric, or None where a model has no number."""
    known = [v if SCORES[metric].better == "lower" else -v for v in values if v is not None]
    if len(known) < len(values):
        return None
    return [sum(other < v for other in known) + (known.count(v) + 1) / 2 for v in known]


def _rank_table(ranks: Sequence[tuple[str, float, float, int]]) -> str:
    lines = ["| model | by first metric | by all metrics | protocols |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {m} | {one:.2f} | {every:.2f} | {n} |" for m, one, every, n in ranks)])


def title_of(metric: str) -> str:
    """A metric's column head, with its unit and direction."""
    score = SCORES[metric]
    return f"{metric}{f' [{score.unit}]' if score.unit else ''} {'↑' if score.better == 'higher' else '↓'}"


def facts_of(protocol: dict[str, Any]) -> dict[str, str]:
    """What a reader of a table has to know of its protocol, by heading."""
    low, high = protocol["depth_range"]
    facts = {
        "Source": protocol["source"],
        "Prompt": " with ".join(protocol["prompt"]) + (f", seed {protocol['seed']}" if _drawn(protocol) else ""),
        "Camera": "given where the data states it" if protocol["intrinsics"] else "not given",
        "Depth": f"{low:g} m to {'any' if high is None else f'{high:g} m'}"
        + (", predictions clamped" if protocol["clamp"] else ""),
        "Crop": protocol["crop"]["name"],
        "Alignment": protocol["alignment"],
        "Averaging": protocol["averaging"].replace("_", " "),
    }
    if protocol["size"] or protocol["input_crop"]["unit"] != "all":
        size = " x ".join(map(str, protocol["size"])) if protocol["size"] else "unchanged"
        turned = ", turned to a centred principal point" if protocol["view"] == "centred" else ""
        facts["Input"] = f"size (height x width) {size}{turned}, crop {protocol['input_crop']['name']}"
    if protocol["not_measured"]:
        facts["Not measured"] = ", ".join(protocol["not_measured"])
    if protocol["unknown"]:
        facts["Not known of the original"] = protocol["unknown"]
    return facts


def _drawn(protocol: dict[str, Any]) -> bool:
    return not set(protocol["prompt"]) <= {"none", "given"}


def _facts(protocol: dict[str, Any]) -> str:
    return f"{protocol['summary']}. " + ". ".join(f"{k}: {v}" for k, v in facts_of(protocol).items()) + "."


def _table(group: Sequence[dict[str, Any]], region: str) -> str:
    metrics = list(group[0]["record"]["protocol"]["metrics"])
    rows = [(result["record"]["model"]["name"], result["scores"].get(region, {})) for result in group]
    best = {name: _best([scores.get(name) for _, scores in rows], name) for name in metrics}
    lines = [
        "| model | " + " | ".join(map(title_of, metrics)) + " | frames |",
        "|---|" + "---|" * (len(metrics) + 1),
    ]
    for model, scores in rows:
        cells = [_cell(scores.get(name), best[name]) for name in metrics]
        lines.append(f"| {model} | " + " | ".join(cells) + f" | {scores.get('frames', 0)} |")
    return "\n".join(lines)


def _best(values: Sequence[float | None], metric: str) -> float | None:
    known = [v for v in values if v is not None]
    if len(known) < 2 or len(set(known)) < 2:
        return None
    return max(known) if SCORES[metric].better == "higher" else min(known)


def _cell(value: float | None, best: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}"
    return f"**{text}**" if value == best else text


def _failures(group: Sequence[dict[str, Any]]) -> list[str]:
    """The failed frames, with the models that they failed for where that is not every one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for result in group:
        for name, reason in result["failed"].items():
            reasons.setdefault((name, reason), []).append(result["record"]["model"]["name"])
    lines = [
        f"- {name}: {reason}" + ("" if len(models) == len(group) else f" ({', '.join(models)})")
        for (name, reason), models in reasons.items()
    ]
    missing = dict.fromkeys(f"- {m}: {why}" for result in group for m, why in result["not_measured"].items())
    parts = ["Metrics without a number:\n\n" + "\n".join(missing)] if missing else []
    return parts + ([f"Not measured, {len(lines)}:\n\n" + "\n".join(lines)] if lines else [])
