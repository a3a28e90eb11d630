"""The scale of a reconstruction from places of its cameras that somebody measured: GPS, another sensor, a baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.sources.common import read_record

_SPREAD = 0.1  # half the width between the quartiles of the ratios, relative: above it the two do not fit
_FAR = 0.2  # of the largest distance: shorter pairs say more about errors than about scale


def metres_per_unit(centres: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    """Metres for one unit of a model with camera `centres` (N, 3), whose `measured` places (N, 3) are in metres.

    The median, over pairs of cameras that are not close together, of measured distance over distance in the model: it
    needs no alignment and bears with a few wrong places. Also half the width between the quartiles of the ratios, as a
    share of the median. Raises InputError for fewer than two cameras or when the two do not fit each other.
    """
    if len(centres) < 2 or len(centres) != len(measured):
        raise InputError(f"the scale needs two cameras with a measured place, got {min(len(centres), len(measured))}")
    first, second = np.triu_indices(len(centres), 1)
    model = np.linalg.norm(centres[first] - centres[second], axis=1)
    metres = np.linalg.norm(measured[first] - measured[second], axis=1)
    apart = metres > _FAR * metres.max()
    with np.errstate(divide="ignore", invalid="ignore"):
        low, scale, high = np.quantile(metres[apart] / model[apart], [0.25, 0.5, 0.75])
    spread = (high - low) / 2 / scale
    if not (np.isfinite(scale) and scale > 0 and spread <= _SPREAD):
        raise InputError(
            f"the measured places do not fit the cameras of the model (ratios of distances vary by {spread:.0%}); "
            "check their names and units"
        )
    return float(scale), float(spread)


def read_places(path: Path) -> dict[str, NDArray[np.float64]]:
    """Image name -> place (3,) in metres of a JSON file `{"NAME": [x, y, z], ...}`, in any Cartesian frame."""
    try:
        places = {str(name): np.array(place, dtype=np.float64) for name, place in read_record(path).items()}
    except (TypeError, ValueError):
        places = {"": np.empty(0)}
    if not places or any(place.shape != (3,) or not np.isfinite(place).all() for place in places.values()):
        raise InputError(f'{path}: must hold {{"IMAGE NAME": [x, y, z], ...}} in metres; correct the file')
    return places
