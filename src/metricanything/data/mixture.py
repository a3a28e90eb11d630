"""Shards -> mixture -> augmentation -> batch.

Micro-batch q is a pure function of the settings and q: which frames, which crops, which colours. Training that resumes
at a step therefore sees exactly what it would have seen, without any state to store. Sample i of micro-batch q is draw
q B + i of one endless sequence (`order`), whatever the number of ranks and workers that share the work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.frame import KINDS, Kind
from metricanything.curate.shards import Shards
from metricanything.data.augment import Augmentation, View, planes, random_colours
from metricanything.data.batches import Batch
from metricanything.data.order import Interleaving, hashed, permuted
from metricanything.data.views import Label, read_view

Int64 = NDArray[np.int64]

_ATTEMPTS = 16  # frames in a row that cannot be read before a source is given up


@dataclass(frozen=True)
class Samples:
    """Which frames a micro-batch holds; all int64 (B,)."""

    source: Int64
    """Number in `Mixture.sources`."""
    set: Int64
    """Number of the shard folder."""
    row: Int64
    """Row of that folder."""
    epoch: Int64
    """How often all frames of the source were drawn before."""


class Mixture:
    """A weighted mixture of the sources of one or more shard folders; quarantined frames are left out.

    sizes: (height, width) of the views, one drawn per training step of `micro_batches` micro-batches.
    weights: relative share of each source, 0 for those it does not name. By default a source of n frames has a share in
        proportion to n ** temperature: by the default of 0.5, small real sources are not drowned by large rendered
        ones.
    kinds: only frames of these kinds; weights of sources without any do not count.
    pairs: only so many frames, of every source in proportion and at least one; fewer are always among more, as a
        scaling law wants it.
    develop: False leaves colours to `Batch.developed`, for the device that will train: images then travel as uint8.

    Within a source every frame comes once before any comes twice. Raises InputError for weights of unknown sources.
    """

    def __init__(
        self,
        shards: Shards | Sequence[Shards],
        *,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
        temperature: float = 0.5,
        micro_batches: int = 1,
        augmentation: Augmentation | None = None,
        develop: bool = True,
        kinds: Sequence[Kind] = KINDS,
        pairs: int | None = None,
    ) -> None:
        if batch_size < 1 or micro_batches < 1 or not sizes:
            raise InputError(
                f"mixture needs at least one image in a batch, micro-batch in a step and size, got {batch_size}, "
                f"{micro_batches}, {sizes}"
            )
        self.sizes, self.batch_size, self.seed = tuple(sizes), batch_size, seed
        self.micro_batches, self.augmentation, self.develop = micro_batches, augmentation or Augmentation(), develop
        self.sets = tuple(shards) if isinstance(shards, Sequence) else (shards,)
        self.sources, self._rows, self._start, self._first = _by_source(self.sets, kinds)
        if pairs is not None:
            self._rows, self._start = _limited(self._rows, self._start, pairs)
        self._size = np.diff(self._start)
        if not self.sources:
            raise InputError(
                f"{', '.join(str(one.folder) for one in self.sets)}: no frames of the kinds {', '.join(kinds)} are "
                "kept; nothing to train on"
            )
        if weights is None:
            weights = dict(zip(self.sources, (self._size.astype(float) ** temperature).tolist(), strict=True))
        share = np.array([weights.get(name, 0.0) for name in self.sources], dtype=float)
        known = {name for one in self.sets for name in one.coded("source")[1]}
        if not set(weights) <= known or not (share >= 0).all() or not 0 < share.sum() < np.inf:
            raise InputError(f"mixture weights {weights} must be >= 0, for sources among {', '.join(self.sources)}")
        self.shares: dict[str, float] = dict(zip(self.sources, (share / share.sum()).tolist(), strict=True))
        self._interleaving = Interleaving(share.tolist(), seed)

    @property
    def pairs(self) -> int:
        """How many frames there are to draw, of sources with a share."""
        return int(self._size[np.array(list(self.shares.values())) > 0].sum())

    def samples(self, number: int) -> Samples:
        """The frames of micro-batch `number`, without reading any."""
        return self._frames(*self._interleaving.draw(self._draws(number)))

    def batch(self, number: int) -> Batch:
        """Micro-batch `number`; all its images have one of `sizes`.

        A frame that cannot be read is replaced by the next of its source and named in `damaged`. Raises InputError
        when many in a row cannot be read.
        """
        size = self.sizes[int(hashed(self.seed, number // self.micro_batches)[0] % np.uint64(len(self.sizes)))]
        draws = self._draws(number)
        source, count = self._interleaving.draw(draws)
        frames, damaged = self._frames(source, count), list[str]()
        samples = []
        for i, draw in enumerate(draws.tolist()):
            sample = self._read(int(frames.set[i]), int(frames.row[i]), draw, size, damaged)
            samples.append(sample or self._read_another(source[i], count[i], draw, size, damaged))
        batch = _stacked(samples, [self.sources[code] for code in source], damaged)
        return batch.developed() if self.develop else batch

    def _draws(self, number: int) -> Int64:
        return number * self.batch_size + np.arange(self.batch_size, dtype=np.int64)

    def _frames(self, source: Int64, count: Int64) -> Samples:
        """The frames of draws `count` of each source."""
        epoch, index = np.divmod(count, self._size[source])
        index = permuted(index, self._size[source], hashed(self.seed, source, epoch))
        row = self._rows[self._start[source] + index].astype(np.int64)
        of_set = np.searchsorted(self._first, row, side="right") - 1
        return Samples(source, of_set, row - self._first[of_set], epoch)

    def _read(self, of_set: int, row: int, draw: int, size: tuple[int, int], damaged: list[str]) -> _Sample | None:
        """The view of a row, with the randomness of a draw; None, its reason in `damaged`, when it cannot be read."""
        rng = np.random.default_rng((self.seed, draw))
        try:
            view, label = read_view(self.sets[of_set], row, rng, size, self.augmentation)
        except InputError as error:
            damaged.append(str(error))
            return None
        return _Sample(view, label, random_colours(rng, self.augmentation), (of_set, row))

    def _read_another(
        self, source: np.int64, count: np.int64, draw: int, size: tuple[int, int], damaged: list[str]
    ) -> _Sample:
        """The first readable frame after draw `count` of a source."""
        candidates = self._frames(np.full(_ATTEMPTS, source), count + 1 + np.arange(_ATTEMPTS))
        for of_set, row in zip(candidates.set.tolist(), candidates.row.tolist(), strict=True):
            sample = self._read(of_set, row, draw, size, damaged)
            if sample is not None:
                return sample
        raise InputError(
            f"{self.sources[source]}: {_ATTEMPTS + 1} frames in a row cannot be read; the last: {damaged[-1]}"
        )


@dataclass(frozen=True)
class _Sample:
    view: View
    label: Label
    colours: NDArray[np.float32]
    place: tuple[int, int]


def _stacked(samples: Sequence[_Sample], sources: Sequence[str], damaged: Sequence[str]) -> Batch:
    views, labels = [sample.view for sample in samples], [sample.label for sample in samples]
    return Batch(
        image_B3HW=torch.from_numpy(np.stack([view.image.transpose(2, 0, 1) for view in views])),
        depth_BHW=torch.from_numpy(np.stack([view.depth for view in views])),
        focal_B=torch.tensor([view.camera.fx / view.camera.width for view in views], dtype=torch.float32),
        plane_BHW2=torch.from_numpy(planes([view.camera for view in views])),
        trusted_B=torch.tensor([label.trusted for label in labels]),
        metric_B=torch.tensor([label.metric for label in labels]),
        sparse_B=torch.tensor([label.sparse for label in labels]),
        names=tuple(label.name for label in labels),
        sources=tuple(sources),
        rows=tuple(sample.place for sample in samples),
        photometric_BP=torch.from_numpy(np.stack([sample.colours for sample in samples])),
        damaged=tuple(damaged),
    )


def _by_source(
    sets: Sequence[Shards], kinds: Sequence[Kind]
) -> tuple[tuple[str, ...], NDArray[np.integer], Int64, Int64]:
    """Names of the sources; kept rows ordered by source; where each source starts there; the first row of each set.

    Rows of several sets count on from one to the next. Four bytes a row, as long as they suffice.
    """
    first = np.cumsum([0, *map(len, sets)])
    coded = [one.coded("source") for one in sets]
    names = sorted({name for _, texts in coded for name in texts})
    number = {name: i for i, name in enumerate(names)}
    kept = [one.kept[_of_kind(one, kinds)] for one in sets]
    code = np.concatenate(
        [
            np.array([number[t] for t in texts], np.int16)[codes[own]]
            for (codes, texts), own in zip(coded, kept, strict=True)
        ]
    )
    order = np.argsort(code, kind="stable")
    rows = np.concatenate([own + start for own, start in zip(kept, first[:-1], strict=True)])
    rows = rows.astype(np.int32 if first[-1] < 2**31 else np.int64)[order]
    count = np.bincount(code, minlength=len(names))
    present = np.flatnonzero(count)
    return tuple(names[i] for i in present), rows, np.concatenate([[0], np.cumsum(count[present])]), first[:-1]


def _of_kind(one: Shards, kinds: Sequence[Kind]) -> NDArray[np.bool_]:
    codes, names = one.coded("kind")
    return np.array([name in kinds for name in names], dtype=bool)[codes[one.kept]]


def _limited(rows: NDArray[np.integer], start: Int64, pairs: int) -> tuple[NDArray[np.integer], Int64]:
    """About `pairs` rows, of every source in proportion and at least one: those that a fixed order puts first."""
    size = np.diff(start)
    if pairs < len(size):
        raise InputError(f"pairs must be at least the number of sources, {len(size)}, got {pairs}")
    take = np.clip(np.round(pairs * size / max(size.sum(), 1)).astype(np.int64), 1, size)
    source = np.repeat(np.arange(len(size)), size)
    order = np.lexsort((hashed(source, rows), source))  # sources stay where they are
    place = np.arange(len(rows)) - np.repeat(start[:-1], size)
    return rows[order][place < np.repeat(take, size)], np.concatenate([[0], np.cumsum(take)])
