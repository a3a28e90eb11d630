"""Evaluation of models by protocols on data: resumable, over processes, the same numbers whatever the order.

Every frame becomes one line of `frames/MODEL/PROTOCOL.jsonl`. Lines are appended as frames are done, so that an
interrupt loses the frames in work alone; a finished file is sorted and rewritten whole. Batches are fixed by the
numbers of their frames, so that networks see the same batches in every run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from metricanything import __version__
from metricanything.core.errors import InputError
from metricanything.core.files import read_json, write_json, write_text
from metricanything.evaluation.datasets import Dataset, open_data
from metricanything.evaluation.measuring import answers, as_input_error, make_case, measure
from metricanything.evaluation.protocol import Protocol
from metricanything.evaluation.subjects import Subject, open_subject

Row = dict[str, Any]
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Settings:
    """What is evaluated and how; every field but `workers` can change numbers and is recorded.

    data: folder. models: names for `subjects.open_subject`. batch_size: None = what suits each model. threads: of each
    process; sums over other numbers of threads differ in the last digits.
    """

    data: str
    models: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    split: str = "not stated"
    depth_scale: float | None = None
    fov_x: float | None = None
    device: str | None = None
    dtype: str | None = None
    max_side: int | None = None
    batch_size: int | None = None
    threads: int = 1
    limit: int | None = None
    workers: int = 1


@dataclass(frozen=True)
class Done:
    """Rows of one model by one protocol, in the order of the frames; those with "error" have no numbers.

    model: its record; model_name: as in `Settings.models`.
    """

    model_name: str
    model: dict[str, Any]
    protocol: Protocol
    rows: list[Row]


@lru_cache(maxsize=1)
def subject_of(settings: Settings, name: str) -> Subject:
    """The model, loaded once per process."""
    import torch

    torch.set_num_threads(settings.threads)
    return open_subject(name, device=settings.device, dtype=settings.dtype, max_side=settings.max_side)


@lru_cache(maxsize=1)
def data_of(settings: Settings) -> Dataset:
    """The data, listed once per process; the first `limit` frames."""
    data = open_data(settings.data, depth_scale=settings.depth_scale, fov_x=settings.fov_x)
    limit = settings.limit
    return data if limit is None else Dataset(data.name, data.format, data.names[:limit], data.load)


def evaluate(
    settings: Settings,
    output: Path,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Done]:
    """Measure all models by all protocols into `output`; goes on where an earlier run with these settings was.

    progress: called with model and protocol, frames done and their number. Raises InputError for settings that do not
    fit each other or an earlier run in the folder, before anything is computed; frames that fail are rows with "error".
    """
    data = data_of(settings)
    if not len(data):
        raise InputError(f"{settings.data}: no frames found; give shards, or images with depth maps")
    records = {}
    for model in settings.models:
        subject = subject_of(settings, model)
        for protocol in settings.protocols:
            subject.check(protocol.prompted, protocol.name)
        records[model] = {**subject.record, "batch_size": settings.batch_size or subject.batch_size}
    _same_settings(settings, data, records, output)
    if settings.workers > 1:
        subject_of.cache_clear()  # the workers load their own, and memory for one more is not free
    done = []
    with _pool(settings) as pool:
        for model in settings.models:
            for protocol in settings.protocols:
                file = output / "frames" / slug(records[model]["name"]) / f"{slug(protocol.name)}.jsonl"
                report = _reporter(progress, f"{records[model]['name']} {protocol.name}", len(data))
                rows = _rows(_Job(settings, model, protocol), file, records[model]["batch_size"], pool, report)
                done.append(Done(model, records[model], protocol, rows))
    return done


def slug(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)


def _reporter(progress: Callable[[str, int, int], None], what: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(what, done, total)


def _same_settings(settings: Settings, data: Dataset, records: dict[str, Any], output: Path) -> None:
    """Write what was asked for, or raise InputError when the folder holds an evaluation of something else."""
    names = [slug(record["name"]) for record in records.values()]
    if len(set(names)) < len(names):
        raise InputError(f"two models have the name {max(names, key=names.count)}; rename one of the files")
    asked = {
        "code_version": __version__,
        "data": data.record(settings.split),
        "models": list(records.values()),
        "protocols": [protocol.record() for protocol in settings.protocols],
        "threads": settings.threads,
        "depth_scale": settings.depth_scale,
        "fov_x": settings.fov_x,
    }
    file, asked = output / _SETTINGS, json.loads(json.dumps(asked))
    if file.is_file() and (before := read_json(file)) != asked:
        changed = [key for key in asked if not isinstance(before, dict) or before.get(key) != asked[key]]
        raise InputError(
            f"{output}: holds an evaluation with other {', '.join(changed)}; give another --output, or --fresh to "
            "delete it"
        )
    write_json(file, asked)


# ---------------------------------------------------------------- one model by one protocol


@dataclass(frozen=True)
class _Job:
    settings: Settings
    model: str
    protocol: Protocol


def _rows(
    job: _Job, file: Path, size: int, pool: ProcessPoolExecutor | None, report: Callable[[int], None]
) -> list[Row]:
    data = data_of(job.settings)
    rows = {row["frame"]: row for row in _read(file, data.names)}
    batches = [range(i, min(i + size, len(data))) for i in range(0, len(data), size)]
    missing = [batch for batch in batches if any(number not in rows for number in batch)]
    report(len(rows))
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Appended to and not renamed: what is done has to be on the disk before the rest is.
        with open(file, "a", encoding="utf-8") as lines:
            for batch_rows in _computed(job, missing, pool):
                for row in batch_rows:
                    if row["frame"] not in rows:
                        rows[row["frame"]] = row
                        lines.write(_line(row))
                lines.flush()
                os.fsync(lines.fileno())
                report(len(rows))
    ordered = [rows[number] for number in sorted(rows)]
    write_text(file, "".join(map(_line, ordered)))
    return ordered


def _line(row: Row) -> str:
    return json.dumps(row, sort_keys=True, allow_nan=False) + "\n"


def _read(file: Path, names: Sequence[str]) -> Iterator[Row]:
    """The whole lines of an earlier run without those of failed frames, which may work by now; the file is cut so."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            fits = names[row["frame"]] == row["name"] and "error" not in row
        except (ValueError, KeyError, TypeError, IndexError):
            continue  # torn by a kill: that frame is computed again
        if fits:
            kept.append(row)
    write_text(file, "".join(map(_line, kept)))
    yield from kept


def _computed(job: _Job, batches: Sequence[range], pool: ProcessPoolExecutor | None) -> Iterator[list[Row]]:
    """Rows of batches as they are done, in any order; few are under way at a time."""
    if pool is None:
        for batch in batches:
            yield measure_batch(job, batch)
        return
    left, running = iter(batches), set[Future[list[Row]]]()
    try:
        while True:
            for batch in left:
                running.add(pool.submit(measure_batch, job, batch))
                if len(running) > job.settings.workers:
                    break
            if not running:
                return
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                yield future.result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was ended from outside, most often for lack of memory; use fewer --workers or a smaller "
            "--batch-size: the same command goes on where it was"
        ) from None


@contextmanager
def _pool(settings: Settings) -> Iterator[ProcessPoolExecutor | None]:
    if settings.workers == 1:
        yield None
        return
    # Spawned: forked processes of a program that has used threads may hang.
    pool = ProcessPoolExecutor(settings.workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Leave interrupts to the main process, end when it ends in whatever way, and warn in one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    main = parent_process()
    if main is not None:
        # A worker waits for work on a pipe that its siblings hold open, and would outlive a killed main process.
        threading.Thread(target=_end_after, args=(main,), daemon=True).start()


def _end_after(main: BaseProcess) -> None:
    main.join()
    os._exit(1)


def measure_batch(job: _Job, batch: range) -> list[Row]:
    """The rows of the frames of these numbers, measured in this process."""
    data, subject, protocol = data_of(job.settings), subject_of(job.settings, job.model), job.protocol
    rows: list[Row] = []
    cases = []
    for number in batch:
        row: Row = {"frame": number, "name": data.names[number]}
        rows.append(row)
        try:
            cases.append((row, make_case(protocol, data.load(number))))
        except Exception as error:
            row["error"] = _relative(error, job.settings)
    for (row, case), answer in zip(cases, answers(subject, [case for _, case in cases]), strict=True):
        try:
            if isinstance(answer, InputError):
                raise answer
            row.update(measure(protocol, case, answer))
        except Exception as error:
            row["error"] = _relative(error, job.settings)
    return rows


def _relative(error: Exception, settings: Settings) -> str:
    """The message on one line, with paths below the data folder, so that results do not depend on where it lies."""
    return " ".join(str(as_input_error(error)).replace(f"{Path(settings.data)}/", "").split())
