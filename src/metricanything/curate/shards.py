"""Reading training shards with random access."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.files import read_json
from metricanything.core.frame import Frame


class Shards:
    """The frames of a shard folder by number; each is read by seeking, so that opening is quick at any size.

    Raises InputError when the folder has no index (unfinished, or not a shard folder).
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        index = self.folder / "index.json"
        if not index.is_file():
            raise InputError(f"{self.folder}: no index.json; not a shard folder, or its writing was interrupted")
        content = read_json(index)
        try:
            self._shards: list[str] = list(content["shards"])
            self._frames: list[dict] = list(content["frames"])
        except (KeyError, TypeError):
            raise InputError(f"{index}: lists no shards and frames; write the shards again") from None

    def __len__(self) -> int:
        return len(self._frames)

    def sources(self) -> list[str]:
        """The source of every frame, without reading any."""
        return [entry["source"] for entry in self._frames]

    def kinds(self) -> list[str]:
        """The kind of every frame, without reading any."""
        return [entry["kind"] for entry in self._frames]

    def frame(self, number: int) -> Frame:
        """Decode frame `number`; raises InputError, naming the shard, when its bytes are damaged."""
        entry = self._frames[number]
        path = self.folder / self._shards[entry["shard"]]
        where = f"{path}:{entry['name']}"
        data: dict[str, bytes] = {}
        try:
            with open(path, "rb") as file:
                for suffix, (offset, size) in entry["members"].items():
                    file.seek(offset)
                    data[suffix] = file.read(size)
            return _decode(data, where)
        except (OSError, KeyError, TypeError, ValueError) as error:
            reason = str(error).removeprefix(f"{where}: ")
            raise InputError(f"{where}: damaged ({reason}); write the shards again") from None


def _decode(data: dict[str, bytes], where: str) -> Frame:
    record = json.loads(data["json"])
    pose, sigma = record["world_from_cam"], data.get("sigma.png")
    return Frame(
        name=record["name"],
        image=codecs.decode_image(data["jpg"], where),
        depth=codecs.decode_depth_log_png(data["depth.png"], where),
        camera=Camera.from_dict(record["camera"]),
        kind=record["kind"],
        sensor=record["sensor"],
        source=record["source"],
        licence=record["licence"],
        scale=record["scale"],
        world_from_cam=None if pose is None else np.asarray(pose, dtype=np.float64),
        sigma=None if sigma is None else codecs.decode_depth_log_png(sigma, where),
        notes=record["notes"],
    )
