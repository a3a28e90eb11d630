"""`metricanything ingest`: raw data of one format -> training shards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from metricanything.sources import Option, Reader

#: What the text of an option can state.
_TEXT_TYPES = (float, int, bool, str, Path, type(None))
_PREVIEWED = 8  # frames on a contact sheet


def ingest(
    kind: tyro.conf.Positional[str] = "",
    path: tyro.conf.Positional[Path | None] = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    option: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = (),
    workers: int | None = None,
    ray: str | None = None,
    frames_per_shard: int = 256,
    image: Literal["jpg", "png"] = "jpg",
    depth: Literal["png", "exr"] = "png",
    preview: Path | None = None,
    limit: int | None = None,
    list_formats: Annotated[bool, tyro.conf.arg(name="list")] = False,
) -> int:
    """Read the raw data at a path and write it as shards; without arguments, list the formats with their options.

    Interrupted, the same command goes on where it was.

    Args:
        kind: The format, such as colmap, tum, kitti_raw, folder or procedural.
        path: The folder of the data (none for procedural).
        output: Folder of the shards; must not hold any yet, unless this command was interrupted.
        option: An option of the format, such as depth_scale=1000 for a folder or count=100 for procedural; one
            --option for each.
        workers: Processes to use (default: one for every core).
        ray: Address of a Ray cluster that does the work instead, such as auto or ray://HOST:10001; its machines must
            see the same paths.
        frames_per_shard: Items of the data in each tar file.
        image: How images are stored: jpg (quality 95) or png (exact).
        depth: How depth is stored: png (16-bit, logarithmic) or exr (exact).
        preview: A picture to write first: some frames with image, depth, and depth over the image, to see whether
            calibration and scale are right. Without --output it is all that is done.
        limit: Read only the first so many items.
        list_formats: List the formats with their options.
    """
    from metricanything.cli.console import console, progress_bar
    from metricanything.curate.codec import Encoding
    from metricanything.curate.plan import make_plan
    from metricanything.curate.quality import measure
    from metricanything.curate.rules import decide
    from metricanything.curate.running import run_plan
    from metricanything.curate.writing import Curation
    from metricanything.sources import READERS, open_items

    if list_formats or not kind:
        _list_formats()
        return 0
    known = _options(READERS[kind]) if kind in READERS else {}
    options = dict(_parse(text, known) for text in option)
    if limit is not None:
        options["limit"] = limit
    if kind not in READERS:
        open_items(kind, path)  # says so, and what the folder looks like
    skipped = _write_preview(kind, path, preview, options) if preview is not None else 0
    if output is None and preview is not None:
        return 2 if skipped else 0
    if output is None:
        raise InputError("no --output folder given; add -o SHARDS (or --preview OUT.png for a first look)")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file, not a folder; give another --output")
    if workers is not None and ray is not None:
        raise InputError("--workers and --ray were both given; a Ray cluster has its own number of workers")
    plan = make_plan(
        kind,
        path,
        output,
        options,
        frames_per_shard=frames_per_shard,
        encoding=Encoding(image, depth),
        curation=Curation(measure, decide),
    )
    with progress_bar() as progress:
        summary = run_plan(plan, _Display(progress, f"ingest {kind}", plan.items), workers=workers, ray=ray)
    aside = summary.frames - summary.kept
    text = f"{summary.frames} frames written to {output}, {aside} of them put aside by the rules"
    text += f" (`metricanything inspect {output} -o report.html` shows why)" if aside else ""
    text += f"; {len(summary.skipped)} items skipped" if summary.skipped else ""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return 2 if summary.skipped else 0


def _write_preview(kind: str, path: Path | None, picture: Path, options: dict[str, Any]) -> int:
    """Write a contact sheet of frames spread over the data; how many of them could not be read."""
    from rich.markup import escape

    from metricanything.cli.console import console, errors
    from metricanything.core.codecs import write_image
    from metricanything.core.frame import Frame
    from metricanything.sources import open_items
    from metricanything.sources.preview import contact_sheet

    items = open_items(kind, path, **options)
    count = min(len(items), _PREVIEWED)
    frames: list[Frame] = []
    problems: list[str] = []
    for n in range(count):
        number = n * len(items) // count
        frames += [frame for _, frame in items.read(range(number, number + 1), problems.append)]
    for problem in problems:
        errors.print(f"[red]skipped[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if not frames:
        raise InputError(f"{path}: none of {count} frames could be read; {problems[0]}")
    write_image(picture, contact_sheet(frames))
    text = f"{picture}: {len(frames)} of {len(items)} frames"
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return len(problems)


class _Display:
    """A progress bar of items, with the megabytes written in a second; items of an earlier run count as done."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress, self._title, self._total = progress, title, total
        self._task: TaskID | None = None
        self._size, self._start = 0, perf_counter()

    def advance(self, items: int, size: int) -> None:
        if self._task is None:
            self._task = self._progress.add_task(
                self._title, total=self._total, completed=items, unit="frame", detail=""
            )
            return
        self._size += size
        rate = self._size / 1e6 / (perf_counter() - self._start)
        self._progress.update(self._task, advance=items, detail=f"{rate:.1f} MB/s" if self._size else "")

    def skip(self, problem: str) -> None:
        from rich.markup import escape

        from metricanything.cli.console import errors

        errors.print(f"[red]skipped[/] {escape(problem)}", highlight=False, soft_wrap=True)


def _list_formats() -> None:
    from metricanything.cli.console import console
    from metricanything.sources import READERS

    for reader in READERS.values():
        lines = [f"format: {reader.url}", f"terms: {reader.licence}"]
        for option in _options(reader).values():
            default = "not set" if option.default is None else json.dumps(option.default)
            lines.append(f"--option {option.name}=…  {option.wants()}; by default {default}")
        console.print(f"[bold]{reader.name}[/]  {reader.description}", highlight=False, soft_wrap=True)
        console.print("\n".join(f"    {line}" for line in lines), highlight=False, soft_wrap=True, markup=False)


def _options(reader: Reader) -> dict[str, Option]:
    """The options that can be stated on the command line, with the types that they can have there."""
    options = {
        name: replace(o, types=tuple(t for t in o.types if t in _TEXT_TYPES)) for name, o in reader.options().items()
    }
    return {name: option for name, option in options.items() if option.types}


def _parse(text: str, known: dict[str, Option]) -> tuple[str, Any]:
    """Name and value of one `KEY=VALUE`: a JSON number, true, false or null where the option takes it, else text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InputError(f"--option {text}: is not of the form KEY=VALUE, such as depth_scale=1000")
    option = known.get(name)
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return name, value
    if isinstance(parsed, (list, dict)) or (option is not None and option.takes(value) and not option.takes(parsed)):
        return name, value  # a model named 0, say
    return name, parsed
