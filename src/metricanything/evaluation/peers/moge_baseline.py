"""Adapters written for MoGe's evaluation, used here unchanged.

Such a file defines `class Baseline` with a static `load`, a click command that takes the model's own options, and
`infer(image, intrinsics=None) -> dict` (image (3, H, W) in 0..1, K (3, 3) normalised by the size of the image). The
dict holds any of points_, depth_ with the suffixes metric, scale_invariant and affine_invariant,
disparity_affine_invariant, and intrinsics. Of several, the one that claims most is taken.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.peers.interface import (
    Adapter,
    Image,
    Output,
    Scale,
    array_of,
    camera_of,
    chw,
    normalised_intrinsics,
    positive,
)

_CLAIMS: tuple[tuple[str, Scale], ...] = (
    ("metric", "metric"),
    ("scale_invariant", "up_to_scale"),
    ("affine_invariant", "affine"),
)


class MoGeBaselinePeer(Adapter):
    """Any object with MoGe's baseline interface. `infer_for_evaluation` is used where there is one, as MoGe does.

    Affine depth and points are shifted along z, affine disparity by a constant, so that all depths are positive: what
    is known up to a shift loses nothing, and `record["scale"]` says what it is. Raises InputError when the object has
    no `infer`, or returns nothing that is known here.
    """

    def __init__(self, baseline: Any, name: str, licence: str = "see its authors") -> None:
        if not callable(getattr(baseline, "infer", None)):
            raise InputError(f"{name}: has no method infer(image, intrinsics); see MoGe's baseline interface")
        super().__init__(name, licence, name, str(getattr(baseline, "device", "cpu")))
        self.baseline = baseline

    def run(self, image: Image, prompt: SparsePrompt | None, camera: Camera | None) -> Output:
        import torch

        infer = getattr(self.baseline, "infer_for_evaluation", None) or self.baseline.infer
        k = None
        if camera is not None:
            k = torch.from_numpy(normalised_intrinsics(self.pinhole(camera))).to(self.device)
        with torch.no_grad():
            said = infer(chw(image).to(self.device).float() / 255, k)
        return self._output(said, image)

    def _output(self, said: Any, image: Image) -> Output:
        height, width = image.shape[:2]
        if not isinstance(said, dict):
            raise InputError(f"{self.name}: infer has to return a dict, got {type(said).__name__}")
        maps = {
            key: array_of(value) for key, value in said.items() if key.startswith(("points_", "depth_", "disparity_"))
        }
        maps = {key: value[0] if value.shape[:1] == (1,) and value.ndim > 2 else value for key, value in maps.items()}
        output = self._strongest(maps, list(said))
        if said.get("intrinsics") is not None:
            output.camera = camera_of(said["intrinsics"], width, height, normalised=True)
        if said.get("mask") is not None:
            output.mask = array_of(said["mask"]).reshape(height, width) > 0.5
        return output

    def _strongest(self, maps: dict[str, Any], keys: list[str]) -> Output:
        for suffix, scale in _CLAIMS:
            points, depth = maps.get(f"points_{suffix}"), maps.get(f"depth_{suffix}")
            if depth is None and points is not None:
                depth = points[..., 2]
            if depth is None:
                continue
            if scale == "affine":
                moved = positive(depth)
                if points is not None:  # their own z, which need not be the depth map
                    points = np.concatenate([points[..., :2], positive(points[..., 2])[..., None]], axis=-1)
                return Output(moved, points=points, scale=scale)
            return Output(depth, points=points, scale=scale)
        if "disparity_affine_invariant" in maps:
            disparity = positive(maps["disparity_affine_invariant"])
            return Output(np.float32(1) / disparity, scale="affine", aligned_in="disparity")
        raise InputError(
            f"{self.name}: infer returned none of MoGe's depths or points, but {', '.join(keys) or 'nothing'}"
        )


def load_moge_baseline(path: str | Path, arguments: Sequence[str] = ()) -> MoGeBaselinePeer:
    """The baseline in a Python file, which is run: give only files whose code you trust.

    arguments: for its own `load`, as on a command line (["--backbone", "vits"]). Raises InputError for a file without
    such a class, a package that it needs and is missing, and arguments it does not take.
    """
    path = Path(path)
    spec = spec_from_file_location(f"_moge_baseline_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"{path}: is no Python file; give one that defines MoGe's `class Baseline`")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise InputError(
            f"{path}: {str(error).splitlines()[0]}; install what it needs (MoGe's files need moge)"
        ) from None
    except SyntaxError as error:
        raise InputError(f"{path}: is not Python ({error}); correct the file") from None
    if (kind := getattr(module, "Baseline", None)) is None:
        raise InputError(f"{path}: defines no `class Baseline`; see MoGe's baseline interface")
    return MoGeBaselinePeer(_load(kind, path, list(arguments)), path.stem)


def _load(kind: Any, path: Path, arguments: list[str]) -> Any:
    """`Baseline.load`, a click command or a plain function of the arguments."""
    if not hasattr(kind.load, "main"):
        return kind.load(*arguments)
    import click

    try:
        return kind.load.main(arguments, prog_name=path.stem, standalone_mode=False)
    except click.ClickException as error:
        raise InputError(f"{path}: {' '.join(error.format_message().split())}; see its `load`") from None
