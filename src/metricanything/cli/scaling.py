"""`metricanything scaling`: runs of several sizes -> the scaling law, or why there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metricanything.core.errors import InputError


def scaling(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    metric: str = "abs_rel",
    predict: tuple[float, ...] = (),
    replicates: int = 1000,
    seed: int = 0,
) -> int:
    """Fit error = a N^-b + c to runs trained on N pairs, with bootstrap intervals, and say whether the runs support it.

    Args:
        runs: JSON files with {"pairs": N, "parameters": P (optional), "error": e or {metric: value}}, or folders of
            them.
        output: Folder to write scaling.json, scaling.png and scaling.md into.
        metric: Which metric to fit, where a run states several; shares such as delta1 enter as 1 - share.
        predict: Numbers of training pairs to expect the error at.
        replicates: Bootstrap replicates behind every interval.
        seed: Of the bootstrap.
    """
    from rich.markup import escape

    from metricanything.cli.console import console
    from metricanything.evaluation.scaling import fit_scaling, read_runs
    from metricanything.evaluation.scaling_report import verdict, write_scaling

    if not runs:
        raise InputError("give the runs: JSON files, or folders of them")
    found = read_runs(runs, metric)
    fits = fit_scaling(found, predict=predict, replicates=replicates, seed=seed)
    page = write_scaling(output, fits, found, metric)
    for fit in fits:
        console.print(escape(f"{fit.group}: {verdict(fit)}"), highlight=False, soft_wrap=True)
    console.print(escape(f"written to {page}"), highlight=False, soft_wrap=True)
    return 0
