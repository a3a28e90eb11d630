"""All protocols by name, one file per source, and groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from metricanything.core.errors import InputError
from metricanything.evaluation.protocol import Protocol

_FILES = (
    "metricanything",
    "prior_depth_anything",
    "omni_dc",
    "marigold_dc",
    "prompt_da",
    "depth_pro",
    "moge",
    "classic",
    "booster",
    "camera",
    "radar",
)
#: What is measured when no protocol is named.
DEFAULT = "metricanything"


def _load() -> tuple[dict[str, Protocol], dict[str, tuple[str, ...]]]:
    protocols: dict[str, Protocol] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for file in _FILES:
        module = import_module(f"{__name__}.{file}")
        for protocol in module.PROTOCOLS:
            if protocol.name in protocols:
                raise ValueError(f"two protocols are named {protocol.name}")
            protocols[protocol.name] = protocol
        groups |= module.GROUPS
    return protocols, groups


#: Every protocol, and every group of their names, in the order of their files.
PROTOCOLS, GROUPS = _load()


def find(names: Sequence[str]) -> list[Protocol]:
    """The protocols of these names and groups, each once, in order; InputError for one that is unknown."""
    found: dict[str, Protocol] = {}
    for name in names:
        if name not in PROTOCOLS and name not in GROUPS:
            raise InputError(
                f"protocol {name!r} is unknown; use one of the groups {', '.join(GROUPS)}, or a name of "
                "`metricanything evaluate --list`"
            )
        for member in GROUPS.get(name, (name,)):
            found[member] = PROTOCOLS[member]
    return list(found.values())
