"""Training shards: WebDataset-compatible tar files with a JSON index beside them.

A frame is `KEY.jpg` (sRGB), `KEY.depth.png` (16-bit log depth, NaN and inf kept), `KEY.sigma.png` where the source
states one, and `KEY.json` (camera, pose, scale, kind, sensor, provenance, licence). `index.json` is written last: a
folder without it is not finished.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

from metricanything.core import codecs
from metricanything.core.errors import InputError
from metricanything.core.files import atomic_path, write_json
from metricanything.core.frame import Frame

INDEX = "index.json"
_BLOCK = 512


def write_shards(
    frames: Iterable[Frame],
    folder: str | Path,
    *,
    frames_per_shard: int = 256,
    progress: Callable[[Frame], None] | None = None,
) -> int:
    """Write `frames` in order into `folder` and return how many there were; the same frames give the same bytes.

    Every frame is written as it arrives and then let go. Every shard appears whole or not at all; an earlier set in
    the folder is replaced. Raises InputError when there are no frames.
    """
    if frames_per_shard < 1:
        raise InputError(f"frames_per_shard must be at least 1, got {frames_per_shard}")
    folder = Path(folder)
    entries: list[dict[str, Any]] = []
    shards: list[str] = []
    arriving = iter(frames)
    for first in arriving:
        name = f"shard-{len(shards):06d}.tar"
        with atomic_path(folder / name) as temporary:
            with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
                for frame in chain([first], islice(arriving, frames_per_shard - 1)):
                    entries.append(_add(tar, frame, number=len(entries), shard=len(shards)))
                    if progress is not None:
                        progress(frame)
            # An older index would no longer fit the shards, should this run be interrupted.
            (folder / INDEX).unlink(missing_ok=True)
        shards.append(name)
    if not entries:
        raise InputError(f"{folder}: no frames to write; the sources gave none")
    for left_over in set(folder.glob("shard-*.tar")) - {folder / name for name in shards}:
        left_over.unlink()  # of an earlier, longer set: readers that list the folder must not find it
    write_json(folder / INDEX, {"version": 1, "shards": shards, "frames": entries})
    return len(entries)


def _add(tar: tarfile.TarFile, frame: Frame, *, number: int, shard: int) -> dict[str, Any]:
    """Append the members of a frame to an open shard; its entry in the index."""
    members: dict[str, tuple[int, int]] = {}
    for suffix, data in _members(frame).items():
        header = tarfile.TarInfo(f"{number:08d}.{suffix}")
        header.size = len(data)
        members[suffix] = (tar.offset + _BLOCK, len(data))
        tar.addfile(header, io.BytesIO(data))
    return {"name": frame.name, "source": frame.source, "kind": frame.kind, "shard": shard, "members": members}


def _members(frame: Frame) -> dict[str, bytes]:
    record = {
        "name": frame.name,
        "camera": frame.camera.to_dict(),
        "world_from_cam": None if frame.world_from_cam is None else frame.world_from_cam.tolist(),
        "kind": frame.kind,
        "sensor": frame.sensor,
        "scale": frame.scale,
        "source": frame.source,
        "licence": frame.licence,
        "notes": frame.notes,
    }
    members = {
        "jpg": codecs.encode_jpeg(frame.image, quality=95),
        "depth.png": codecs.encode_depth_log_png(frame.depth),
        "json": json.dumps(record, sort_keys=True).encode(),
    }
    if frame.sigma is not None:
        members["sigma.png"] = codecs.encode_depth_log_png(frame.sigma)
    return members
