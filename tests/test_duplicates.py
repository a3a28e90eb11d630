"""Similar images by hashes: the same pairs as comparing all with all, at any number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricanything.curate.duplicates import earlier_equal, hamming, overlaps, similar_pairs


def planted(seed: int, count: int) -> np.ndarray:
    """Random hashes, many of them copies of an earlier one with up to five other bits, some missing."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**64, count, dtype=np.uint64)
    for i in range(1, count):
        if rng.random() < 0.5:
            hashes[i] = hashes[rng.integers(i)]
            for bit in rng.integers(0, 64, rng.integers(0, 6)):
                hashes[i] ^= np.uint64(1) << np.uint64(bit)
    hashes[rng.random(count) < 0.05] = 0
    return hashes


def test_hamming_distance_counts_bits() -> None:
    a, b = planted(0, 50), planted(1, 50)
    assert list(hamming(a, b)) == [bin(int(x) ^ int(y)).count("1") for x, y in zip(a, b, strict=True)]


@given(st.integers(0, 1000), st.integers(0, 5), st.booleans())
def test_pairs_are_those_of_comparing_all_with_all(seed: int, distance: int, grouped: bool) -> None:
    hashes = planted(seed, 120)
    groups = np.random.default_rng(seed).integers(0, 3, 120) if grouped else None
    own = np.zeros(120, int) if groups is None else groups
    first = (hashes != 0) & (earlier_equal(hashes, groups) < 0)
    close = (hamming(hashes[:, None], hashes[None]) <= distance) & (own[:, None] == own[None])
    expected = np.argwhere(np.triu(close & first[:, None] & first[None], 1)).tolist()
    assert similar_pairs(hashes, distance, groups).tolist() == expected


@given(st.integers(0, 1000))
def test_the_first_frame_with_the_same_hash(seed: int) -> None:
    hashes, groups = planted(seed, 80), np.random.default_rng(seed).integers(0, 2, 80)
    found = earlier_equal(hashes, groups)
    for i in range(80):
        same = [j for j in range(i) if hashes[i] and hashes[j] == hashes[i] and groups[j] == groups[i]]
        assert found[i] == (same[0] if same else -1)


@given(st.integers(0, 1000), st.integers(0, 4))
def test_overlaps_count_every_frame_once(seed: int, distance: int) -> None:
    hashes, groups = planted(seed, 100), np.random.default_rng(seed).integers(0, 4, 100)
    close = (hamming(hashes[:, None], hashes[None]) <= distance) & (hashes[:, None] != 0) & (hashes[None] != 0)
    expected = {}
    for a in range(4):
        for b in range(4):
            count = int(close[np.ix_(groups == a, groups == b)].any(axis=1).sum())
            if a != b and count:
                expected[a, b] = count
    found = overlaps(hashes, groups, distance)
    assert {(o.first, o.second): o.frames for o in found} == expected
    for o in found:
        i, j = o.example
        assert groups[i] == o.first and groups[j] == o.second and close[i, j]


def test_a_camera_that_stands_still_gives_few_pairs() -> None:
    hashes = np.full(200_000, 12345, dtype=np.uint64)
    hashes[100_000:] ^= np.uint64(1)
    assert similar_pairs(hashes, 4).tolist() == [[0, 100_000]]
    assert [o.frames for o in overlaps(hashes, np.arange(200_000) % 2, 4)] == [100_000, 100_000]


@pytest.mark.parametrize("function", [lambda h: similar_pairs(h, 4).shape == (0, 2), lambda h: overlaps(h, h, 4) == []])
def test_no_frames_no_pairs(function: Callable[[np.ndarray], bool]) -> None:
    assert function(np.zeros(0, dtype=np.uint64)) and function(np.zeros(5, dtype=np.uint64))
