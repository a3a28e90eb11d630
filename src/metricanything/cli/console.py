"""What the verbs print with: one console, progress bars with rates and remaining time, one-line warnings."""

from __future__ import annotations

import warnings

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console()
errors = Console(stderr=True)


class RateColumn(ProgressColumn):
    """Items per second, or seconds per item when that is longer."""

    def render(self, task: Task) -> Text:
        """Rate of a task as text."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        unit = task.fields.get("unit", "it")
        return Text(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s/{unit}")


def progress_bar() -> Progress:
    """A progress display; tasks take a `unit` field and a `detail` field."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[detail]}"),
        console=console,
    )


def one_line_warnings() -> None:
    """Print warnings as `warning: message`, each once."""
    said: set[str] = set()  # Python's own record of them is cleared by every `warnings.catch_warnings`

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) in said:
            return
        said.add(str(message))
        errors.print(f"[yellow]warning:[/] {escape(str(message))}", highlight=False, soft_wrap=True)

    warnings.showwarning = show
    warnings.simplefilter("once", UserWarning)
