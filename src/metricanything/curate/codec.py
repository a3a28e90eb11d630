"""A frame as the members of a tar file, and back.

`KEY.jpg` or `KEY.png` (sRGB), `KEY.depth.png` (16-bit log depth, NaN and inf kept) or `KEY.depth.exr` (float32, exact),
`KEY.sigma.png` where the source states one, and `KEY.json` (camera, pose, scale, kind, sensor, provenance, licence,
quality).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.core.frame import Frame
from metricanything.curate.index import MEMBERS

BLOCK = tarfile.BLOCKSIZE
_EXR_MAGIC = b"\x76\x2f\x31\x01"


@dataclass(frozen=True)
class Encoding:
    """How shards store pixels: `image` as jpg (quality 95) or exact png, `depth` as 16-bit log png or exact exr."""

    image: Literal["jpg", "png"] = "jpg"
    depth: Literal["png", "exr"] = "png"

    def suffixes(self) -> dict[str, str]:
        """Suffix of every member."""
        return {"image": self.image, "depth": f"depth.{self.depth}", "sigma": "sigma.png", "json": "json"}


DEFAULT = Encoding()


def padded(size: int) -> int:
    """Bytes that a member of `size` bytes takes up in a tar file."""
    return -(-size // BLOCK) * BLOCK


def encode_frame(frame: Frame, encoding: Encoding, quality: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """The members of a frame by name (see `MEMBERS`), in the order of the tar file; `quality` goes into the record."""
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
    if quality is not None:
        record["quality"] = quality
    jpg, png = encoding.image == "jpg", encoding.depth == "png"
    members = {
        "image": codecs.encode_jpeg(frame.image, quality=95) if jpg else codecs.encode_png(frame.image),
        "depth": codecs.encode_depth_log_png(frame.depth) if png else codecs.encode_depth_exr(frame.depth),
        "json": json.dumps(record, sort_keys=True).encode(),
    }
    if frame.sigma is not None:
        members["sigma"] = codecs.encode_depth_log_png(frame.sigma)
    return {member: members[member] for member in MEMBERS if member in members}


def decode_frame(members: Mapping[str, bytes], where: str) -> Frame:
    """The frame that `encode_frame` made `members` of.

    Raises InputError, KeyError, TypeError or ValueError for members that it cannot have made; `where` names them.
    """
    record = json.loads(members["json"])
    pose, sigma = record["world_from_cam"], members.get("sigma")
    depth, table = decode_depth(members["depth"], where)
    return Frame(
        name=record["name"],
        image=codecs.decode_image(members["image"], where),
        depth=depth if table is None else table[depth],
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


def decode_depth(data: bytes, where: str) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """The depth (H, W) of a stored map and None, or its codes (H, W) and the depth (65536,) that each stands for."""
    if data.startswith(_EXR_MAGIC):
        return codecs.decode_depth_exr(data, where), None
    return codecs.decode_depth_log_codes(data, where)


def add_members(tar: tarfile.TarFile, key: str, members: Mapping[str, bytes], encoding: Encoding) -> dict[str, int]:
    """Append `members` to an open tar file as `KEY.SUFFIX`; their place: `offset`, and `MEMBER_size` of each, or 0."""
    place = {"offset": tar.offset, **{f"{member}_size": len(members.get(member, b"")) for member in MEMBERS}}
    suffixes = encoding.suffixes()
    for member, data in members.items():
        header = tarfile.TarInfo(f"{key}.{suffixes[member]}")
        header.size = len(data)
        tar.addfile(header, io.BytesIO(data))
    return place
