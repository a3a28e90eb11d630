"""Every model of the project by name: what it is for, how big it is, where its weights are, how to build it."""

from __future__ import annotations

import typing
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metricanything.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

Task = Literal["prompted-depth", "depth", "points"]
Family = Literal["native", "depthmap", "pointmap"]


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face Hub."""

    repo: str
    name: str

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.name}"


@dataclass(frozen=True)
class ModelSpec:
    """One registered architecture; facts about the input live here so that they cannot drift from the weights."""

    name: str
    task: Task
    description: str
    parameters: int
    """Number of parameters of the default configuration."""
    family: Family
    """How the image enters and what comes out: which engine of `inference` runs it."""
    min_side: int
    max_side: int
    """Range of the network's longer input side in pixels, for images of 4:3."""
    licence: str
    class_path: tuple[str, str]
    hub: HubFile | None = None
    """The published weights, where others published some."""
    size: str | None = None
    """Which of the class's `SIZES` is the default configuration."""

    def weights_path(self) -> Path:
        """Where the bundled weights of this model are, if this version has any."""
        return Path(__file__).parents[1] / "weights" / f"{self.name}.safetensors"

    def network_class(self) -> type[nn.Module]:
        """The class of its networks, whose attribute `Config` is the type of their configurations."""
        from importlib import import_module

        module, name = self.class_path
        return getattr(import_module(module), name)  # type: ignore[no-any-return]

    def build(self, config: dict[str, Any] | None = None) -> nn.Module:
        """A freshly initialised network; `config` as written by `config_dict`."""
        return self.network_class()(self.read_config(config or {}))

    def read_config(self, value: dict[str, Any]) -> Any:
        """The inverse of `config_dict`; missing fields take their defaults. Raises InputError for unknown ones."""
        network: Any = self.network_class()
        default = network.SIZES[self.size] if self.size else None
        if default is not None:
            value = merged(asdict(default), value)
        try:
            return _read(network.Config, value)
        except (TypeError, AttributeError, KeyError) as error:
            raise InputError(f"its configuration is not of a {self.name} ({error})") from None


_COMPACT = "metricanything.models.compact"
_TEACHER = ("metricanything.models.teacher", "Teacher")
_PROMPTED = "image + sparse metric prompt -> metric depth"
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "compact-teacher", "prompted-depth", _PROMPTED, 6_469_840, "native",
            192, 640, "Apache-2.0", (f"{_COMPACT}.teacher", "CompactTeacher"),
        ),
        ModelSpec(
            "compact-depthmap", "depth", "image -> metric depth", 6_396_938, "native",
            192, 640, "Apache-2.0", (f"{_COMPACT}.depthmap", "CompactDepthMap"),
        ),
        ModelSpec(
            "compact-pointmap", "points", "image -> metric points and camera", 6_463_933, "native",
            192, 640, "Apache-2.0", (f"{_COMPACT}.pointmap", "CompactPointMap"),
        ),
        *(
            ModelSpec(
                f"{size}-teacher", "prompted-depth", f"{_PROMPTED}, DINOv2 ViT-{size[0].upper()}", parameters, "native",
                384, 768, "Apache-2.0", _TEACHER, size=size,
            )
            for size, parameters in (("small", 27_087_536), ("base", 97_543_184), ("large", 334_859_408))
        ),
        ModelSpec(
            "huge-teacher", "prompted-depth", f"{_PROMPTED}, DINOv3 ViT-H+, 35 tiles", 876_935_376, "native",
            1536, 1536, "Apache-2.0; DINOv3 weights have their own licence",
            ("metricanything.models.teacher", "TiledTeacher"), size="huge",
        ),
        ModelSpec(
            "depthmap", "depth", "image -> metric depth, the published student (DINOv3 ViT-H+/16)",
            876_664_001, "depthmap", 1536, 1536,
            "Apache-2.0 repository; the encoder stems from DINOv3 (DINOv3 License)",
            ("metricanything.models.depthmap", "DepthMap"),
            HubFile("yjh001/metricanything_student_depthmap", "student_depthmap.pt"),
        ),
        ModelSpec(
            "pointmap", "points", "image -> metric points and camera, the published student (MoGe-2 ViT-L)",
            326_209_221, "pointmap", 420, 1184, "Apache-2.0 repository; fine-tuned from MoGe-2 (MIT)",
            ("metricanything.models.pointmap", "PointMap"),
            HubFile("yjh001/metricanything_student_pointmap", "student_pointmap.pt"),
        ),
    )
}  # fmt: skip


#: Those small enough to build anywhere.
COMPACT = {name: spec for name, spec in MODELS.items() if spec.name.startswith("compact-")}


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


def merged(base: dict[str, Any], given: Any) -> dict[str, Any]:
    """`base` with the given values in the place of its own, nested as there; raises InputError where a dict is due."""
    if not isinstance(given, dict):
        raise InputError(f"config must be a dict such as {{'encoder': {{'heads': 8}}}}, got {type(given).__name__}")
    nested = {k: merged(base[k], v) for k, v in given.items() if isinstance(base.get(k), dict) and v is not None}
    return {**base, **given, **nested}


def _read(kind: Any, value: Any) -> Any:
    """Plain values as the annotated type says: dataclasses from dicts, tuples from lists, all else as it is."""
    options = typing.get_args(kind)  # the members of `X | None`, the items of `tuple[X, ...]`
    config = next((option for option in (kind, *options) if is_dataclass(option)), None)
    if isinstance(value, list | tuple):
        return tuple(_read(config, item) for item in value)
    if config is None or (value is None and type(None) in options):
        return value
    if not isinstance(value, dict):
        raise TypeError(f"{config.__name__} must be a dict, got {type(value).__name__}")  # type: ignore[union-attr]
    hints = typing.get_type_hints(config)
    return config(**{key: _read(hints.get(key), item) for key, item in value.items()})  # type: ignore[operator]
