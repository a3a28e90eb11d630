"""What `metricanything ingest` costs beside the decoding and encoding that no program can avoid.

    python benchmarks/bench_ingest.py [--data FOLDER] [--frames 400] [--quality] [--workers 2]

FOLDER is of the `folder` format with FRAME/{image.jpg,depth.png,meta.json}; without it, copies of the bundled frames.
The floor is the decoding of the same files by Pillow, and the encoding of the same pixels to the same bytes as JPEG and
16-bit PNG, without anything between. Both are CPU seconds of one process, the best of some rounds that take turns. Then
peak memory of runs over a quarter of the frames and over all, each a process of its own, and frames a second with
several workers.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from metricanything import samples
from metricanything.core.codecs import png16
from metricanything.curate.plan import Plan, make_plan
from metricanything.curate.running import run_plan
from metricanything.curate.shards import Shards
from metricanything.sources import open_items


class Quiet:
    """A watcher that says nothing."""

    def advance(self, items: int, size: int) -> None:
        """Nothing."""

    def skip(self, problem: str) -> None:
        """Bad items would make the comparison unfair."""
        raise SystemExit(problem)


def copy_frames(data: Path, folder: Path, count: int) -> None:
    """A folder of `count` frames, evenly from all over `data`; all of them over and over where there are fewer."""
    frames = sorted(meta.parent for meta in data.rglob("meta.json"))
    chosen = np.linspace(0, len(frames) - 1, count).astype(int)
    for number, frame in enumerate(np.arange(count) % len(frames) if count > len(frames) else chosen):
        shutil.copytree(frames[frame], folder / f"{number:06d}")


def plan_for(data: Path, output: Path, quality: bool) -> Plan:
    """The plan for a folder, with the measurements of quality or without."""
    curation = None
    if quality:
        from metricanything.curate import quality as measuring
        from metricanything.curate import rules
        from metricanything.curate.writing import Curation

        curation = Curation(measuring.measure, rules.decide)
    return make_plan("folder", data, output, {}, curation=curation)


def decode(frame: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of a frame's two files."""
    with Image.open(frame / "image.jpg") as image, Image.open(frame / "depth.png") as depth:
        return np.asarray(image.convert("RGB")), np.asarray(depth)


def floor_seconds(data: Path, shards: Shards) -> float:
    """CPU seconds a frame to decode all input files, and to encode all that the shards hold."""
    frames = sorted(data.iterdir())
    start = time.process_time()
    for frame in frames:
        decode(frame)
    seconds = time.process_time() - start
    for number, frame in enumerate(frames):
        _, members = shards.encoded(number)
        image, _ = decode(frame)
        stored = Image.open(io.BytesIO(members["depth"]))
        codes, limits = np.asarray(stored).astype(np.uint16), {key: float(stored.info[key]) for key in ("near", "far")}
        start = time.process_time()
        picture, values = io.BytesIO(), png16._encode(codes, limits)
        Image.fromarray(image).save(picture, "JPEG", quality=95)
        seconds += time.process_time() - start
        assert (picture.getvalue(), values) == (members["image"], members["depth"])  # the same work
    return seconds / len(frames)


def measuring_seconds(plan: Plan) -> float:
    """CPU seconds a frame that measuring its quality takes alone."""
    assert plan.curation is not None
    items, seconds = open_items(plan.kind, plan.path), 0.0
    for _, frame in items.read():
        start = time.process_time()
        plan.curation.measure(frame, None)
        seconds += time.process_time() - start
    return seconds / len(items)


def our_seconds(data: Path, output: Path, quality: bool) -> float:
    """CPU seconds a frame of the whole run, from listing the folder to the finished index."""
    shutil.rmtree(output, ignore_errors=True)
    start = time.process_time()
    summary = run_plan(plan_for(data, output, quality), Quiet(), workers=1)
    return (time.process_time() - start) / summary.frames


def peak_megabytes(data: Path, output: Path, quality: bool) -> int:
    """Peak resident memory of a run in a process of its own."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, __file__, "--one", str(data), str(output), *(["--quality"] if quality else [])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one_run(data: Path, output: Path, quality: bool) -> None:
    """Run and print the peak of this process in megabytes."""
    run_plan(plan_for(data, output, quality), Quiet(), workers=1)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) >> 10)


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None, help="a data set with meta.json files")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quality", action="store_true", help="measure quality and apply the rules")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_run(*args.one, args.quality)
        return
    with tempfile.TemporaryDirectory() as scratch:
        small, large, output = (Path(scratch) / name for name in ("small", "large", "shards"))
        for folder, count in ((small, args.frames // 4), (large, args.frames)):
            folder.mkdir()
            copy_frames(args.data or samples.path("heldout"), folder, count)
        rounds = []
        for _ in range(args.rounds):
            ours = our_seconds(large, output, args.quality)
            rounds.append((ours, floor_seconds(large, Shards(output))))
        ours, floor = (min(values) for values in zip(*rounds, strict=True))
        measuring = measuring_seconds(plan_for(large, output, True)) if args.quality else 0.0
        peaks = [peak_megabytes(folder, output, args.quality) for folder in (small, large)]
        shutil.rmtree(output)
        start = time.perf_counter()
        run_plan(plan_for(large, output, args.quality), Quiet(), workers=args.workers)
        wall = time.perf_counter() - start
        print(
            json.dumps(
                {
                    "frames": args.frames,
                    "quality": args.quality,
                    "floor_ms": round(1e3 * floor, 2),
                    "ingest_ms": round(1e3 * ours, 2),
                    "share_of_floor": round(floor / ours, 3),
                    "measuring_ms": round(1e3 * measuring, 2),
                    "share_of_floor_and_measuring": round((floor + measuring) / ours, 3),
                    "peak_MB": dict(zip((args.frames // 4, args.frames), peaks, strict=True)),
                    f"frames_per_second_{args.workers}_workers": round(args.frames / wall, 1),
                }
            )
        )


if __name__ == "__main__":
    main()
