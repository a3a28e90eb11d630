"""The view of a stored frame: only what its window needs is decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from metricanything.core import codecs
from metricanything.core.camera import Camera
from metricanything.curate.codec import decode_depth
from metricanything.curate.shards import Shards
from metricanything.data.augment import Augmentation, View, random_window, resample_depth, resample_image

POINT_SENSORS = ("sfm", "lidar", "radar")


@dataclass(frozen=True)
class Label:
    """Whose the depth of a view is, and what it is worth (see `Batch`)."""

    name: str
    trusted: bool
    metric: bool
    sparse: bool


def read_view(
    shards: Shards, row: int, rng: np.random.Generator, size: tuple[int, int], augmentation: Augmentation
) -> tuple[View, Label]:
    """A random view, `size` (height, width), of a row of `shards`; InputError, naming it, when its bytes are damaged.

    The same as `resample` of the frame, to the rounding of a JPEG that is decoded at a smaller scale.
    """
    where, members = shards.encoded(row)
    with shards.decoding(where):
        record = json.loads(members["json"])
        camera = Camera.from_dict(record["camera"])
        frame_size = camera.height, camera.width
        window = random_window(frame_size, size, rng, augmentation)
        pixels = codecs.decode_window(members["image"], where, frame_size, window.box, window.reduction)
        image = resample_image(pixels, window)
        values, table = decode_depth(members["depth"], where)
        if values.shape != frame_size:
            raise ValueError(f"depth is {values.shape}, its camera {frame_size}")
        labelled = "pseudo_label" in record["notes"]
        label = Label(
            record["name"],
            trusted=record["kind"] == "rendered" or labelled,
            metric=record["scale"] == "metric",
            sparse=record["sensor"] in POINT_SENSORS and not labelled,
        )
        return View(image, resample_depth(values, window, table), window.camera(camera)), label
