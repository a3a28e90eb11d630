"""The public contract: the names other people's scripts depend on, and an import that stays quick."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import metricanything as ma

NAMES = {
    "load",
    "list_models",
    "Camera",
    "Frame",
    "SparsePrompt",
    "Prediction",
    "InputError",
    "__version__",
}


def test_names() -> None:
    assert set(ma.__all__) == set(dir(ma)) == NAMES
    for name in NAMES:
        assert getattr(ma, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = ma.train
    assert [int(part) for part in ma.__version__.split(".")]


def test_names_are_those_of_their_modules() -> None:
    from metricanything.core.camera import Camera
    from metricanything.core.errors import InputError
    from metricanything.core.frame import Frame
    from metricanything.core.prediction import Prediction
    from metricanything.core.prompt import SparsePrompt

    assert (ma.Camera, ma.Frame, ma.Prediction, ma.SparsePrompt) == (Camera, Frame, Prediction, SparsePrompt)
    assert ma.InputError is InputError
    assert issubclass(ma.InputError, ValueError)


@pytest.mark.parametrize(
    ("function", "positional", "keywords"),
    [
        ("load", ["name"], ["device", "dtype"]),
        ("Camera.pinhole", ["fx", "fy", "cx", "cy", "width", "height"], []),
        ("SparsePrompt.from_depth", ["depth"], ["unit", "sigma"]),
        ("SparsePrompt.from_points", ["points", "camera"], ["cam_from_points"]),
        ("SparsePrompt.from_pixels", ["uv", "depth", "size"], []),
        ("Prediction.save", ["self", "folder", "formats"], []),
    ],
)
def test_signatures(function: str, positional: list[str], keywords: list[str]) -> None:
    found: object = ma
    for part in function.split("."):
        found = getattr(found, part)
    parameters = inspect.signature(found).parameters  # type: ignore[arg-type]
    assert list(parameters)[: len(positional)] == positional
    assert set(keywords) <= set(parameters)


def test_predict_signature() -> None:
    from metricanything.inference.predictor import Model

    parameters = inspect.signature(Model.predict).parameters
    assert list(parameters)[:4] == ["self", "image", "prompt", "camera"]


def test_prediction_has_the_promised_fields() -> None:
    fields = set(inspect.signature(ma.Prediction).parameters)
    assert {"depth", "points", "mask", "confidence", "camera", "camera_source"} <= fields
    camera = ma.Camera.pinhole(5, 6, 2, 1, 4, 2)
    assert (camera.fx, camera.fy, camera.cx, camera.cy, camera.K.shape) == (5, 6, 2, 1, (3, 3))


def test_listed_models_say_what_they_are() -> None:
    for spec in ma.list_models():
        assert spec.name
        assert spec.parameters > 0
        assert spec.task in ("prompted-depth", "depth", "points")
        assert spec.licence


HEAVY = (
    "torch",
    "torchvision",
    "scipy",
    "matplotlib",
    "PIL",
    "trimesh",
    "OpenEXR",
    "plyfile",
    "safetensors",
    "pycolmap",
)


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`."""
    result = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in result.stdout.split()}


def test_import_loads_nothing_heavy() -> None:
    loaded = loaded_by("import metricanything")
    assert "metricanything" in loaded
    assert not loaded & {*HEAVY, "numpy"}


def test_nouns_and_lists_do_not_load_torch() -> None:
    code = "import metricanything as ma; ma.Camera, ma.Frame, ma.SparsePrompt, ma.Prediction, ma.list_models()"
    loaded = loaded_by(code)
    assert "numpy" in loaded
    assert not loaded & {"torch", "scipy", "matplotlib", "trimesh", "OpenEXR", "pycolmap"}
    assert "torch" not in loaded_by("import metricanything.patterns, metricanything.models.registry")
