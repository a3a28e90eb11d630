"""Equal and similar images by their 64-bit perceptual hashes, among any number of frames.

Nothing compares every frame with every other: hashes within a small Hamming distance agree in most of a few bands of
their bits (pigeonhole), so that sorting by every choice of bands brings them side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int = NDArray[np.int64]
UInt = NDArray[np.uint64]

_SHARED_BANDS = 3  # that agree at least; three of `distance + 3` are so selective that strangers rarely meet
_NEIGHBOURS = 64  # looked at before a hash in the order of one choice of bands; only nearly equal images crowd so


def hamming(a: ArrayLike, b: ArrayLike) -> NDArray[np.uint8]:
    """Number of differing bits of uint64 hashes, broadcast."""
    x = np.bitwise_xor(np.asarray(a, dtype=np.uint64), np.asarray(b, dtype=np.uint64))
    return np.unpackbits(x[..., None].view(np.uint8), axis=-1).sum(axis=-1, dtype=np.uint8)


def earlier_equal(hashes: UInt, groups: Int | None = None) -> Int:
    """For every frame the first of its group with the same hash, if that is another; -1 where there is none.

    hashes: uint64 (N,), 0 = none. groups: int (N,); without, all are of one.
    """
    values, keys = np.unique(hashes, return_inverse=True)
    if groups is not None:
        keys = groups * len(values) + keys
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found = first[inverse].astype(np.int64)
    found[(found == np.arange(len(hashes))) | (hashes == 0)] = -1
    return found


def similar_pairs(hashes: UInt, distance: int, groups: Int | None = None) -> Int:
    """Pairs (M, 2), i < j, of frames of one group whose hashes differ in 1 to `distance` bits.

    Frames with equal hashes are represented by the first of them, so that a camera that stood still for an hour does
    not give millions of pairs. hashes: uint64 (N,), 0 = none.
    """
    known = np.flatnonzero((hashes != 0) & (earlier_equal(hashes, groups) < 0))
    values = hashes[known]
    own = np.zeros(len(known), np.int64) if groups is None else groups[known]
    found = [np.empty((0, 2), np.int64)]
    for mask in _masks(distance):
        key = values & mask
        order = np.lexsort((key, own))
        key, group, sorted_values = key[order], own[order], values[order]
        places = np.arange(len(order))
        for lag in range(1, _NEIGHBOURS + 1):
            places = places[places >= lag]
            places = places[(key[places] == key[places - lag]) & (group[places] == group[places - lag])]
            if not len(places):
                break
            close = places[hamming(sorted_values[places], sorted_values[places - lag]) <= distance]
            found.append(np.sort(np.stack([order[close], order[close - lag]], axis=-1), axis=-1))
    first, second = np.concatenate(found).T
    codes = np.unique(first * len(known) + second)  # far quicker than unique rows
    return np.asarray(known[np.stack(np.divmod(codes, max(len(known), 1)), axis=-1)], dtype=np.int64).reshape(-1, 2)


def _masks(distance: int) -> list[np.uint64]:
    """Bits to sort by: every choice of `_SHARED_BANDS` of the bands the hash is cut into."""
    count = distance + _SHARED_BANDS
    bounds = [64 * i // count for i in range(count + 1)]
    bands = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(bounds)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, _SHARED_BANDS)]


@dataclass(frozen=True)
class Overlap:
    """Frames that two groups share: group numbers, how many frames of the first have a like in the other, and one."""

    first: int
    second: int
    frames: int
    example: tuple[int, int]


def overlaps(hashes: UInt, groups: Int, distance: int) -> list[Overlap]:
    """What groups of frames (sources, or whole shard sets) have in common, by images within `distance` bits.

    hashes: uint64 (N,), 0 = none. groups: int (N,). Both directions are listed, since the counts differ.
    """
    known = np.flatnonzero(hashes != 0)
    values, code = np.unique(hashes[known], return_inverse=True)
    near = np.searchsorted(values, hashes[similar_pairs(hashes, distance)]).reshape(-1, 2)
    near = np.concatenate([near, near[:, ::-1], np.repeat(np.arange(len(values))[:, None], 2, axis=1)])
    # One entry for every group in which a hash occurs, sorted by hash.
    many = int(groups.max(initial=0)) + 1
    entries, first, count = np.unique(code * many + groups[known], return_index=True, return_counts=True)
    hash_of, group_of, frame_of = entries // many, entries % many, known[first]
    start, stop = (np.searchsorted(hash_of, np.arange(len(values)), side=side) for side in ("left", "right"))
    single = (near[:, 0] == near[:, 1]) & (stop[near[:, 0]] - start[near[:, 0]] < 2)
    near = near[~single]
    a, b = _products(start, stop, near)
    crossing = group_of[a] != group_of[b]
    a, b = a[crossing], b[crossing]
    # An entry may have several likes in the other group; it counts once.
    _, chosen = np.unique(a * many + group_of[b], return_index=True)
    a, b = a[chosen], b[chosen]
    kinds, place, which = np.unique(group_of[a] * many + group_of[b], return_index=True, return_inverse=True)
    frames = np.bincount(which, weights=count[a], minlength=len(kinds)).astype(int)
    return [
        Overlap(int(kind) // many, int(kind) % many, int(n), (int(frame_of[a[k]]), int(frame_of[b[k]])))
        for kind, n, k in zip(kinds, frames, place, strict=True)
    ]


def _products(start: Int, stop: Int, pairs: Int) -> tuple[Int, Int]:
    """For pairs of runs start..stop, every element of the first with every one of the second."""
    sizes = stop - start
    n, m = sizes[pairs[:, 0]], sizes[pairs[:, 1]]
    which = np.repeat(np.arange(len(pairs)), n * m)
    inner = np.arange(len(which)) - np.repeat(np.cumsum(n * m) - n * m, n * m)
    return start[pairs[which, 0]] + inner // m[which], start[pairs[which, 1]] + inner % m[which]
