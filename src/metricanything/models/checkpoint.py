"""Checkpoints: ours (safetensors whose metadata names the model and its configuration), and those of other layouts."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metricanything import __version__
from metricanything.core.errors import InputError
from metricanything.core.files import write_bytes
from metricanything.models.layouts import State, describe_mismatch, identify
from metricanything.models.mapped import MappedWeights
from metricanything.models.registry import ModelSpec, config_dict, get_spec, merged

METADATA_KEY = "metricanything"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_FETCH_AGAIN = "fetch it again"
_DAMAGED = f"its metadata is damaged; {_FETCH_AGAIN}"
_NAMELESS = "does not say which model it is for; write it again with this version"


def save_model(path: str | Path, network: nn.Module, name: str, record: dict[str, Any] | None = None) -> None:
    """Write the weights with everything needed to rebuild the network; `record` says how they were made."""
    from safetensors.torch import save

    description = {"model": name, "config": config_dict(network), "record": record or {}, "version": __version__}
    tensors: dict[str, Tensor] = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    # As bytes, because safetensors' own writer reports a full disk as an error of its own.
    write_bytes(path, save(tensors, metadata={METADATA_KEY: json.dumps(description)}))


def load_model(
    path: str | Path, config: dict[str, Any] | None = None, *, low_memory: bool = False
) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """The network in evaluation mode, its registry entry and its description (model, config, record).

    low_memory: the weights of a .safetensors file stay in it, and every layer drops its own when it has run
    (`mapped`); such a network is for inference alone. `config` replaces values of the stored
    configuration, nested as there, or says what the shapes of another layout cannot tell (`layouts.identify`). Nothing
    in a file is executed. Raises InputError for a missing or damaged file, and for weights that do not fit, naming the
    first keys.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give a {SUFFIXES[0]} or {SUFFIXES[1]} file or a model name")
    try:
        given = merged({}, {} if config is None else config)
        content = _read(path, low_memory)
        if (description := content.description) is None:
            name, sizes = identify(content.state, content.model_config, given)
            network = _skeleton(get_spec(name), sizes)
            description = {"model": name, "config": config_dict(network), "record": {}}
        else:
            description["config"] = merged(description["config"], given)
            spec = get_spec(description["model"])
            network = _skeleton(spec, spec.read_config(description["config"]))
        remedy = "leave out or correct the given config" if given else _FETCH_AGAIN
        _fill(network, description["model"], content, remedy)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if content.mapped is not None:
        content.mapped.drop_after_use(network)
    return network.eval(), get_spec(description["model"]), description


def describe(path: Path) -> dict[str, Any]:
    """The description (model, config, record) of a file of ours, from its header; raises InputError without one."""
    try:
        description = _description(_metadata(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if description is None:
        raise InputError(f"{path}: {_NAMELESS}")
    return description


def read_state(path: Path) -> State:
    """All tensors of a checkpoint by name, whatever network they are for; raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give a file or a Hub id")
    try:
        return _read(path, low_memory=False).state
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _skeleton(spec: ModelSpec, config: Any) -> nn.Module:
    """The network without memory for its weights, which the checkpoint's tensors will take the place of."""
    with torch.device("meta"):
        try:
            return spec.network_class()(config)
        except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"its configuration makes no {spec.name} ({_line(error)})") from None


def _fill(network: nn.Module, name: str, content: _Content, remedy: str) -> None:
    """Give the network the checkpoint's tensors, all of them and no others."""
    if (problem := describe_mismatch(network.state_dict(), content.state)) is not None:
        raise InputError(f"its weights do not fit {name}: {problem}; {remedy}")
    damaged = [key for key, value in content.state.items() if not _finite(value, content.mapped)]
    if damaged:
        raise InputError(f"{len(damaged)} tensors hold numbers that are not finite, the first {damaged[0]}; {remedy}")
    network.load_state_dict(dict(content.state), strict=True, assign=True)


def _finite(value: Tensor, mapped: MappedWeights | None) -> bool:
    """Whether all numbers are finite, looked at in parts: a bool for each of a gigabyte of them is memory too."""
    parts = value.flatten().split(2**22) if value.is_floating_point() else ()
    finite = all(bool(part.isfinite().all()) for part in parts)
    if mapped is not None:
        mapped.drop(value)
    return finite


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class _Content:
    """What a file holds: tensors by name, the `model_config` beside them, our own description; None where absent."""

    state: State
    model_config: dict[str, Any] | None = None
    description: dict[str, Any] | None = None
    mapped: MappedWeights | None = None


def _read(path: Path, low_memory: bool) -> _Content:
    if path.suffix == ".safetensors":
        return _read_safetensors(path, low_memory)
    if low_memory:
        raise InputError(
            "only .safetensors files can be run with low_memory; rewrite it with `metricanything models convert`"
        )
    return _read_torch(path)


def _read_safetensors(path: Path, low_memory: bool) -> _Content:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    metadata = _metadata(path)
    try:
        with safe_open(path, framework="pt"):  # checks that the header fits the file
            mapped = MappedWeights.open(path) if low_memory else None
        state = load_file(path) if mapped is None else mapped.tensors
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"damaged ({_line(error)}); {_FETCH_AGAIN}") from None
    try:
        stored = json.loads(metadata["model_config"]) if "model_config" in metadata else None
    except (TypeError, ValueError, RecursionError):
        raise InputError(_DAMAGED) from None
    return _Content(state, stored if isinstance(stored, dict) else None, _description(metadata), mapped)


def _description(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """Our own description in a metadata block, None where absent."""
    try:
        description = json.loads(metadata[METADATA_KEY]) if METADATA_KEY in metadata else None
    except (TypeError, ValueError, RecursionError):
        raise InputError(_DAMAGED) from None
    kinds = {"model": str, "config": dict, "record": dict}
    if description is not None and not (
        isinstance(description, dict) and all(isinstance(description.get(key), kind) for key, kind in kinds.items())
    ):
        raise InputError(_NAMELESS)
    return description


def _metadata(path: Path) -> dict[str, Any]:
    """The metadata block, read from the header alone (safetensors format: u64 length, then JSON)."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= min(path.stat().st_size, 100_000_000):
                raise ValueError
            metadata = json.loads(file.read(length)).get("__metadata__") or {}
    except (struct.error, ValueError, AttributeError, RecursionError):
        raise InputError(f"not a safetensors file; {_FETCH_AGAIN}") from None
    return metadata if isinstance(metadata, dict) else {}


def _read_torch(path: Path) -> _Content:
    """A PyTorch checkpoint's tensors and `model_config`; only tensors and plain values are unpickled."""
    from pickle import UnpicklingError

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        if "GLOBAL" in str(error):  # a class or function that the pickle asks for
            raise InputError(
                "holds Python objects besides tensors, which are never executed here; save its state dict alone"
            ) from None
        raise InputError(f"damaged, or no PyTorch checkpoint; {_FETCH_AGAIN}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise InputError(f"damaged, or no PyTorch checkpoint ({_line(error)}); {_FETCH_AGAIN}") from None
    stored = content.get("model_config") if isinstance(content, dict) else None
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError("holds no state dict: give a file of tensors by name, bare or under 'model' or 'state_dict'")
    return _Content(content, stored if isinstance(stored, dict) else None)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
