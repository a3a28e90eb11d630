"""Put a trained compact model into the package: half-precision weights, and its measured numbers into its card.

    python scripts/bundle_weights.py CHECKPOINT RESULTS…

CHECKPOINT is what `metricanything pretrain` or `distill` wrote, RESULTS are folders of `metricanything evaluate` for
this checkpoint and, for the teacher, the prompt-only baselines. Writes weights/NAME.safetensors, and the table between
the two marks of weights/NAME.md, whose words are written by hand. Afterwards `python tests/test_golden_evaluation.py`
writes the numbers that guard it.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np

from metricanything.core.files import read_json, write_text
from metricanything.models.checkpoint import load_model, save_model

TERMS = "non-commercial research alone: trained on NYU Depth v2 and 7-Scenes; the code is Apache-2.0"
MOST_BYTES = 16e6
START, END = "<!-- numbers: written by scripts/bundle_weights.py -->", "<!-- end of numbers -->"


def numbers(folders: list[Path]) -> tuple[dict[str, float], str]:
    """AbsRel of the model by protocol, and a table with the best of the baselines beside it; mean over sources."""
    own: dict[str, float] = {}
    best: dict[str, tuple[float, str]] = {}
    for result in (r for folder in folders for r in read_json(folder / "results.json")["results"]):
        protocol, name = result["record"]["protocol"]["name"], result["record"]["model"]["name"]
        regions = result["mean_over_sources"]
        error = regions.get("unprompted", regions["all"])["abs_rel"]
        if not name.startswith("baseline:"):
            own[protocol] = float(f"{error:.4g}")
        elif error < best.get(protocol, (np.inf, ""))[0]:
            best[protocol] = error, name.removeprefix("baseline:")
    rows = ["| protocol | AbsRel % | best interpolation % | ratio |", "|---|---|---|---|"]
    for protocol, error in own.items():
        other, name = best.get(protocol, (np.nan, ""))
        beside = f"{100 * other:.2f} ({name}) | {error / other:.2f}" if name else "– | –"
        rows.append(f"| `{protocol}` | {100 * error:.2f} | {beside} |")
    return own, "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    arguments = parser.parse_args()
    network, spec, description = load_model(arguments.checkpoint)
    found, table = numbers(arguments.results)
    path = spec.weights_path()
    path.parent.mkdir(exist_ok=True)
    save_model(path, network.half(), spec.name, {**description["record"], "licence": TERMS, "abs_rel": found})
    if (size := path.stat().st_size) > MOST_BYTES:
        raise SystemExit(f"{path}: {size / 1e6:.1f} MB is more than {MOST_BYTES / 1e6:.0f}")
    card = path.with_suffix(".md")
    marked = re.compile(f"{re.escape(START)}.*?{re.escape(END)}", re.DOTALL)
    write_text(card, marked.sub(lambda _: f"{START}\n\n{table}\n\n{END}", card.read_text(encoding="utf-8")))
    print(f"{path}: {size / 1e6:.1f} MB\n{table}")


if __name__ == "__main__":
    main()
