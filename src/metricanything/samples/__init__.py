"""Small real data that comes with the package; origin and terms in ATTRIBUTION.md, made by scripts/build_samples.py."""

from __future__ import annotations

from pathlib import Path

from metricanything.core.errors import InputError

_HERE = Path(__file__).resolve().parent

#: Each sample with the kind of source that reads it (see `metricanything.sources`).
SAMPLES = {
    "colmap_hospital": "colmap",
    "tum_desk": "tum",
    "lidar_street": "kitti_raw",
    "heldout": "folder",
}


def path(name: str) -> Path:
    """The folder of the bundled sample `name`; raises InputError, listing the names, when there is none."""
    if name not in SAMPLES:
        raise InputError(f"sample {name!r} is unknown; use one of {', '.join(SAMPLES)}")
    return _HERE / name
