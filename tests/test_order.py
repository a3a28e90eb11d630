"""Draw j is computed, not stored: permutations are bijections, shares are exact, no frame twice before all once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metricanything.data.order import Interleaving, hashed, permuted


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutation_is_a_bijection(size: int, key: int) -> None:
    index = np.arange(size)
    image = permuted(index, np.full(size, size), np.full(size, key, np.uint64))
    np.testing.assert_array_equal(np.sort(image), index)


def test_permutations_of_mixed_sizes_and_keys_at_once() -> None:
    """Element by element the same as each alone."""
    rng = np.random.default_rng(0)
    size = rng.integers(1, 10**8, 200)
    index, key = rng.integers(0, size), rng.integers(0, 2**64, 200, dtype=np.uint64)
    together = permuted(index, size, key)
    alone = [permuted(index[i : i + 1], size[i : i + 1], key[i : i + 1])[0] for i in range(200)]
    np.testing.assert_array_equal(together, alone)
    assert (together < size).all()


@pytest.mark.parametrize("size", [3, 5, 12, 101])
def test_permutations_look_random(size: int) -> None:
    """Over many keys every place and every pair of neighbours is as frequent as chance has it (chi-square, 5 sigma)."""
    keys = 4000
    index, key = np.tile(np.arange(size), keys), np.repeat(hashed(0, np.arange(keys)), size)
    image = permuted(index, np.full(len(index), size), key).reshape(keys, size)
    step = (image[:, 1:] - image[:, :-1]) % size
    for observed, cells in ((image[:, 0], size), (image[:, -1], size), (step[:, 0] - 1, size - 1)):
        counts = np.bincount(observed, minlength=cells)
        chi2 = ((counts - keys / cells) ** 2 / (keys / cells)).sum()
        assert abs(chi2 - (cells - 1)) < 5 * np.sqrt(2 * (cells - 1))


@given(
    weights=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=30),
    seed=st.integers(0, 2**32 - 1),
    start=st.sampled_from([0, 1, 12345, 2**31 - 7, 2**40]),
)
def test_shares_hold_in_every_stretch(weights: list[float], seed: int, start: int) -> None:
    """Counts of any stretch differ from share times length by a few draws, one for every level of the tree."""
    share = np.array(weights) / sum(weights)
    source, count = Interleaving(weights, seed).draw(start + np.arange(2000))
    for length in (10, 300, 2000):
        counts = np.bincount(source[:length], minlength=len(share))
        assert np.abs(counts - share * length).max() < 1 + np.ceil(np.log2(len(share) + 1))
    for code in range(len(share)):
        own = count[source == code]
        np.testing.assert_array_equal(own, own[:1].repeat(len(own)) + np.arange(len(own)))
        if start == 0 and len(own):
            assert own[0] == 0


def test_sources_without_share_are_not_drawn() -> None:
    source, _ = Interleaving([0, 2, 0, 1, 0], seed=1).draw(np.arange(3000))
    assert set(source) == {1, 3}
    assert abs(np.count_nonzero(source == 1) - 2000) <= 2
    assert np.array_equal(Interleaving([0, 1], seed=1).draw(np.arange(9))[1], np.arange(9))


def test_seeds_interleave_differently() -> None:
    orders = {Interleaving([1, 0.77, 0.31], seed).draw(np.arange(500))[0].tobytes() for seed in range(8)}
    assert len(orders) == 8
