"""`metricanything models`: what there is to load."""

from __future__ import annotations


def models() -> int:
    """List the registered models: task, parameters, licence, and whether their weights are bundled."""
    from metricanything.cli.console import console
    from metricanything.models.registry import list_models

    for spec in list_models():
        weights = "weights bundled" if spec.weights_path().is_file() else "no weights in this version"
        console.print(f"[bold]{spec.name}[/]  {spec.description}", highlight=False, soft_wrap=True)
        console.print(
            f"    {spec.parameters / 1e6:.1f} M parameters, {spec.min_side}–{spec.max_side} px, "
            f"{spec.licence}, {weights}",
            highlight=False,
            soft_wrap=True,
        )
    return 0
