"""Every model of the project by name: what it is for, how big it is, how to build it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

Task = Literal["prompted-depth", "depth", "points"]


@dataclass(frozen=True)
class ModelSpec:
    """One registered architecture; facts about the input live here so that they cannot drift from the weights."""

    name: str
    task: Task
    description: str
    parameters: int
    """Number of parameters of the default configuration."""
    min_side: int
    max_side: int
    """Range of the network's longer input side in pixels; sides are multiples of 32."""
    licence: str
    class_path: tuple[str, str]

    def weights_path(self) -> Path:
        """Where the bundled weights of this model are, if this version has any."""
        return Path(__file__).parents[1] / "weights" / f"{self.name}.safetensors"

    def build(self, config: dict[str, Any] | None = None) -> nn.Module:
        """A freshly initialised network; `config` as written by `config_dict`."""
        from importlib import import_module

        module, name = self.class_path
        network: nn.Module = getattr(import_module(module), name)(config_from_dict(config or {}))
        return network


MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "compact-teacher", "prompted-depth", "image + sparse metric prompt -> metric depth", 6_467_232, 192, 640,
            "Apache-2.0", ("metricanything.models.compact.teacher", "CompactTeacher"),
        ),
        ModelSpec(
            "compact-depthmap", "depth", "image -> metric depth", 6_396_938, 192, 640,
            "Apache-2.0", ("metricanything.models.compact.depthmap", "CompactDepthMap"),
        ),
        ModelSpec(
            "compact-pointmap", "points", "image -> metric points and camera", 6_463_933, 192, 640,
            "Apache-2.0", ("metricanything.models.compact.pointmap", "CompactPointMap"),
        ),
    )
}  # fmt: skip


def get_spec(name: str) -> ModelSpec:
    """The registered model; raises InputError with the known names."""
    if name not in MODELS:
        raise InputError(f"model {name!r} is unknown; use one of {', '.join(MODELS)}")
    return MODELS[name]


def list_models() -> list[ModelSpec]:
    """All registered models, with size, task and licence."""
    return list(MODELS.values())


def config_dict(network: nn.Module) -> dict[str, Any]:
    """The configuration of a network as plain values for JSON."""
    return asdict(network.config)  # type: ignore[call-overload,no-any-return]


def config_from_dict(value: dict[str, Any]) -> Any:
    """The inverse of `config_dict`; missing fields take their defaults, unknown ones raise InputError."""
    from metricanything.models.compact.decoder import DecoderConfig
    from metricanything.models.compact.encoder import EncoderConfig
    from metricanything.models.compact.teacher import DepthConfig

    def tuples(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

    kinds = {"encoder": EncoderConfig, "decoder": DecoderConfig}
    try:
        return DepthConfig(**{name: kinds[name](**tuples(fields)) for name, fields in value.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model config is not of a compact model ({error})") from None
