"""Our checkpoint layout: safetensors whose metadata names the model and its configuration."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metricanything import __version__
from metricanything.core.errors import InputError
from metricanything.core.files import write_bytes
from metricanything.models.registry import ModelSpec, config_dict, get_spec

METADATA_KEY = "metricanything"


def save_model(path: str | Path, network: nn.Module, name: str, record: dict[str, Any] | None = None) -> None:
    """Write the weights with everything needed to rebuild the network; `record` says how they were made."""
    from safetensors.torch import save

    description = {"model": name, "config": config_dict(network), "record": record or {}, "version": __version__}
    tensors: dict[str, Tensor] = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    # As bytes, because safetensors' own writer reports a full disk as an error of its own.
    write_bytes(path, save(tensors, metadata={METADATA_KEY: json.dumps(description)}))


def load_model(path: str | Path, config: dict[str, Any] | None = None) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """The network in evaluation mode, its registry entry and its description.

    `config` replaces values of the stored configuration, nested as there. Raises InputError for a missing file, a file
    that is not ours, or weights that do not fit the configuration.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give a .safetensors file or a name from `metricanything models`")
    description = _read_description(path)
    name = description["model"]
    remedy = "fetch it again" if config is None else "leave out or correct the given config"
    try:
        description["config"] = _merged(description["config"], config)
        spec = get_spec(name)
        network = spec.build(description["config"])
        network.load_state_dict(load_file(path), strict=True)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (SafetensorError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged, or its weights do not fit {name} ({reason}); {remedy}") from None
    return network.eval(), spec, description


def _merged(stored: dict[str, Any], given: dict[str, Any] | None) -> dict[str, Any]:
    """The stored configuration with the given values in the place of its own."""
    if given is None:
        return stored
    if not isinstance(given, dict):
        raise InputError(f"config must be a dict such as {{'encoder': {{'heads': 8}}}}, got {type(given).__name__}")
    nested = {key: _merged(stored[key], value) for key, value in given.items() if isinstance(stored.get(key), dict)}
    return {**stored, **given, **nested}


def _read_description(path: Path) -> dict[str, Any]:
    """The metadata block, read from the header alone (safetensors format: u64 length, then JSON)."""
    remedy = "give a .safetensors file written by this project"
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(path.stat().st_size, 100_000_000):
                raise InputError(f"{path}: not a safetensors file; {remedy}")
            header = json.loads(file.read(length))
            description = json.loads(header["__metadata__"][METADATA_KEY])
            kinds = {"model": str, "config": dict, "record": dict}
            if not all(isinstance(description[key], kind) for key, kind in kinds.items()):
                raise KeyError(METADATA_KEY)
    except (struct.error, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InputError(f"{path}: not a safetensors file; {remedy}") from None
    except (KeyError, TypeError):
        raise InputError(f"{path}: does not say which model it is for; {remedy}") from None
    return dict(description)
