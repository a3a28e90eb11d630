"""Samples per second and core from shard to batch, beside a straightforward folder dataset doing the same work.

    OMP_NUM_THREADS=1 python benchmarks/bench_loading.py ../shared/data/train
    OMP_NUM_THREADS=1 python benchmarks/bench_loading.py ../shared/data/validation --frames 80

The folder dataset is what one would write first: JPEG and 16-bit PNG files opened with Pillow at full size, Pillow's
resize of a random box, mirroring, colours in numpy, torch's DataLoader with its own collation. Both make the same
batches: image, depth, focal length and rays of a random view with gamma, exposure, white balance and saturation. The
files hold the same frames as the shards, in the page cache. Each runs in a process of its own, as in a worker of the
loader, with one thread; CPU seconds, rounds taken in turn; medians, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from metricanything.core import codecs
from metricanything.core.frame import Frame
from metricanything.core.memory import keep_memory
from metricanything.curate.shards import Shards
from metricanything.curate.writing import write_shards
from metricanything.data import views
from metricanything.data.mixture import Mixture
from metricanything.sources import read


class FolderDataset(Dataset):
    """NAME.jpg, NAME.png (16 bits) and NAME.json of every frame."""

    def __init__(self, folder: Path, side: int) -> None:
        self.images, self.side = sorted(folder.glob("*.jpg")), side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, side = self.images[index], self.side
        rng = np.random.default_rng()
        record = json.loads(path.with_suffix(".json").read_text())
        image = Image.open(path).convert("RGB")
        depth = np.array(Image.open(path.with_suffix(".png"))).astype(np.float32) / record["depth_scale"]
        depth[depth == 0] = np.nan
        aspect = np.exp(rng.uniform(-0.05, 0.05))
        crop_width = min(image.width, image.height * aspect) * rng.uniform(0.6, 1.0)
        crop_height = crop_width / aspect
        left, top = rng.uniform(0, image.width - crop_width), rng.uniform(0, image.height - crop_height)
        box = (left, top, left + crop_width, top + crop_height)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
        depth_image = Image.fromarray(depth).resize((side, side), Image.Resampling.NEAREST, box=box)
        fx, fy = record["fx"] * side / crop_width, record["fy"] * side / crop_height
        cx, cy = (record["cx"] - left) * side / crop_width, (record["cy"] - top) * side / crop_height
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            depth_image = depth_image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            cx = side - cx
        x = np.asarray(image).astype(np.float32) / 255
        x = x ** np.exp(rng.uniform(-0.3, 0.3)) * np.exp(rng.uniform(-0.25, 0.25))
        x = x * np.exp(rng.uniform(-0.1, 0.1, size=3)).astype(np.float32)
        grey = x.mean(axis=-1, keepdims=True)
        x = np.clip(grey + (x - grey) * rng.uniform(0.5, 1.3), 0, 1).astype(np.float32)
        u, v = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
        plane = np.stack([(u - cx) / fx, (v - cy) / fy], axis=-1).astype(np.float32)
        return {
            "image": torch.from_numpy(x).permute(2, 0, 1),
            "depth": torch.from_numpy(np.array(depth_image)),
            "focal": np.float32(fx / side),
            "plane": torch.from_numpy(plane),
            "name": record["name"],
        }


def write_folder(frames: Iterator[Frame], folder: Path) -> Iterator[Frame]:
    """Write every frame that passes as loose files."""
    for number, frame in enumerate(frames):
        path = folder / f"{number:06d}.jpg"
        path.write_bytes(codecs.encode_jpeg(frame.image, quality=95))  # of the shards' quality
        scale = codecs.png16_scale(frame.depth)
        values = np.nan_to_num(frame.depth * scale, nan=0, posinf=0).round().astype(np.uint16)
        Image.fromarray(values).save(path.with_suffix(".png"))  # as Pillow does it by default
        fx, fy, cx, cy = frame.camera.params[:4]
        record = {"name": frame.name, "depth_scale": scale, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
        path.with_suffix(".json").write_text(json.dumps(record))
        yield frame


def frames_of(data: Path, each: int) -> Iterator[Frame]:
    for source in sorted(path for path in data.iterdir() if path.is_dir()):
        yield from itertools.islice(read("folder", source, on_error=lambda problem: None), each)


class Clock:
    """CPU seconds spent in the functions it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.process_time() - started

        return timed


def folder_batches(folder: Path, side: int, batch_size: int) -> Iterator[Any]:
    dataset = FolderDataset(folder / "files", side)
    return itertools.chain.from_iterable(
        DataLoader(dataset, batch_size, shuffle=True, drop_last=True) for _ in itertools.count()
    )


def shard_batches(folder: Path, side: int, batch_size: int) -> Iterator[Any]:
    keep_memory()
    # Every frame equally often, as in the folder, which knows no mixture.
    mixture = Mixture(Shards(folder / "shards"), sizes=((side, side),), batch_size=batch_size, seed=0, temperature=1.0)
    return map(mixture.batch, itertools.count())


def serve(make: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], pipe: Connection) -> None:
    """In a process of its own: for every count received, (CPU seconds, those in decoders) of as many batches."""
    torch.set_num_threads(1)
    clock = Clock()
    views.codecs.decode_window = clock.wrap(codecs.decode_window)
    views.decode_depth = clock.wrap(views.decode_depth)
    batches = make(*arguments)
    while count := pipe.recv():
        clock.seconds, started = 0.0, time.process_time()
        for _ in itertools.islice(batches, count):
            pass
        pipe.send((time.process_time() - started, clock.seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of sources as `metricanything ingest folder` reads them")
    parser.add_argument("--frames", type=int, default=60, help="of every source")
    parser.add_argument("--side", type=int, default=384)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=8, help="in a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "files").mkdir()
        count = write_shards(write_folder(frames_of(args.data, args.frames), folder / "files"), folder / "shards")
        pipes = []
        for make in (shard_batches, folder_batches):
            here, there = multiprocessing.Pipe()
            arguments = (folder, args.side, args.batch)
            multiprocessing.Process(target=serve, args=(make, arguments, there), daemon=True).start()
            pipes.append(here)

        def seconds(pipe: Connection, batches: int) -> tuple[float, float]:
            pipe.send(batches)
            return pipe.recv()

        for pipe in pipes:
            seconds(pipe, 2)  # to warm up
        rounds = np.array([[seconds(pipe, args.batches) for pipe in pipes] for _ in range(args.rounds)])
        for pipe in pipes:
            pipe.send(0)
    ours, naive = np.median(args.batches * args.batch / rounds[..., 0], axis=0)
    ratios = rounds[:, 1, 0] / rounds[:, 0, 0]
    print(f"{count} frames, views of {args.side}x{args.side}, batches of {args.batch}")
    print(f"| | samples/s and core |\n|---|---|\n| shards | {ours:.0f} |\n| folder with Pillow | {naive:.0f} |")
    print(f"ratio {np.median(ratios):.2f} (rounds: {ratios.min():.2f} to {ratios.max():.2f})")
    print(f"decoding is {rounds[:, 0, 1].sum() / rounds[:, 0, 0].sum():.0%} of the time from shard to batch")


if __name__ == "__main__":
    main()
