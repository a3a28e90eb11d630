"""`metricanything ingest`: raw data of one format -> training shards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.sources import Option, Reader

#: What the text of an option can state.
_TEXT_TYPES = (float, int, bool, str, type(None))


def ingest(
    kind: tyro.conf.Positional[str] = "",
    path: tyro.conf.Positional[Path | None] = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    option: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="KEY=VALUE")] = (),
) -> int:
    """Read the raw data at a path and write it as shards; without arguments, list the formats with their options.

    Args:
        kind: The format, such as colmap, tum, kitti_raw, folder or procedural.
        path: The folder of the data (none for procedural).
        output: Folder of the shards; must not hold any yet.
        option: An option of the format, such as depth_scale=1000 for a folder or count=100 for procedural; one
            --option for each.
    """
    from rich.markup import escape

    from metricanything.cli.console import console, errors, progress_bar
    from metricanything.curate.index import INDEX
    from metricanything.curate.writing import write_shards
    from metricanything.sources import READERS, read

    if not kind:
        _list_formats()
        return 0
    known = _options(READERS[kind]) if kind in READERS else {}  # `read` says what is wrong with the kind
    options = dict(_parse(text, known) for text in option)
    if output is None:
        raise InputError("no --output folder given; add -o SHARDS")
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file, not a folder; give another --output")
    if (output / INDEX).exists():
        raise InputError(f"{output}: holds shards already; give another --output or delete it")
    problems: list[str] = []

    def report(problem: str) -> None:
        problems.append(problem)
        errors.print(f"[red]skipped[/] {escape(problem)}", highlight=False, soft_wrap=True)

    total = options.get("count", known["count"].default) if "count" in known else None
    frames = read(kind, path, on_error=report, **options)
    with progress_bar() as progress:
        task = progress.add_task(f"ingest {kind}", total=total, unit="frame", detail="")
        written = write_shards(frames, output, progress=lambda frame: progress.advance(task))
    summary = f"{written} frames written to {output}, {len(problems)} skipped"
    console.print(escape(summary), highlight=False, soft_wrap=True)
    return 2 if problems else 0


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
