"""MetricAnything: metric depth from noisy, heterogeneous 3D data.

The public API, nothing else. Names are imported on first use, so that `import metricanything` stays quick and
does not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metricanything.core.camera import Camera
    from metricanything.core.errors import InputError
    from metricanything.core.frame import Frame
    from metricanything.core.prediction import Prediction
    from metricanything.core.prompt import SparsePrompt
    from metricanything.inference.predictor import load
    from metricanything.models.registry import list_models

__version__ = "0.1.0"
__all__ = ["Camera", "Frame", "InputError", "Prediction", "SparsePrompt", "__version__", "list_models", "load"]

_HOMES = {
    "Camera": "metricanything.core.camera",
    "Frame": "metricanything.core.frame",
    "InputError": "metricanything.core.errors",
    "Prediction": "metricanything.core.prediction",
    "SparsePrompt": "metricanything.core.prompt",
    "list_models": "metricanything.models.registry",
    "load": "metricanything.inference.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'metricanything' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
