"""What `metricanything ingest` costs beside the decoding and encoding that no program can avoid.

    python benchmarks/bench_ingest.py [--data FOLDER] [--frames 400] [--quality] [--workers 2]

FOLDER is of the `folder` format with FRAME/{image.jpg,depth.png,meta.json}; without it, copies of the bundled frames.
The floor is Pillow alone: decode the same image and depth files, encode the same pixels as JPEG and 16-bit PNG with
the same settings. Both are CPU seconds of one process, the best of some rounds that take turns. Then peak memory of
runs over a quarter of the frames and over all, each a process of its own, and frames a second with several workers.
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
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from metricanything import samples
from metricanything.curate.plan import Plan, make_plan
from metricanything.curate.running import run_plan
from metricanything.curate.shards import Shards


class Quiet:
    """A watcher that says nothing."""

    def advance(self, items: int, size: int) -> None:
        """Nothing."""

    def skip(self, problem: str) -> None:
        """Bad items would make the comparison unfair."""
        raise SystemExit(problem)


def link_frames(data: Path, folder: Path, count: int) -> None:
    """A folder of `count` frames, links to those in `data` over and over."""
    frames = sorted(meta.parent for meta in data.rglob("meta.json"))
    # As many as asked for from all over the data, so that its sources have their share.
    for number, frame in enumerate(np.resize(frames, count) if count > len(frames) else spread(frames, count)):
        (folder / f"{number:06d}").symlink_to(frame.resolve(), target_is_directory=True)


def spread(frames: list[Path], count: int) -> list[Path]:
    """`count` of `frames`, evenly spaced."""
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).astype(int)]


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


def encode(image: np.ndarray, depth: np.ndarray) -> int:
    """JPEG and PNG as the shards have them; their size."""
    picture, values = io.BytesIO(), io.BytesIO()
    Image.fromarray(image).save(picture, "JPEG", quality=95)
    Image.fromarray(depth).save(values, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return len(picture.getvalue()) + len(values.getvalue())


def floor_seconds(data: Path, shards: Shards) -> float:
    """CPU seconds a frame to decode all input files, and to encode all that the shards hold."""
    frames = sorted(data.iterdir())
    start = time.process_time()
    for frame in frames:
        decode(frame)
    seconds = time.process_time() - start
    names = {member: shards.column(f"{member}_size") for member in ("image", "depth")}
    for number in range(len(frames)):
        pixels = stored_pixels(shards, number)
        start = time.process_time()
        size = encode(*pixels)
        seconds += time.process_time() - start
        assert abs(size / (int(names["image"][number]) + int(names["depth"][number])) - 1) < 0.05  # the same work
    return seconds / len(frames)


def stored_pixels(shards: Shards, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (H, W, 3) and log code uint16 (H, W) of a stored frame."""
    members = shards.members(number)
    image, depth = (np.asarray(Image.open(io.BytesIO(members[name]))) for name in ("image", "depth"))
    return image, depth.astype(np.uint16)


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
            link_frames(args.data or samples.path("heldout"), folder, count)
        rounds = []
        for _ in range(args.rounds):
            ours = our_seconds(large, output, args.quality)
            rounds.append((ours, floor_seconds(large, Shards(output))))
        ours, floor = (min(values) for values in zip(*rounds, strict=True))
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
                    "peak_MB": dict(zip((args.frames // 4, args.frames), peaks, strict=True)),
                    f"frames_per_second_{args.workers}_workers": round(args.frames / wall, 1),
                }
            )
        )


if __name__ == "__main__":
    main()
