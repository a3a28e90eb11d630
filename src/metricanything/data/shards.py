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
        self._shards: list[str] = content["shards"]
        self._frames: list[dict] = content["frames"]

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
        data: dict[str, bytes] = {}
        with open(path, "rb") as file:
            for suffix, (offset, size) in entry["members"].items():
                file.seek(offset)
                data[suffix] = file.read(size)
        where = f"{path}:{entry['name']}"
        try:
            record = json.loads(data["json"])
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise InputError(f"{where}: damaged record; write the shards again") from None
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
