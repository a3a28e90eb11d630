"""Random numbers that depend on the scene's seed alone: not on the batch it is in, nor on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


class Draws:
    """Counter-based uniform numbers for a batch of scenes, one row per seed.

    The numbers of a row are a hash of (seed, salt, call, position), so a scene comes out the same in whatever
    batch it is drawn, and a whole batch is drawn at once. Calls are counted: the same code draws the same numbers.
    """

    def __init__(self, seeds: Sequence[int] | NDArray[np.uint64], salt: int = 0) -> None:
        self.seeds = np.array([int(s) % 2**64 for s in seeds], dtype=np.uint64)
        with np.errstate(over="ignore"):
            self._keys = _mix(_mix(self.seeds + _GOLDEN) + np.uint64(salt) * _GOLDEN)
        self._calls = 0

    def __len__(self) -> int:
        return len(self.seeds)

    def __call__(self, low: float | Floats, high: float | Floats, *shape: int) -> Floats:
        """float64 (B, *shape), uniform in [low, high)."""
        self._calls += 1
        count = int(np.prod(shape, dtype=np.int64))
        with np.errstate(over="ignore"):
            index = np.arange(count, dtype=np.uint64) + np.uint64(self._calls << 32)
            bits = _mix(self._keys[:, None] + index * _GOLDEN)
        unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.asarray(low + unit.reshape(len(self), *shape) * (np.asarray(high) - low))

    def log(self, low: float, high: float, *shape: int) -> Floats:
        """float64 (B, *shape), uniform in the logarithm."""
        return np.exp(self(np.log(low), np.log(high), *shape))

    def chance(self, probability: float, *shape: int) -> NDArray[np.bool_]:
        """bool (B, *shape), True with this probability."""
        return np.asarray(self(0, 1, *shape) < probability)

    def pick(self, options: Sequence[int], *shape: int) -> NDArray[np.int64]:
        """int64 (B, *shape), one of `options`."""
        index = (self(0, len(options), *shape)).astype(np.int64)
        return np.asarray(options, dtype=np.int64)[np.minimum(index, len(options) - 1)]
