"""`metricanything models`: what there is to load; `metricanything models convert`: other layouts -> ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from metricanything.models.registry import ModelSpec


def models(
    action: tyro.conf.Positional[Literal["list", "convert"]] = "list",
    checkpoint: tyro.conf.Positional[str | None] = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    config: str | None = None,
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
) -> int:
    """List the registered models, or convert a checkpoint of another layout to safetensors with its configuration.

    Args:
        action: list: task, parameters, licence, and where the weights are. convert: rewrite a checkpoint.
        checkpoint: For convert: a file (.pt, .safetensors), a model name or a Hugging Face Hub id.
        output: For convert: the .safetensors file to write.
        config: For convert: JSON with what tensor shapes cannot tell, such as {"num_heads": 4}.
        dtype: For convert: type of the weights in the new file.
    """
    if action == "list":
        if checkpoint is not None or output is not None:
            raise InputError(
                "listing the models takes no file; to rewrite one, `metricanything models convert FILE -o OUT`"
            )
        _list()
        return 0
    if checkpoint is None or output is None:
        raise InputError(
            "convert needs a checkpoint and --output: metricanything models convert FILE -o OUT.safetensors"
        )
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: converted weights are written as .safetensors; give a name that ends so")
    _convert(checkpoint, output, _given(config), dtype)
    return 0


def _list() -> None:
    from metricanything.cli.console import console
    from metricanything.models.registry import list_models

    for spec in list_models():
        size = f"{spec.min_side}–{spec.max_side}" if spec.min_side < spec.max_side else f"{spec.max_side}"
        lines = [
            f"[bold]{spec.name}[/]  {spec.description}",
            f"    {spec.parameters / 1e6:.1f} M parameters, {size} px, {spec.licence}, {_weights(spec)}",
        ]
        if spec.weights_path().is_file():
            lines += _bundled(spec)
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)


def _weights(spec: ModelSpec) -> str:
    if spec.hub is not None:
        return f"weights at https://huggingface.co/{spec.hub.repo}"
    return "weights bundled" if spec.weights_path().is_file() else "no weights in this version"


def _bundled(spec: ModelSpec) -> list[str]:
    """Size, terms, headline numbers and card of bundled weights."""
    from metricanything.models.checkpoint import describe

    path = spec.weights_path()
    record = describe(path)["record"]
    errors = ", ".join(f"{name.removeprefix('ma-')} {value:.1%}" for name, value in record.get("abs_rel", {}).items())
    return [
        f"    weights: {path.stat().st_size / 1e6:.1f} MB; {record.get('licence', spec.licence)}",
        f"    AbsRel: {errors}",
        f"    card: {path.with_suffix('.md')}",
    ]


def _given(config: str | None) -> dict[str, object] | None:
    if config is None:
        return None
    try:
        value = json.loads(config)
    except ValueError as error:
        raise InputError(f"--config is not JSON ({error}); write for example '{{\"num_heads\": 4}}'") from None
    if not isinstance(value, dict):
        raise InputError('--config must be a JSON object such as {"num_heads": 4}')
    return value


def _convert(checkpoint: str, output: Path, config: dict[str, object] | None, dtype: str) -> None:
    import torch
    from rich.markup import escape

    from metricanything.cli.console import console
    from metricanything.inference.predictor import find_checkpoint
    from metricanything.models.checkpoint import load_model, save_model

    source = find_checkpoint(checkpoint)
    network, spec, description = load_model(source, config)
    record = {**description["record"], "converted_from": source.name}
    save_model(output, network.to(getattr(torch, dtype)), spec.name, record)
    count = sum(parameter.numel() for parameter in network.parameters())
    summary = f"{spec.name}, {count / 1e6:.1f} M parameters as {dtype}, written to {output}"
    console.print(escape(summary), highlight=False, soft_wrap=True)
