"""The command line: a thin mirror of the Python API, one module per verb, imported when it is used."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import partial, wraps
from importlib import import_module

from metricanything.core.errors import InputError

VERBS = {
    "quickstart": "the whole method, small, on real input, with a report to look at",
    "predict": "metric depth, points and camera of images, with or without a sparse prompt",
    "ingest": "raw 3D data of one format -> training shards",
    "inspect": "what shards hold: counts, distributions, galleries, what was put aside and why, duplicates and leaks",
    "curate": "decide anew which frames of shards are kept, by edited rules",
    "pretrain": "train the prompt-based teacher from a recipe, on one machine or many",
    "evaluate": "models and baselines measured by named protocols on any data, with a report",
    "scaling": "how the error of several runs falls with the number of training pairs: fit, intervals, chart",
    "models": "the registered models: size, task, licence, weights",
    "doctor": "check this installation and say what to do where something is missing",
}
_DEBUG = "METRICANYTHING_DEBUG"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit: 0 done, 2 input that cannot be used, 1 a failure of ours, 130 interrupted."""
    # Two busy-waiting thread teams on few cores cost far more than waking up; read by OpenMP when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    from metricanything import __version__

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage(), file=sys.stdout)
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"metricanything {__version__}")
        return 0
    verb, *rest = arguments
    try:
        if verb not in VERBS:
            raise InputError(f"no verb {verb!r}; use one of {', '.join(VERBS)}")
        return _parse_and_call(verb, rest)
    except InputError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        again = "goes on where it was" if verb in ("quickstart", "pretrain", "evaluate", "ingest") else "starts again"
        return _fail(f"interrupted; the same command {again}", 130)
    except BrokenPipeError:
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"{where}the disk is full; free some space and run the same command again", 2)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _fail(f"{where}no permission to write or read here; choose another place", 2)
        return _unexpected(error)
    except Exception as error:
        return _unexpected(error)


def _parse_and_call(verb: str, arguments: list[str]) -> int:
    import tyro

    module = import_module(f"metricanything.cli.{verb}")
    function: Callable[..., int] = getattr(module, verb, None) or module.resolve(arguments)
    registry = module.registry() if hasattr(module, "registry") else None

    @wraps(function)
    def parsed(*values: object, **named: object) -> Callable[[], int]:
        return partial(function, *values, **named)

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            prog = f"metricanything {verb}"
            config = (tyro.conf.FlagCreatePairsOff,)
            call = tyro.cli(parsed, args=arguments, prog=prog, config=config, registry=registry)
    except SystemExit as stopped:
        if stopped.code:
            raise InputError(f"{_first_section(said.getvalue())}; see `metricanything {verb} --help`") from None
        return 0
    return call()  # type: ignore[operator,no-any-return]


def _first_section(box: str) -> str:
    """What tyro's error box says, without frame, details and help; with the option it suggests, if any."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # the first is the title
        text = line.strip("│| ")
        if text == "Got errors:" or (text and not text.strip("─-╰╯+")):
            sections.append([])
        else:
            sections[-1].append(text)
    sections = [section for section in sections if any(section)]
    message = " ".join(" ".join(sections[0]).split())
    hints = [section[1] for section in sections[1:] if section[:1] == ["Perhaps you meant:"] and len(section) > 1]
    return f"{message} (perhaps you meant {hints[0]})" if hints else message


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [f"  metricanything {verb.ljust(width)}  {text}" for verb, text in VERBS.items()]
    return "\n".join(
        [
            "Metric depth from noisy, heterogeneous 3D data.",
            "",
            *lines,
            "",
            "`metricanything VERB --help` explains one.",
        ]
    )


def _unexpected(error: Exception) -> int:
    if os.environ.get(_DEBUG):
        raise error
    reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return _fail(f"internal error ({reason}); set {_DEBUG}=1 to see where, and please report it", 1)


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
