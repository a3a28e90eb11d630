"""What the registry holds: a raw format with its terms, its signs on disk and the options of its reader."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from metricanything.sources.common import Items

#: What a value must be an instance of, where that is more than the annotated type (numpy's numbers, paths as text).
_TEXT = (str, os.PathLike)
_ACCEPTED: dict[type, type | tuple[type, ...]] = {float: Real, int: Integral, str: _TEXT, Path: _TEXT}
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True)
class Option:
    """One option of a reader as its signature states it: `name`, the `types` of its values and its `default`."""

    name: str
    types: tuple[type, ...]
    default: Any

    def takes(self, value: Any) -> bool:
        """Whether `value` is of one of the types."""
        if isinstance(value, str):  # is a Sequence as well, which is not meant
            return str in self.types or Path in self.types
        if isinstance(value, bool):  # is an int as well
            return bool in self.types
        return any(isinstance(value, _ACCEPTED.get(t, t)) for t in self.types)

    def wants(self) -> str:
        """The types in words, such as "a Camera or text"; None, for an option that may stay unset, goes unsaid."""
        return " or ".join(_WORDS.get(t, f"a {t.__name__}") for t in self.types if t is not type(None))


#: Options that every reader has; `sources.open_items` carries them out.
SHARED = {
    "undistort": Option("undistort", (bool,), False),
    "limit": Option("limit", (int, type(None)), None),
}


@dataclass(frozen=True)
class Reader:
    """One raw format: its `name` on the command line, what it is, where it is specified and under which terms.

    `url` is the format's documentation (a module of this package for its own formats).
    `signs` are alternatives, each a list of glob patterns below the folder, separated by blanks, that a data set of the
    format matches all of. `metric` says whether its depth is in metres without being told; `needs_path` is False for
    generators.
    """

    name: str
    description: str
    url: str
    licence: str
    signs: tuple[str, ...] = ()
    metric: bool = True
    needs_path: bool = True

    def load(self) -> Callable[..., Items]:
        """The function `items` of the module of this name, imported now."""
        function: Callable[..., Items] = import_module(f"metricanything.sources.{self.name}").items
        return function

    def options(self) -> dict[str, Option]:
        """The options of the reader by name, from the signature of its function `items`."""
        function = self.load()
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters.values()
        own = {p.name: _option(p, hints[p.name]) for p in parameters if p.name != "path"}
        return {**own, **SHARED}

    def recognises(self, path: Path) -> bool:
        """Whether the folder `path` holds files named as in this format."""
        return any(all(next(path.glob(glob), None) for glob in sign.split()) for sign in self.signs)


def _option(parameter: inspect.Parameter, hint: Any) -> Option:
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return Option(parameter.name, tuple(get_origin(member) or member for member in members), parameter.default)
