"""Is a bundled model good enough? Its errors beside the best baseline's, by prompt pattern and by source.

    metricanything evaluate --model MODEL baseline:nearest baseline:linear baseline:idw --data VALIDATION --fov-x 60 \\
        --protocol metricanything -o RESULTS
    python benchmarks/targets.py prompted RESULTS…
    metricanything evaluate --model MODEL --data VALIDATION --fov-x 60 --protocol ma-image ma-image-scaled -o RESULTS
    python benchmarks/targets.py alone RESULTS… --train TRAIN --validation VALIDATION

AbsRel over measured, unprompted pixels, mean over the frames of a source, then over sources. `prompted`: against the
best of the baselines, and the worst source. `alone`: against one depth for everything and one depth for each row, both
fitted to the frames in TRAIN (the value of least AbsRel), by kind of source; scaled: after medians are made equal.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything import sources
from metricanything.core.files import read_json

ROWS = 24
BySource = dict[str, float]


def errors(folders: list[Path]) -> dict[tuple[str, str], BySource]:
    """AbsRel by source, for each protocol and model."""
    found = {}
    for result in (result for folder in folders for result in read_json(folder / "results.json")["results"]):
        record = result["record"]
        regions = {s: r.get("unprompted", r["all"]) for s, r in result["by_source"].items()}
        found[record["protocol"]["name"], record["model"]["name"]] = {s: r["abs_rel"] for s, r in regions.items()}
    return found


def mean(values: BySource) -> float:
    """Over sources."""
    return float(np.mean(list(values.values())))


def prompted(folders: list[Path]) -> None:
    """A row for each protocol and model."""
    found = errors(folders)
    models = [m for m in dict.fromkeys(m for _, m in found) if not m.startswith("baseline:")]
    print("| pattern | model | AbsRel % | best baseline % | ratio | worst source, ratio to its best baseline |")
    print("|---|---|---|---|---|---|")
    for protocol in dict.fromkeys(p for p, _ in found):
        baselines = [values for (p, m), values in found.items() if p == protocol and m.startswith("baseline:")]
        best = min(map(mean, baselines))
        for model in models:
            own = found[protocol, model]
            ratios = {source: value / min(b[source] for b in baselines) for source, value in own.items()}
            worst = max(ratios, key=lambda source: ratios[source])
            print(
                f"| {protocol} | {model} | {100 * mean(own):.2f} | {100 * best:.2f} | {mean(own) / best:.3f} "
                f"| {ratios[worst]:.2f} {worst} |"
            )


def least_abs_rel(depth: NDArray) -> float:
    """The constant c of least mean |c - d| / d: the median weighted by 1 / d."""
    order = np.sort(depth)
    weight = np.cumsum(1 / order)
    return float(order[np.searchsorted(weight, weight[-1] / 2)])


def rows_of(depth: NDArray) -> NDArray[np.intp]:
    """Which of ROWS bands each pixel lies in."""
    band = np.arange(depth.shape[0]) * ROWS // depth.shape[0]
    return np.broadcast_to(band[:, None], depth.shape)


def fitted(train: Path) -> tuple[float, NDArray]:
    """One depth for everything and one for each band, of least AbsRel over all frames, each with the same weight."""
    values, bands = [], []
    rng = np.random.default_rng(0)
    for frame in sources.read("folder", train):
        place = np.flatnonzero(np.isfinite(frame.depth))
        place = rng.choice(place, min(500, len(place)), replace=False)
        values.append(frame.depth.ravel()[place])
        bands.append(rows_of(frame.depth).ravel()[place])
    value, band = np.concatenate(values), np.concatenate(bands)
    return least_abs_rel(value), np.array([least_abs_rel(value[band == i]) for i in range(ROWS)])


def alone(folders: list[Path], train: Path, validation: Path) -> None:
    """A row for each kind of source, aligned or not."""
    constant, by_row = fitted(train)
    simple: dict[str, dict[str, list[float]]] = {}
    kinds: dict[str, str] = {}
    for frame in sources.read("folder", validation, fov_x=60):
        known = np.isfinite(frame.depth) & (frame.depth > 1e-2) & (frame.depth <= 100)
        truth, rows = frame.depth[known], by_row[rows_of(frame.depth)[known]]
        scaled = rows * np.median(truth) / np.median(rows)
        guesses = {
            "ma-image": (np.full_like(truth, constant), rows),
            "ma-image-only": (np.full_like(truth, constant), rows),
            "ma-image-scaled": (np.full_like(truth, np.median(truth)), scaled),
        }
        kinds[frame.source] = frame.sensor
        for protocol, pair in guesses.items():
            for name, guess in zip(("constant", "row"), pair, strict=True):
                error = float(np.mean(np.abs(guess - truth) / truth))
                simple.setdefault(f"{protocol} {name}", {}).setdefault(frame.source, []).append(error)
    print(f"constant: {constant:.2f} m; by row from {by_row[0]:.2f} m at the top to {by_row[-1]:.2f} m at the bottom\n")
    print("| protocol | kind | model | AbsRel % | constant % | by row % | better than the better one by |")
    print("|---|---|---|---|---|---|---|")
    for (protocol, model), own in errors(folders).items():
        for kind in (*sorted(set(kinds.values())), "all"):
            of_kind = [s for s in own if kind in (kinds[s], "all")]
            row: dict[str, Any] = {"own": np.mean([own[s] for s in of_kind])}
            for name in ("constant", "row"):
                row[name] = np.mean([np.mean(simple[f"{protocol} {name}"][s]) for s in of_kind])
            gain = 1 - row["own"] / min(row["constant"], row["row"])
            cells = " | ".join(f"{100 * row[k]:.1f}" for k in ("own", "constant", "row"))
            print(f"| {protocol} | {kind} | {model} | {cells} | {100 * gain:.0f} % |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prompted", "alone"))
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--validation", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "prompted":
        prompted(arguments.results)
    else:
        alone(arguments.results, arguments.train, arguments.validation)


if __name__ == "__main__":
    main()
