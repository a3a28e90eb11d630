"""Plans of shards: the same bytes by any workers and after any interruption, nothing lost, nothing doubled."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metricanything.core import codecs
from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.curate.codec import Encoding
from metricanything.curate.plan import Plan, make_plan
from metricanything.curate.running import run_plan
from metricanything.curate.shards import Shards
from metricanything.curate.writing import Curation

ITEMS = 7
DAMAGED = (0, 4)


@pytest.fixture(scope="module")
def data(make_frame: Callable[..., Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames in the `folder` format; the images of numbers 0 and 4 are cut off."""
    folder = tmp_path_factory.mktemp("raw") / "data"
    for number in range(ITEMS):
        frame, place = make_frame(number, 20, 30), folder / f"{number:03d}"
        codecs.write_image(place / "image.jpg", frame.image)
        codecs.write_depth_log_png(place / "depth.png", frame.depth)
        (place / "meta.json").write_text(json.dumps(frame.camera.to_dict()))
    for number in DAMAGED:
        image = folder / f"{number:03d}" / "image.jpg"
        image.write_bytes(image.read_bytes()[:300])
    return folder


@dataclass
class Watch:
    """Counts, and calls `at_item` with the number of items done so far."""

    at_item: Callable[[int], None] = lambda done: None
    items: int = 0
    size: int = 0
    skipped: list[str] = field(default_factory=list)

    def advance(self, items: int, size: int) -> None:
        self.items += items
        self.size += size
        self.at_item(self.items)

    def skip(self, problem: str) -> None:
        self.skipped.append(problem)


def plan(data: Path, output: Path, **changes: Any) -> Plan:
    """Three shards: items 0 to 2 (one damaged), 3 to 5 (one damaged) and 6."""
    return make_plan("folder", data, output, {}, **{"frames_per_shard": 3, **changes})


def judged(data: Path, output: Path, **changes: Any) -> Plan:
    """The plan of the command line: frames are measured and judged."""
    from metricanything.curate import quality, rules

    return plan(data, output, curation=Curation(quality.measure, rules.decide), **changes)


def contents(folder: Path) -> dict[str, str]:
    """Every file and folder below, with the hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an uninterrupted run of one process gives."""
    output = tmp_path_factory.mktemp("whole")
    run_plan(plan(data, output), Watch(), workers=1)
    return contents(output)


def test_a_plan_writes_what_can_be_read(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    watch = Watch()
    summary = run_plan(plan(data, tmp_path), watch, workers=1)
    assert sorted(whole) == ["index.arrow", *(f"shard-00000{n}.tar" for n in range(3)), "skipped.txt"]
    assert (summary.frames, summary.kept, watch.items) == (5, 5, ITEMS)
    assert list(summary.skipped) == watch.skipped == (tmp_path / "skipped.txt").read_text().splitlines()
    assert [Path(problem.split(": ")[0]) for problem in summary.skipped] == [
        data / f"{number:03d}" / "image.jpg" for number in DAMAGED
    ]
    shards = Shards(tmp_path)
    assert [shards.frame(n).name for n in range(len(shards))] == ["001", "002", "003", "005", "006"]
    assert shards.column("shard").tolist() == [0, 0, 1, 1, 2]
    for number, key in enumerate(["00000001", "00000003", "00000006"]):  # the items' own numbers
        with tarfile.open(tmp_path / f"shard-{number:06d}.tar") as tar:
            assert tar.getnames()[:3] == [f"{key}.jpg", f"{key}.depth.png", f"{key}.json"]
    assert watch.size == sum(int(shards.column(f"{m}_size").sum()) for m in ("image", "depth", "sigma", "json"))


def test_a_shard_without_frames_is_left_out(data: Path, tmp_path: Path) -> None:
    summary = run_plan(plan(data, tmp_path, frames_per_shard=1), Watch(), workers=1)
    assert summary.frames == 5
    assert len(list(tmp_path.glob("*.tar"))) == 5 and not (tmp_path / "shard-000004.tar").exists()
    assert Shards(tmp_path).column("shard").tolist() == [1, 2, 3, 5, 6]


def test_nothing_readable(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    for image in (tmp_path / "data").rglob("image.jpg"):
        image.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 7 items could be read"):
        run_plan(plan(tmp_path / "data", tmp_path / "out"), Watch(), workers=1)
    assert contents(tmp_path / "out") == {}


# ---------------------------------------------------------------- killed


def killed_at(event: int, data: Path, output: Path) -> bool:
    """Run the plan in a forked process that kills itself just before disk operation number `event`; whether it did."""

    def run() -> None:
        left = event

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **named)

            return call

        for owner, name in ((os, "replace"), (Path, "unlink"), (Path, "rmdir")):
            setattr(owner, name, counted(getattr(owner, name)))
        tarfile.TarFile.addfile = counted(tarfile.TarFile.addfile)  # type: ignore[method-assign]
        run_plan(plan(data, output), Watch(), workers=1)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_killed_anywhere_and_run_again(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    event, killed = 1, True
    while killed:
        output = tmp_path / str(event)
        killed = killed_at(event, data, output)
        if killed:
            watch = Watch()
            summary = run_plan(plan(data, output), watch, workers=1)
            assert (summary.frames, len(summary.skipped), watch.items) == (5, 2, ITEMS)
        assert contents(output) == whole, event
        event += 1
    assert event > 20  # that many places to be killed at


def test_killed_again_and_again(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    """Every run gets a little further than the last."""
    event = 4
    while killed_at(event, data, tmp_path):
        event += 2
    assert contents(tmp_path) == whole


def test_stopped_by_hand_goes_on_where_it_was(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan(data, tmp_path), Watch(stop), workers=1)
    with pytest.raises(InputError, match="no index"):
        Shards(tmp_path)
    first = (tmp_path / "shard-000000.tar").stat()
    steps: list[int] = []
    watch = Watch(steps.append)
    run_plan(plan(data, tmp_path), watch, workers=1)
    assert steps[0] == 3  # the first shard is there
    assert len(watch.skipped) == 2  # also what the first run left out
    assert (tmp_path / "shard-000000.tar").stat().st_mtime_ns == first.st_mtime_ns
    assert contents(tmp_path) == whole


@pytest.mark.parametrize("harm", ["removed", "cut", "piece"])
def test_what_was_lost_meanwhile_is_written_again(data: Path, whole: dict[str, str], tmp_path: Path, harm: str) -> None:
    def stop(done: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan(data, tmp_path), Watch(stop), workers=1)
    shard = tmp_path / "shard-000000.tar"
    if harm == "removed":
        shard.unlink()
    elif harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    else:
        (tmp_path / "unfinished" / "000001.arrow").unlink()
    run_plan(plan(data, tmp_path), Watch(), workers=1)
    assert contents(tmp_path) == whole


def test_a_plan_that_wrote_nothing_gives_way_to_another(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    """As where an option was forgotten, every item was skipped for it, and the user stopped the run."""

    def stop(done: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    wrong = make_plan("procedural", None, tmp_path / "out", {"count": 5, "width": 32, "height": 24}, frames_per_shard=5)
    with pytest.raises(KeyboardInterrupt):
        run_plan(wrong, Watch(stop), workers=1)
    assert (tmp_path / "out" / "plan.json").exists()
    run_plan(plan(data, tmp_path / "out"), Watch(), workers=1)
    assert contents(tmp_path / "out") == whole


def test_another_plan_is_refused(data: Path, tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan(data, tmp_path), Watch(stop), workers=1)
    shutil.copytree(data, tmp_path / "copy")
    for other, difference in [
        (plan(data, tmp_path, frames_per_shard=2), "frames per shard 3"),
        (plan(data, tmp_path, encoding=Encoding("png")), 'encoding {"image": "jpg", "depth": "png"}'),
        (plan(tmp_path / "copy", tmp_path), f'path "{data}"'),
        (make_plan("folder", data, tmp_path, {"fov_x": 60}, frames_per_shard=3), "options {}"),
        (make_plan("procedural", None, tmp_path, {"count": 7}, frames_per_shard=3), 'kind "folder"'),
    ]:
        with pytest.raises(InputError) as refused:
            run_plan(other, Watch(), workers=1)
        assert f"holds an unfinished set made with {difference}; repeat that command" in str(refused.value)
    (tmp_path / "plan.json").write_text("[]")
    with pytest.raises(InputError, match="made with another plan"):
        run_plan(plan(data, tmp_path), Watch(), workers=1)


def test_a_finished_folder_is_refused(data: Path, tmp_path: Path) -> None:
    run_plan(plan(data, tmp_path), Watch(), workers=1)
    with pytest.raises(InputError, match="holds shards already"):
        run_plan(plan(data, tmp_path), Watch(), workers=1)


def test_one_run_at_a_time(data: Path, tmp_path: Path) -> None:
    def meanwhile(done: int) -> None:
        with pytest.raises(InputError, match="another run is writing here"):
            run_plan(plan(data, tmp_path), Watch(), workers=1)

    run_plan(plan(data, tmp_path), Watch(meanwhile), workers=1)
    assert len(Shards(tmp_path)) == 5


# ---------------------------------------------------------------- several processes


def test_two_workers_give_the_same_bytes(data: Path, whole: dict[str, str], tmp_path: Path) -> None:
    watch = Watch()
    run_plan(plan(data, tmp_path), watch, workers=2)
    assert contents(tmp_path) == whole
    assert watch.items == ITEMS and len(watch.skipped) == 2


def test_frames_are_rendered_by_one_thread_each(tmp_path: Path) -> None:
    """However many torch has here: several would add up in another order, and slow each other down in workers."""
    import torch

    def look(done: int) -> None:
        assert torch.get_num_threads() == 1 or not done

    options, before = {"count": 3, "width": 32, "height": 24}, torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            plan = make_plan("procedural", None, tmp_path / str(threads), options, frames_per_shard=2)
            run_plan(plan, Watch(look), workers=1)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert Shards(tmp_path / "1").column("name").tolist() == [f"procedural/{i:06d}/0" for i in range(3)]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_run_takes_its_workers_along(data: Path, tmp_path: Path) -> None:
    """And what two workers left is finished to the same bytes."""
    many, output = tmp_path / "many", tmp_path / "out"
    for number in range(60):
        shutil.copytree(data / "001", many / f"{number:03d}")
    expected = tmp_path / "expected"
    run_plan(judged(many, expected, frames_per_shard=2), Watch(), workers=1)
    command = ["ingest", "folder", many, "-o", output, "--workers", "2", "--frames-per-shard", "2"]
    running = subprocess.Popen(
        [sys.executable, "-m", "metricanything", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: len(list(output.glob("shard-*.tar"))) >= 4)
    workers = children(running.pid)
    running.kill()
    running.wait()
    assert len(workers) >= 2
    wait_until(lambda: not any(map(alive, workers)))
    assert not (output / "index.arrow").exists()
    run_plan(judged(many, output, frames_per_shard=2), Watch(), workers=2)
    assert contents(output) == contents(expected)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited a minute"
        time.sleep(0.02)


def test_a_killed_worker_is_reported(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next run of the same plan goes on."""
    monkeypatch.setenv("FATAL", str(tmp_path / "fatal"))
    (tmp_path / "fatal").touch()
    fatal = Curation(measure_or_die, decide)
    with pytest.raises(RuntimeError, match="a worker process was killed"):
        run_plan(plan(data, tmp_path / "out", curation=fatal), Watch(), workers=2)
    assert not (tmp_path / "out" / "index.arrow").exists()
    for output in ("out", "expected"):
        run_plan(plan(data, tmp_path / output, curation=fatal), Watch(), workers=1)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def measure_or_die(frame: Frame, neighbour: Frame | None) -> Measured:
    """Ends its process as long as a file is there."""
    fatal = Path(os.environ["FATAL"])
    if fatal.exists():
        fatal.unlink(missing_ok=True)  # another worker may see it at the same time
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(frame, neighbour)


def test_paths_among_the_options_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster run in other folders; a model is a name within the project and stays one."""
    monkeypatch.setattr("metricanything.curate.plan.open_items", lambda kind, path, **options: [0])
    monkeypatch.chdir(tmp_path)
    for images in ("pictures", Path("pictures")):
        options = make_plan("colmap", tmp_path, "out", {"images": images, "model": "0"}).options
        assert options == {"images": str(tmp_path / "pictures"), "model": "0"}
    assert make_plan("colmap", tmp_path, "out", {"images": None}).options == {"images": None}


def test_workers_must_be_some(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="workers must be at least 1, got 0"):
        run_plan(plan(data, tmp_path), Watch(), workers=0)
    assert contents(tmp_path) == {}


def test_a_ray_cluster_gives_the_same_bytes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster of this machine, which the command line finds by its address."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    run_plan(judged(data, tmp_path / "here"), Watch(), workers=1)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        address = ray.get_runtime_context().gcs_address
        command = ["ingest", "folder", data, "-o", tmp_path / "out", "--frames-per-shard", "3", "--ray", address]
        result = subprocess.run([sys.executable, "-m", "metricanything", *command], capture_output=True, text=True)
    finally:
        ray.shutdown()
    assert result.returncode == 2, result.stderr  # two items are damaged
    assert result.stderr.count("skipped") == 2
    assert "5 frames written" in result.stdout
    assert contents(tmp_path / "out") == contents(tmp_path / "here")


def test_ray_is_named_when_it_is_missing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'metricanything\[ray\]'"):
        run_plan(plan(data, tmp_path), Watch(), ray="auto")


# ---------------------------------------------------------------- quality


@dataclass(frozen=True)
class Measured:
    """Stands for a record of quality: the frame's number, its neighbour's, and something unknown."""

    number: float
    neighbour: float
    unknown: float
    hash: int

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def measure(frame: Frame, neighbour: Frame | None) -> Measured:
    return Measured(number_of(frame), np.nan if neighbour is None else number_of(neighbour), np.nan, 2**63 + 5)


def number_of(frame: Frame) -> float:
    return float(frame.name[-3:])


def decide(columns: Any) -> tuple[np.ndarray, np.ndarray]:
    kept = columns["q_number"] != 5
    assert (columns["hash"] == np.uint64(2**63 + 5)).all()
    return kept, np.where(kept, "", "odd;unlucky")


def test_quality_is_measured_and_decided_on(data: Path, tmp_path: Path) -> None:
    summary = run_plan(plan(data, tmp_path, curation=Curation(measure, decide)), Watch(), workers=2)
    assert (summary.frames, summary.kept) == (5, 4)
    shards = Shards(tmp_path)
    assert shards.column("q_number").tolist() == [1, 2, 3, 5, 6]
    assert shards.column("q_number").dtype == np.float32
    assert np.isnan(shards.column("q_unknown")).all() and np.isnan(shards.column("q_neighbour")).all()
    assert shards.kept.tolist() == [0, 1, 2, 4]
    assert shards.column("reasons").tolist() == ["", "", "", "odd;unlucky", ""]
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        record = json.load(tar.extractfile("00000001.json"))  # type: ignore[arg-type]
    assert record["quality"] == {"number": 1, "neighbour": None, "unknown": None, "hash": 2**63 + 5}


def test_neighbours_are_of_one_posed_sequence(make_frame: Callable[..., Frame], tmp_path: Path) -> None:
    from metricanything.curate.writing import write_shards

    def frame(name: str, source: str = "a", posed: bool = True) -> Frame:
        return make_frame(0, 20, 30, name=name, source=source, world_from_cam=np.eye(4) if posed else None)

    frames = [
        frame("s/001"), frame("s/002"), frame("s/003"),  # a shard: the first looks ahead
        frame("s/004"), frame("t/005"), frame("t/006"),  # another shard, another sequence
        frame("t/007"), frame("t/008", "b"), frame("t/009", "b", posed=False),
        frame("t/010"),  # alone
    ]  # fmt: skip
    curation = Curation(measure, lambda columns: (np.ones(len(columns["q_number"]), bool), [""] * 10))
    write_shards(frames, tmp_path, frames_per_shard=3, curation=curation)
    found = Shards(tmp_path).column("q_neighbour")
    np.testing.assert_array_equal(found, np.array([2, 1, 2, np.nan, np.nan, 5, *[np.nan] * 4], dtype=np.float32))
