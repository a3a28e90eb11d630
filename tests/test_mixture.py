"""Micro-batches over sources, ranks and workers: exact shares, exact resume, damaged frames replaced."""

from __future__ import annotations

import pickle
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_batches import assert_same

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.data.batches import Batch
from metricanything.data.loader import load
from metricanything.data.mixture import Mixture

MakeFrame = Callable[..., Frame]
MakeShards = Callable[..., Shards]
REAL = {"source": "drive", "kind": "reconstructed", "sensor": "sfm", "scale": "up_to_scale"}


@pytest.fixture
def sets(make_frame: MakeFrame, make_shards: MakeShards) -> list[Shards]:
    """Seven frames of `planes` in two folders, the second of which also has four of `drive`."""
    first = make_shards([make_frame(seed) for seed in range(5)], frames_per_shard=2)
    drive = [make_frame(seed, name=f"drive/{seed}", **REAL) for seed in range(4)]
    return [first, make_shards([*drive, make_frame(5), make_frame(6)])]


def mixture(sets: list[Shards], **options: object) -> Mixture:
    return Mixture(sets, **{"sizes": ((32, 64), (64, 32)), "batch_size": 3, "seed": 0, **options})


def names(data: Mixture, numbers: range) -> list[str]:
    """Names of the frames of micro-batches, from the index alone."""
    samples = [data.samples(number) for number in numbers]
    places = zip(np.concatenate([s.set for s in samples]), np.concatenate([s.row for s in samples]), strict=True)
    return [data.sets[of_set].name(int(row)) for of_set, row in places]


def test_samples_are_those_of_the_batch(sets: list[Shards]) -> None:
    data = mixture(sets)
    for number in range(6):
        batch, samples = data.batch(number), data.samples(number)
        assert list(batch.names) == names(data, range(number, number + 1))
        assert list(batch.sources) == [data.sources[code] for code in samples.source]
        assert list(batch.rows) == list(zip(samples.set.tolist(), samples.row.tolist(), strict=True))


def test_every_frame_once_before_any_twice(sets: list[Shards]) -> None:
    data = mixture(sets, weights={"planes": 3, "drive": 1})
    drawn = names(data, range(100))
    for source, size in (("planes", 7), ("drive", 4)):
        own = [name for name in drawn if name.startswith(source)]
        epochs = [own[i : i + size] for i in range(0, len(own) - size + 1, size)]
        assert all(len(set(epoch)) == size for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2  # shuffled anew, not repeated


@pytest.mark.parametrize(("options", "share"), [
    ({}, 2 / (2 + 7**0.5)),
    ({"temperature": 1.0}, 4 / 11),
    ({"temperature": 0.0}, 1 / 2),
    ({"weights": {"drive": 1, "planes": 4}}, 1 / 5),
])  # fmt: skip
def test_shares_are_exact(sets: list[Shards], options: dict[str, object], share: float) -> None:
    data = mixture(sets, **options)
    assert data.shares["drive"] == pytest.approx(share)
    counts = Counter(name.split("/")[0] for name in names(data, range(200)))
    assert abs(counts["drive"] - 600 * share) < 2


def test_quarantined_frames_are_left_out(sets: list[Shards], monkeypatch: pytest.MonkeyPatch) -> None:
    data = mixture([kept(sets[0], [0, 3]), kept(sets[1], [4, 5])])
    assert data.sources == ("planes",)  # nothing of `drive` is kept
    expected = {sets[0].name(0), sets[0].name(3), sets[1].name(4), sets[1].name(5)}
    assert set(names(data, range(40))) == expected
    with pytest.raises(InputError, match="planes"):
        mixture([kept(sets[0], [0, 3])], weights={"drive": 1.0})
    with pytest.raises(InputError, match="no frames"):
        mixture([kept(sets[0], [])])


def kept(shards: Shards, rows: list[int]) -> Shards:
    """The same shards, with these rows alone kept."""
    copy = Shards(shards.folder)
    copy.__dict__["kept"] = np.array(rows, dtype=np.int64)
    return copy


# ---------------------------------------------------------------- ranks, workers, resume


def collected(data: Mixture, start: int, stop: int, **options: object) -> list[tuple[int, Batch]]:
    return list(load(data, start, stop, **options))


def test_any_rank_count_sees_the_same_global_batches(sets: list[Shards]) -> None:
    data = mixture(sets, micro_batches=4)
    whole = collected(data, 1, 3)
    assert [number for number, _ in whole] == [4, 5, 6, 7, 8, 9, 10, 11]
    for step in (1, 2):  # one size for a whole step
        assert len({b.depth_BHW.shape for q, b in whole if q // 4 == step}) == 1
    for ranks in (2, 4):
        parts = [pair for rank in range(ranks) for pair in collected(data, 1, 3, rank=rank, ranks=ranks)]
        parts.sort(key=lambda pair: pair[0])
        assert [number for number, _ in parts] == [number for number, _ in whole]
        for (_, one), (_, other) in zip(whole, parts, strict=True):
            assert_same(one, other)
    with pytest.raises(InputError, match="must divide the 4 micro-batches"):
        collected(data, 0, 1, rank=0, ranks=3)
    with pytest.raises(InputError, match="rank 2 of 2"):
        collected(data, 0, 1, rank=2, ranks=2)


def draw_numbers(batch: Batch, number: int) -> Batch:
    """A `prepare` that leaves its trace."""
    return replace(batch, prompt_BHW=torch.full_like(batch.depth_BHW, float(number)))


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_bit_identical(sets: list[Shards], workers: int) -> None:
    """From any step, by a thread or by processes, however large the time between; the global generator is not used."""
    data = mixture(sets)
    expected = [draw_numbers(data.batch(number), number) for number in range(5)]
    state = torch.get_rng_state()
    resumed = collected(pickle.loads(pickle.dumps(data)), 2, 5, workers=workers, prepare=draw_numbers)
    assert torch.equal(torch.get_rng_state(), state)
    assert [number for number, _ in resumed] == [2, 3, 4]
    for number, batch in resumed:
        assert_same(batch, expected[number])
        assert batch.image_B3HW.stride() == expected[number].image_B3HW.stride()  # channels last, through the worker
        assert batch.image_B3HW.is_contiguous(memory_format=torch.channels_last)
    assert collected(data, 3, 3, workers=workers) == []


def test_first_batch_comes_without_the_others(sets: list[Shards]) -> None:
    number, _ = next(load(mixture(sets), 0, 10**12))
    assert number == 0


# ---------------------------------------------------------------- damage


def damage(shards: Shards, row: int) -> str:
    """Overwrite the image of a frame; its name."""
    where, members = shards.encoded(row)
    tar = Path(where.rsplit(":", 1)[0])
    content = tar.read_bytes()
    image = members["image"]
    tar.write_bytes(content.replace(image, bytes(len(image))))
    return shards.name(row)


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_frame_is_replaced_and_reported_once(sets: list[Shards], workers: int) -> None:
    data = mixture(sets, weights={"planes": 1.0})
    before = [data.batch(number) for number in range(6)]
    name = damage(sets[0], 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        after = [batch for _, batch in load(data, 0, 6, workers=workers)]
    messages = [str(w.message) for w in caught if "another frame takes its place" in str(w.message)]
    assert len(messages) == 1
    assert name in messages[0]
    assert "shard-" in messages[0]
    assert sum(len(batch.damaged) for batch in after) == sum(b.names.count(name) for b in before) >= 2
    drawn = [n for batch in before for n in batch.names]
    for i, (old, new) in enumerate(zip(drawn, [n for batch in after for n in batch.names], strict=True)):
        if old == name:
            assert new == drawn[i + 1] if i + 1 < len(drawn) else new != name  # the next of the source
        else:
            assert new == old
    for one, other in zip(after, (data.batch(number) for number in range(6)), strict=True):
        assert_same(one, other)


def test_a_source_of_damaged_frames_is_given_up(sets: list[Shards]) -> None:
    for row in range(4):
        damage(sets[1], row)
    with pytest.raises(InputError, match="drive: 17 frames in a row cannot be read"):
        mixture(sets, weights={"drive": 1.0}).batch(0)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"micro_batches": 0}, {"sizes": ()}])
def test_bad_settings(sets: list[Shards], options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="at least"):
        mixture(sets, **options)


# ---------------------------------------------------------------- batches


def test_developing_later_is_the_same(sets: list[Shards]) -> None:
    late = mixture(sets, develop=False).batch(0)
    assert late.image_B3HW.dtype == torch.uint8
    assert_same(late.to("cpu").developed(), mixture(sets).batch(0))


def test_to_moves_all_but_the_parameters(sets: list[Shards]) -> None:
    batch = draw_numbers(mixture(sets, develop=False).batch(0), 0).to("meta")
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    assert {name for name, value in tensors.items() if value.device.type != "meta"} == {"photometric_BP"}
    assert len(tensors) == 8
    assert len(batch) == 3


def test_kinds_limit_the_frames(sets: list[Shards]) -> None:
    data = mixture(sets, kinds=("rendered",), weights={"planes": 1, "drive": 5})
    assert data.sources == ("planes",)
    assert all(name.startswith("planes") for name in names(data, range(10)))
    with pytest.raises(InputError, match="nothing to train on"):
        mixture(sets, kinds=("captured",))


def test_fewer_pairs_are_among_more(sets: list[Shards]) -> None:
    drawn = [set(names(mixture(sets, pairs=pairs), range(40))) for pairs in (2, 5, 8, 100)]
    assert [len(one) for one in drawn] == [2, 5, 8, 11]
    assert all(fewer < more for fewer, more in pairwise(drawn))
    assert all({name.split("/")[0] for name in one} == {"planes", "drive"} for one in drawn)
    with pytest.raises(InputError, match="at least the number of sources, 2, got 1"):
        mixture(sets, pairs=1)
