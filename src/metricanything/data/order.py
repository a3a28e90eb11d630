"""Which sample comes when: sources interleaved, rows shuffled, both computed from a counter and never stored.

Draw j of a run is a pure function of j and the seed, in constant time and memory whatever the size of the sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]

_ROUNDS = 6
_BITS = 30
_ONE = 1 << _BITS  # shares are fixed-point numbers of this denominator: products with a 30-bit counter are exact


def hashed(*parts: ArrayLike) -> UInt64:
    """A 64-bit hash (N,) of whole numbers >= 0, broadcast together; one more number is one more round.

    The mixing function is that of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = state + np.uint64(0x9E3779B97F4A7C15) + np.asarray(part).astype(np.uint64)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return state


def permuted(index: Int64, size: Int64, key: UInt64) -> Int64:
    """Where a pseudo-random permutation of range(size), chosen by `key`, sends `index` < size; all (N,).

    A Feistel network over the digits of a number in two nearly equal bases, whose product is `size` or a little more;
    numbers that leave the range walk on until they are back in it (Black and Rogaway, CT-RSA 2002).
    """
    result = index.astype(np.uint64)
    base = np.ceil(np.sqrt(size)).astype(np.uint64)
    height = (size.astype(np.uint64) + base - np.uint64(1)) // base
    walking = np.arange(len(index))
    while len(walking):
        high, low = np.divmod(result[walking], base[walking])
        for step in range(0, _ROUNDS, 2):
            low = (low + hashed(key[walking], high, step) % base[walking]) % base[walking]
            high = (high + hashed(key[walking], low, step + 1) % height[walking]) % height[walking]
        result[walking] = high * base[walking] + low
        walking = walking[result[walking] >= size[walking].astype(np.uint64)]
    return result.astype(np.int64)


class Interleaving:
    """A sequence of sources in which each has its share of every stretch, to within a few draws.

    The sources are the leaves of a binary tree. At a node of which a share p goes left, visit n goes left when the
    whole part of n p + phase rises: an even, deterministic spread (Christoffel words). That whole part is the number of
    earlier visits to the left, so the number of earlier draws of a source falls out of the walk down. Phases come from
    the seed.
    """

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        self._leaves = len(shares)
        mass = np.concatenate([np.zeros(len(shares)), np.asarray(shares, dtype=float)])
        for node in range(len(shares) - 1, 0, -1):
            mass[node] = mass[2 * node] + mass[2 * node + 1]
        left = mass[0 : 2 * len(shares) : 2] / np.where(mass > 0, mass, 1)[: len(shares)]
        self._left = np.round(left * _ONE).astype(np.int64)
        self._phase = (hashed(seed, np.arange(len(shares))) % np.uint64(_ONE)).astype(np.int64)

    def draw(self, number: Int64) -> tuple[Int64, Int64]:
        """(source, how often it was drawn before), both int64 (N,), of draws `number` (N,)."""
        node, count = np.ones_like(number), number.copy()
        while (inner := np.flatnonzero(node < self._leaves)).size:
            at, n = node[inner], count[inner]
            share, phase = self._left[at], self._phase[at]
            before, after = _whole(n, share, phase), _whole(n + 1, share, phase)
            goes_left = after > before
            node[inner] = 2 * at + ~goes_left
            count[inner] = np.where(goes_left, before, n - before)
        return node - self._leaves, count


def _whole(n: Int64, share: Int64, phase: Int64) -> Int64:
    """floor((n share + phase) / 2^30), without the product's overflow."""
    return (n >> _BITS) * share + (((n & (_ONE - 1)) * share + phase) >> _BITS)
