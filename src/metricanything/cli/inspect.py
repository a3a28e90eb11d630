"""`metricanything inspect`: shards -> one HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metricanything.core.errors import InputError


def inspect(
    shards: tyro.conf.Positional[tuple[Path, ...]],
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    examples: int = 3,
) -> int:
    """Report what shards hold: counts, distributions, frames, what was put aside and why, duplicates and leaks.

    Args:
        shards: Shard folders; given several, the report also says which images they share (a leak between training
            and test data).
        output: The HTML file to write; it needs no other file.
        examples: Frames to show of every reason for which some were put aside.
    """
    from metricanything.cli.console import console, progress_bar
    from metricanything.curate.inspection import write_inspection

    if not shards:
        raise InputError("no shard folder given; make one with `metricanything ingest`")
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{output}: the report is an HTML file; give a name that ends in .html")
    if examples < 1:
        raise InputError(f"--examples must be at least 1, got {examples}")
    with progress_bar() as progress:
        task = progress.add_task("inspect", total=None, unit="frame", detail="")
        frames = write_inspection(output, shards, examples=examples, progress=lambda: progress.advance(task))
    console.print(f"{frames} frames inspected; report: {output}", highlight=False, soft_wrap=True, markup=False)
    return 0
