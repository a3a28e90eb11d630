"""Carrying out a plan: in this process, in a pool of processes, or on a Ray cluster; the bytes are the same."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, Protocol

from metricanything.core.errors import InputError
from metricanything.core.memory import keep_memory
from metricanything.curate.pieces import Summary, begun, finish, skipped_so_far, write_planned
from metricanything.curate.plan import Plan

_AHEAD = 2  # shards handed out for each worker, so that none waits for the next
_POLL = 0.2  # seconds between two looks at the counters


class Watcher(Protocol):
    """Who is told how a run goes."""

    def advance(self, items: int, size: int) -> None:
        """So many more items are done, with so many bytes written; size 0 for those of an earlier run."""

    def skip(self, problem: str) -> None:
        """An item could not be read."""


def run_plan(plan: Plan, watcher: Watcher, *, workers: int | None = None, ray: str | None = None) -> Summary:
    """Write what is still missing of a plan, then its index.

    `workers` processes (by default one for every core), or the Ray cluster at the address `ray`, whose machines see the
    same files. Interrupted at any point, it goes on where it was when called again. Raises InputError (see `begun`,
    `finish`) and for a cluster that cannot be reached; what a worker raises otherwise.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    with begun(plan) as missing:
        done = set(range(plan.shards)) - set(missing)
        watcher.advance(sum(len(plan.numbers(shard)) for shard in done), 0)
        for problem in skipped_so_far(plan):
            watcher.skip(problem)
        if ray is not None:
            problems = _on_ray(plan, missing, watcher, ray)
        elif min(workers, len(missing)) > 1:
            problems = _in_pool(plan, missing, watcher, min(workers, len(missing)))
        else:
            problems = _here(plan, missing, watcher)
        for problem in problems:
            watcher.skip(problem)
        return finish(plan)


def _here(plan: Plan, shards: Sequence[int], watcher: Watcher) -> Iterator[str]:
    keep_memory()
    for shard in shards:
        yield from write_planned(plan, shard, watcher.advance)


# ---------------------------------------------------------------- a pool of processes


def _in_pool(plan: Plan, shards: Sequence[int], watcher: Watcher, workers: int) -> Iterator[str]:
    """Spawned, not forked, since threads of the libraries at hand do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    # A pair for every shard at hand: so each has one writer, and no lock that a killed process could take with it.
    counters = context.RawArray("q", 2 * _AHEAD * workers)
    free, told, coming = list(range(_AHEAD * workers)), [0, 0], iter(shards)

    def tell() -> None:
        now = [sum(counters[0::2]), sum(counters[1::2])]
        watcher.advance(now[0] - told[0], now[1] - told[1])
        told[:] = now

    with ProcessPoolExecutor(workers, context, _begin_worker, (counters,)) as pool:
        running: dict[Future[tuple[str, ...]], int] = {}
        try:
            while True:
                for shard in islice(coming, len(free)):
                    slot = free.pop()
                    running[pool.submit(_work, plan, shard, slot)] = slot
                if not running:
                    break
                finished, _ = wait(running, timeout=_POLL, return_when=FIRST_COMPLETED)
                tell()
                for future in finished:
                    free.append(running.pop(future))
                    yield from future.result()
        except BrokenProcessPool:
            raise RuntimeError("a worker process was killed, perhaps for lack of memory; run again to go on") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_counters: Any = None


def _begin_worker(counters: Any) -> None:
    global _counters
    _counters = counters
    os.environ["OMP_NUM_THREADS"] = "1"
    keep_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, which would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(plan: Plan, shard: int, slot: int) -> tuple[str, ...]:
    def count(items: int, size: int) -> None:
        _counters[2 * slot] += items
        _counters[2 * slot + 1] += size

    return write_planned(plan, shard, count)


# ---------------------------------------------------------------- Ray


def _on_ray(plan: Plan, shards: Sequence[int], watcher: Watcher, address: str) -> Iterator[str]:
    try:
        import ray
    except ImportError:
        raise InputError("--ray needs Ray; install it with `pip install 'metricanything[ray]'`") from None
    begun_here = not ray.is_initialized()
    if begun_here:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"--ray {address}: no Ray cluster reached ({reason}); start one or correct it") from None
    try:
        work = ray.remote(num_cpus=1, max_retries=3)(_work_on_ray)
        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        coming = iter(shards)
        running = [work.remote(plan, shard) for shard in islice(coming, ahead)]
        while running:
            finished, running = ray.wait(running)
            for reference in finished:
                items, size, problems = ray.get(reference)
                watcher.advance(items, size)
                yield from problems
            running += [work.remote(plan, shard) for shard in islice(coming, len(finished))]
    finally:
        if begun_here:
            ray.shutdown()


def _work_on_ray(plan: Plan, shard: int) -> tuple[int, int, tuple[str, ...]]:
    keep_memory()
    done = [0, 0]

    def count(items: int, size: int) -> None:
        done[0] += items
        done[1] += size

    problems = write_planned(plan, shard, count)
    return done[0], done[1], problems
