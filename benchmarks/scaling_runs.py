"""Evaluated training runs -> what `metricanything scaling` fits.

    metricanything evaluate --model RUN/model.safetensors … -o RUN/evaluation     # for every run
    python benchmarks/scaling_runs.py RUNS… -o runs.json
    metricanything scaling runs.json -o scaling --metric ma-lidar-8

RUN is a folder that `metricanything pretrain` wrote. AbsRel over unprompted pixels for each protocol, and their
geometric mean as `all`. Prints the table.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.files import read_json, write_json


def run_of(folder: Path) -> dict[str, Any]:
    """One run as an object of `evaluation.scaling`."""
    run = read_json(folder / "run.json")
    errors = {}
    for result in read_json(folder / "evaluation" / "results.json")["results"]:
        region = result["scores"].get("unprompted", result["scores"]["all"])
        errors[result["record"]["protocol"]["name"]] = region["abs_rel"]
    errors["all"] = float(np.exp(np.mean(np.log(list(errors.values())))))
    return {**run, "name": folder.name, "metrics": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    runs = sorted(map(run_of, arguments.runs), key=lambda run: (run["pairs"], run["seed"]))
    write_json(arguments.output, runs)
    names = list(runs[0]["metrics"])
    print("| pairs | seed | " + " | ".join(names) + " |\n|" + "---|" * (2 + len(names)))
    for run in runs:
        cells = " | ".join(f"{100 * run['metrics'][name]:.2f}" for name in names)
        print(f"| {run['pairs']} | {run['seed']} | {cells} |")


if __name__ == "__main__":
    main()
