"""`metricanything evaluate`: models measured by named protocols on any data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.evaluation.running import Done, Settings


def evaluate(
    model: tuple[str, ...] = (),
    data: Path | None = None,
    protocol: tuple[str, ...] = (),
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False,
    split: str = "not stated",
    depth_scale: float | None = None,
    fov_x: float | None = None,
    limit: int | None = None,
    workers: int = 1,
    threads: int = 1,
    batch_size: int | None = None,
    max_side: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    fresh: bool = False,
) -> int:
    """Measure models by protocols and write results.json, results.md, plots and report.html.

    Interrupted and started again, it goes on where it was. Every number is written with its full protocol record.

    Args:
        model: Names from `metricanything models`, checkpoints, Hugging Face Hub ids, baseline:NAME, peer:NAME, or
            fitted:MODEL for a model's prompt-free prediction, scaled and shifted to the prompt.
        data: Folder: shards, images with depth maps or mattes, OMNI-DC .npy samples, or rgb/ sparse/ gt/ as in
            Marigold-DC.
        protocol: Names or groups from --list; the group metricanything by default.
        output: Folder to write to.
        show_list: List all protocols and groups, one line each.
        split: Which part of a data set this is, in your words; recorded with every number.
        depth_scale: Stored values per metre of 16-bit PNG depth that does not state it, such as 1000.
        fov_x: Horizontal field of view in degrees of images without a camera (never told to the model).
        limit: The first frames alone.
        workers: Processes; the numbers do not depend on it.
        threads: Threads of each process; other numbers may change last digits, so it is recorded.
        batch_size: Images that go through a network together; by default what suits the model.
        max_side: Longer side of a compact network's input in pixels for 4:3 images, others get as many pixels; by
            default what it was trained for.
        device: cpu, cuda, mps; by default the best at hand.
        dtype: float32, bfloat16, float16.
        fresh: Delete an earlier evaluation in the output folder.
    """
    from metricanything.evaluation.protocols import DEFAULT, find

    if show_list:
        _show()
        return 0
    for value, option in ((model, "--model"), (data, "--data"), (output, "--output")):
        if not value:
            raise InputError(f"no {option} given; metricanything evaluate --model M --data D --protocol P -o OUT")
    for count, option in (
        (workers, "--workers"),
        (threads, "--threads"),
        (batch_size, "--batch-size"),
        (limit, "--limit"),
    ):
        if count is not None and count < 1:
            raise InputError(f"{option} must be at least 1, got {count}")
    assert data is not None and output is not None
    protocols = tuple(find(protocol or (DEFAULT,)))
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file, not a folder; give another --output")
    if fresh:
        _delete(output)

    from metricanything.evaluation.running import Settings

    settings = Settings(
        str(data), tuple(dict.fromkeys(model)), protocols, split, depth_scale, fov_x, device, dtype, max_side,
        batch_size, threads, limit, workers,
    )  # fmt: skip
    return _run(settings, output)


def _run(settings: Settings, output: Path) -> int:
    from rich.markup import escape

    from metricanything.cli.console import console, errors, one_line_warnings, progress_bar
    from metricanything.evaluation import running
    from metricanything.evaluation.page import write_report
    from metricanything.evaluation.summary import exit_code, summarise, write_results

    one_line_warnings()
    with progress_bar() as progress:
        parts = len(settings.models) * len(settings.protocols)
        task = progress.add_task("evaluate", total=None, unit="frame", detail="")
        counts: dict[str, int] = {}

        def advance(what: str, done: int, total: int) -> None:
            counts[what] = done
            progress.update(task, total=parts * total, completed=sum(counts.values()), detail=escape(what))

        done = running.evaluate(settings, output, progress=advance)
        progress.update(task, detail="")
        record = {
            **running.data_of(settings).record(settings.split),
            "depth_scale": settings.depth_scale,
            "fov_x": settings.fov_x,
        }
        results = summarise(done, record, settings.threads)
        write_results(output, results)
        task = progress.add_task("report", total=len(done), unit="part", detail="")
        write_report(output, settings, done, results, lambda n: progress.update(task, completed=n))
    for line in _problems(done):
        errors.print(f"[red]failed[/] {escape(line)}", highlight=False, soft_wrap=True)
    failed = sum(len(result["failed"]) for result in results)
    measured = sum(result["record"]["data"]["measured"] for result in results)
    summary = f"{measured} measurements in {output / 'results.json'}, {failed} failed; report: {output / 'report.html'}"
    console.print(escape(summary), highlight=False, soft_wrap=True)
    return exit_code(results)


def _problems(done: list[Done]) -> list[str]:
    """Failed frames with their reasons, each said once however many protocols it fails in."""
    return list(dict.fromkeys(f"{row['name']}: {row['error']}" for d in done for row in d.rows if "error" in row))


def _delete(output: Path) -> None:
    """An earlier evaluation in the folder; nothing else that lies there."""
    import shutil

    if (output / "settings.json").is_file():
        for folder in ("frames", "plots"):
            shutil.rmtree(output / folder, ignore_errors=True)
        for file in ("settings.json", "results.json", "results.md", "report.html"):
            (output / file).unlink(missing_ok=True)


def _show() -> None:
    from rich.markup import escape

    from metricanything.cli.console import console
    from metricanything.evaluation.protocols import GROUPS, PROTOCOLS

    width = max(map(len, [*PROTOCOLS, *GROUPS]))
    lines = [f"{name.ljust(width)}  {p.summary} ({p.dataset})" for name, p in PROTOCOLS.items()]
    groups = [f"{name.ljust(width)}  {len(members)} protocols" for name, members in GROUPS.items()]
    console.print(escape("\n".join(["Protocols", *lines, "", "Groups", *groups])), highlight=False, soft_wrap=True)
