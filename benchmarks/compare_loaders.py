"""Which loader carries the micro-batches: torch's DataLoader, torchdata's StatefulDataLoader, or Grain.

    OMP_NUM_THREADS=1 python benchmarks/compare_loaders.py SHARDS --workers 2

Needs `pip install torchdata grain`; leaves out what is not installed. All three map the same numbers to the same
micro-batches of the mixture. Samples/s of wall time with that many workers, the loaders in turn; seconds from making
the loader at step 0 and at a late step to its first batch; size of the state to store; whether the batches after
resuming are bit for bit those of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from metricanything.core.memory import keep_memory
from metricanything.curate.shards import Shards
from metricanything.data.loader import load
from metricanything.data.mixture import Mixture

STEPS = 10**6
Maker = Callable[[Mixture, int, int], tuple[Iterator[Any], Callable[[], bytes]]]
"""mixture, step to start at, workers -> batches, and what gives the state."""


class Numbers(Dataset):
    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        return tensors(self.mixture.batch(number))


def tensors(batch: Any) -> dict[str, torch.Tensor]:
    return {key: value for key, value in vars(batch).items() if isinstance(value, torch.Tensor)}


def ours(mixture: Mixture, start: int, workers: int) -> tuple[Iterator[Any], Callable[[], bytes]]:
    """torch's DataLoader over a range: the state is the step."""
    batches = load(mixture, start, STEPS, workers=workers)
    return (tensors(batch) for _, batch in batches), lambda: str(start).encode()


class Sampler(Sequence[int]):
    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, number: int) -> int:  # type: ignore[override]
        if number >= STEPS:
            raise IndexError
        return number


def torchdata(mixture: Mixture, start: int, workers: int) -> tuple[Iterator[Any], Callable[[], bytes]]:
    from torchdata.stateful_dataloader import StatefulDataLoader

    def make() -> Any:
        return StatefulDataLoader(
            Numbers(mixture), batch_size=None, sampler=Sampler(), num_workers=workers, worker_init_fn=keep_memory
        )

    loader = make()
    if start:
        # A state as it stands after one batch, moved to the late step: running there would take days.
        iterator = iter(loader)
        next(iterator)
        state = moved(loader.state_dict(), start, workers)
        del iterator
        loader = make()
        loader.load_state_dict(state)
    return iter(loader), lambda: pickle.dumps(loader.state_dict())


def moved(state: Any, start: int, workers: int) -> Any:
    """The state with its counters of batches set to `start`."""
    if not isinstance(state, dict):
        return state
    counters = {"_num_yielded", "_sampler_iter_yielded", "_snapshot_step"}
    result = {key: start if key in counters else moved(value, start, workers) for key, value in state.items()}
    if "_last_yielded_worker_id" in result:
        result["_last_yielded_worker_id"] = (start - 1) % workers
    return result


def grain(mixture: Mixture, start: int, workers: int) -> tuple[Iterator[Any], Callable[[], bytes]]:
    import grain.python as pygrain

    def arrays(number: int) -> dict[str, np.ndarray]:
        return {key: value.numpy() for key, value in tensors(mixture.batch(int(number))).items()}

    reading = pygrain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    data = pygrain.MapDataset.range(STEPS).map(arrays).to_iter_dataset(reading)
    if workers:
        data = data.mp_prefetch(pygrain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    iterator = iter(data)
    if start:
        iterator.set_state(placed(iterator.get_state(), start, workers))
    return iterator, lambda: json.dumps(iterator.get_state()).encode()


def placed(state: Any, start: int, workers: int) -> Any:
    """Grain's state, moved to the late step: worker i makes every batch of which i is the remainder."""
    if not workers:
        return {**state, "next_index": start}
    parts = [{"next_index": start // workers + (worker < start % workers)} for worker in range(workers)]
    return {
        **state,
        "next_index_in_cycle": start % workers,
        "next_index_in_datasets": workers,
        "iterators_in_use_indices": list(range(workers)),
        "iterators_in_use_states": parts,
        "exhausted": [0] * workers,
    }


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(np.asarray(a[key]), np.asarray(b[key]), equal_nan=True) for key in b)


def measure(make: Maker, mixture: Mixture, workers: int, late: int, count: int) -> dict[str, Any]:
    times = {}
    for start in (0, late):
        started = time.perf_counter()
        batches, state = make(mixture, start, workers)
        first = next(batches)
        times[start] = time.perf_counter() - started
        exact = equal(first, tensors(mixture.batch(start)))
        if start:
            exact = exact and all(equal(next(batches), tensors(mixture.batch(start + i))) for i in (1, 2))
        for _ in range(2 * workers + 2):
            next(batches)
        started = time.perf_counter()
        for _ in range(count):
            next(batches)
        rate = count * mixture.batch_size / (time.perf_counter() - started)
        size = len(state())
        if hasattr(batches, "close"):
            batches.close()
        del batches
    return {"rate": rate, "first": times[0], "late": times[late], "state": size, "exact": exact}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--late", type=int, default=500_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    mixture = Mixture(Shards(args.shards), sizes=((args.side, args.side),), batch_size=args.batch, seed=0)
    makers: dict[str, Maker] = {"DataLoader": ours, "StatefulDataLoader": torchdata, "Grain": grain}
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(args.rounds):
        for name, make in makers.items():
            try:
                measured = measure(make, mixture, args.workers, args.late, args.count)
                results.setdefault(name, []).append(measured)
            except ImportError as error:
                print(f"{name}: left out ({error})")
    print(f"{args.workers} workers, batches of {args.batch} views of {args.side}x{args.side}, late step {args.late}")
    print("| loader | samples/s | first batch, s | first batch of the late step, s | state, bytes | exact |")
    print("|---|---|---|---|---|---|")
    for name, rounds in results.items():
        rate, first, late, state = (np.median([r[key] for r in rounds]) for key in ("rate", "first", "late", "state"))
        exact = all(r["exact"] for r in rounds)
        print(f"| {name} | {rate:.0f} | {first:.2f} | {late:.2f} | {state:.0f} | {'yes' if exact else 'no'} |")


if __name__ == "__main__":
    main()
