"""`metricanything doctor`: check this installation and say what to do where something is missing."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

_REQUIRED = (
    "torch",
    "numpy",
    "scipy",
    "pillow",
    "safetensors",
    "huggingface_hub",
    "tyro",
    "rich",
    "matplotlib",
    "OpenEXR",
    "plyfile",
    "trimesh",
)
_OPTIONAL = {
    "pycolmap": "COLMAP models: pip install 'metricanything[colmap]'",
    "h5py": "NYU and Hypersim: pip install 'metricanything[readers]'",
    "laspy": "LAS and LAZ point clouds: pip install 'metricanything[readers]'",
    "pypcd4": "PCD point clouds: pip install 'metricanything[readers]'",
    "av": "videos of recordings: pip install 'metricanything[readers]'",
    "cv2": "keypoint prompts: pip install 'metricanything[keypoints]'",
}
_DISK_GB = 2.0


class Problem(Exception):
    """A check that failed; the message says what to do."""


def doctor() -> int:
    """Check Python, packages, devices, disk and data, and run every compact model once; exit code 2 on a problem."""
    from metricanything.cli.console import console

    checks: dict[str, Callable[[], str]] = {
        "python": _python,
        "packages": _packages,
        "optional packages": _optional,
        "device": _device,
        "bundled samples": _samples,
        "bundled weights": _weights,
        "disk": _disk,
        "self-test": _self_test,
    }
    failed = False
    for name, check in checks.items():
        try:
            console.print(f"[green]ok[/]       {name}: {check()}", highlight=False, soft_wrap=True)
        except Exception as error:
            failed = True
            reason = str(error) if isinstance(error, Problem) else f"{type(error).__name__}: {error}"
            console.print(f"[red]problem[/]  {name}: {' '.join(reason.split())}", highlight=False, soft_wrap=True)
    return 2 if failed else 0


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _packages() -> str:
    versions, missing = [], []
    for name in ("metricanything", *_REQUIRED):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise Problem(f"missing {', '.join(missing)}; run pip install metricanything again")
    return ", ".join(versions)


def _optional() -> str:
    from importlib.util import find_spec

    return ", ".join(name if find_spec(name) else f"no {name} ({what})" for name, what in _OPTIONAL.items())


def _device() -> str:
    import torch

    from metricanything.inference.predictor import best_device

    device = best_device()
    threads = f"{torch.get_num_threads()} CPU threads, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}"
    return f"{torch.cuda.get_device_name() if device.type == 'cuda' else device.type}; {threads}"


def _samples() -> str:
    from metricanything import samples

    missing = [name for name in samples.SAMPLES if not samples.path(name).is_dir()]
    if missing:
        raise Problem(f"missing {', '.join(missing)}; reinstall the package")
    return ", ".join(samples.SAMPLES)


def _weights() -> str:
    from metricanything.models.registry import list_models

    names = [spec.name for spec in list_models() if spec.weights_path().is_file()]
    return ", ".join(names) or "none in this version; `metricanything quickstart` trains small ones"


def _disk() -> str:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    with tempfile.NamedTemporaryFile(dir=here):
        pass
    if free < _DISK_GB:
        raise Problem(f"{free:.1f} GB free in {here}; make room for at least {_DISK_GB:g} GB")
    return f"{free:.0f} GB free, writable: {here}"


def _self_test() -> str:
    import numpy as np

    from metricanything.core.camera import Camera
    from metricanything.core.prompt import SparsePrompt
    from metricanything.inference.predictor import Model
    from metricanything.models.registry import COMPACT

    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    camera = Camera.from_fov(60, 128, 96)
    for spec in COMPACT.values():
        prompt = SparsePrompt.from_pixels([[64, 48]], [2.0], (96, 128)) if spec.task == "prompted-depth" else None
        prediction = Model(spec.build(), spec).predict(image, prompt=prompt, camera=camera)
        if not np.isfinite(prediction.depth).all():
            raise Problem(f"{spec.name} gave numbers that are not finite; check the torch installation")
    return "every compact model runs"
