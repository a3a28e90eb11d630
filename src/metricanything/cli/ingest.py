"""`metricanything ingest`: raw data of one format -> training shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def ingest(
    kind: tyro.conf.Positional[str] = "",
    path: tyro.conf.Positional[Path | None] = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    count: int = 1000,
    seed: int = 0,
) -> int:
    """Read the raw data at a path and write it as shards; without arguments, list the formats.

    Args:
        kind: The format, such as colmap, tum, kitti_raw, folder or procedural.
        path: The folder of the data (none for procedural).
        output: Folder of the shards; must not hold any yet.
        count: Number of procedural scenes.
        seed: Seed of procedural scenes.
    """
    from metricanything.cli.console import console, errors, progress_bar
    from metricanything.core.errors import InputError
    from metricanything.curate.shards import INDEX, write_shards
    from metricanything.sources import READERS, read

    if not kind:
        for reader in READERS.values():
            console.print(f"[bold]{reader.name}[/]  {reader.description}", highlight=False, soft_wrap=True)
            console.print(f"    format: {reader.url}\n    terms: {reader.licence}", highlight=False, soft_wrap=True)
        return 0
    if output is None:
        raise InputError("no --output folder given; add -o SHARDS")
    if (output / INDEX).exists():
        raise InputError(f"{output}: holds shards already; give another --output or delete it")
    problems: list[str] = []

    def report(problem: str) -> None:
        problems.append(problem)
        errors.print(f"[red]skipped[/] {problem}", highlight=False, soft_wrap=True)

    options = {"count": count, "seed": seed} if kind == "procedural" else {}
    with progress_bar() as progress:
        task = progress.add_task(
            f"ingest {kind}", total=count if kind == "procedural" else None, unit="frame", detail=""
        )
        frames = read(kind, path, on_error=report, **options)
        written = write_shards(frames, output, progress=lambda frame: progress.advance(task))
    console.print(f"{written} frames written to {output}, {len(problems)} skipped", highlight=False, soft_wrap=True)
    return 2 if problems else 0
