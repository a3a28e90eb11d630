"""`metricanything quickstart`: the whole method, small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import tyro

from metricanything.quickstart import Bar, Settings, run


def quickstart(
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/quickstart"),
    settings: tyro.conf.OmitArgPrefixes[Settings] = Settings(),  # noqa: B008
    fresh: bool = False,
) -> int:
    """Aggregate real and rendered frames, pretrain a teacher, distil two students, predict, and write a report.

    Takes a few minutes on two CPU cores and needs no network. Interrupted and started again, it goes on where it was.

    Args:
        output: Folder of the run.
        settings: How big the run is.
        fresh: Delete an earlier run in the folder and start again.
    """
    from metricanything.cli.console import console, one_line_warnings, progress_bar

    one_line_warnings()
    with progress_bar() as progress:

        @contextmanager
        def open_bar(description: str, total: int | None, unit: str) -> Iterator[Bar]:
            task = progress.add_task(description, total=total, unit=unit, detail="")

            def update(done: int, detail: str = "", total: int | None = None) -> None:
                if total is not None:
                    progress.update(task, total=total)
                progress.update(task, completed=done, detail=detail)

            yield update
            progress.update(task, detail="")

        done_before = (output / "report.html").exists() and not fresh
        finished = run(output, settings, open_bar, fresh=fresh)
    if done_before:
        console.print("this run was finished already; add --fresh to do it again", highlight=False)
    console.print(f"report: {finished.report.resolve()}", highlight=False, soft_wrap=True)
    console.print(f"models: {finished.model('compact-teacher').parent.resolve()}", highlight=False, soft_wrap=True)
    return 0
