"""Running the published depth-map student and Depth Pro: any image at 1536 x 1536 pixels, 35 tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from metricanything.core.camera import Camera
from metricanything.core.prediction import Prediction
from metricanything.inference.engine import Engine, Options
from metricanything.inference.inputs import Prepared
from metricanything.inference.outputs import View, depth_of_inverse, find_view
from metricanything.models.depthmap import SIDE
from metricanything.models.images import normalise
from metricanything.models.tiles import TILES_AT_ONCE

_CPU_TILES = 5


class DepthMapEngine(Engine):
    """Networks of `models.depthmap`. `tiles_per_pass` bounds the memory: how many tiles the ViT sees together."""

    tiles_per_pass: int | None = None

    def input_size(self, height: int, width: int, options: Options) -> tuple[int, int]:
        """The one size there is; the aspect ratio is not kept, as published."""
        return SIDE, SIDE

    @torch.inference_mode()
    def run(self, items: Sequence[Prepared]) -> list[Prediction]:
        """Predictions of images of any sizes."""
        config, size = self.network.config, (SIDE, SIDE)
        resized = [
            normalise(image, config.mean, config.std)
            if image.shape[-2:] == size
            else F.interpolate(normalise(image, config.mean, config.std), size, mode="bilinear", align_corners=False)
            for image in map(self.tensor, items)
        ]
        image_B3SS = torch.cat(resized).to(self.dtype).contiguous(memory_format=torch.channels_last)
        del resized
        tiles = self.tiles_per_pass or (_CPU_TILES if self.device.type == "cpu" else TILES_AT_ONCE)
        with self.precision():
            canonical_B1SS, fov_B = self.network(image_B3SS, tiles if tiles < TILES_AT_ONCE else None)
        canonical_B1SS = canonical_B1SS.float().cpu()
        views = [_view(item, None if fov_B is None else float(fov_B[i])) for i, item in enumerate(items)]
        return [
            depth_of_inverse(item, view, canonical_B1SS[i], config.inverse_depth_range, self.record)
            for i, (item, view) in enumerate(zip(items, views, strict=True))
        ]


def _view(item: Prepared, fov_x: float | None) -> View:
    """The input's camera, else the network's own estimate where it makes one, else the assumed one."""
    if item.camera is None and fov_x is not None and math.isfinite(fov_x) and 1 < fov_x < 179:
        height, width = item.image.shape[:2]
        return View(Camera.from_fov(fov_x, width, height), "model")
    return find_view(item)
