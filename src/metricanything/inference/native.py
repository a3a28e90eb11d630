"""Running the networks of this project: inputs in multiples of 32 pixels, with or without a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything.core.errors import InputError
from metricanything.core.memory import keep_memory
from metricanything.core.prediction import Prediction
from metricanything.inference.engine import Engine, Options, whole
from metricanything.inference.inputs import Prepared
from metricanything.inference.outputs import PointsOf, depth_of_log, find_view, points_predictions, upsample
from metricanything.models.compact.encoder import STRIDE
from metricanything.models.outputs import DepthOutput
from metricanything.models.registry import ModelSpec

#: What a network's input size may cost: the stretch of an image that a factor of e in pixels is worth, and the largest
#: factor over the pixels asked for.
_STRETCH, _OVER = 0.2, 1.08


class NativeEngine(Engine):
    """The compact networks and the teachers of all sizes."""

    options = ("max_side",)
    batch_size = 8

    def __init__(
        self, network: nn.Module, spec: ModelSpec, record: dict[str, Any], device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(network, spec, record, device, dtype)
        if device.type == "cpu":
            keep_memory()  # a tenth of the time of an image otherwise

    def input_size(self, height: int, width: int, options: Options) -> tuple[int, int]:
        """Multiples of 32 with the pixels of a 4:3 image of `max_side`, by default what the model was trained for."""
        default = self.record.get("input_side", self.spec.max_side)
        side = int(default) if options.max_side is None else whole(options.max_side, "max_side")
        if self.spec.min_side == self.spec.max_side:  # a network of one size, whose aspect ratio is not kept
            if side != self.spec.max_side:
                raise InputError(f"{self.spec.name} takes images at {self.spec.max_side} pixels alone, got {side}")
            return side, side
        if not STRIDE <= side <= 4096:
            raise InputError(f"max_side must lie between {STRIDE} and 4096 pixels, got {side}")
        return network_size(height, width, side)

    @torch.inference_mode()
    def run(self, items: Sequence[Prepared]) -> list[Prediction]:
        """Predictions of images of one input size."""
        height, width = items[0].size
        pixels_B3HW = torch.cat([_resized(item.image, height, width) for item in items])
        image_B3HW = pixels_B3HW.to(self.device, self.dtype).div(255).contiguous(memory_format=torch.channels_last)
        if self.spec.task == "points":
            return self._points(items, image_B3HW)
        views = [find_view(item) for item in items]
        focal_B = torch.tensor([view.camera.fx / view.camera.width for view in views])
        if any(item.prompt is not None for item in items):
            prompt_B1HW = torch.stack(
                [_prompt_map(item, f, height, width) for item, f in zip(items, focal_B, strict=True)]
            )
            arguments = [image_B3HW, prompt_B1HW.to(self.device)]
        else:
            arguments = [image_B3HW]
        with self.precision():
            output = self.network(*arguments)
        confidence = output.log_confidence_B1HW
        output = DepthOutput(
            output.log_c_B1HW.float().cpu(),
            output.mask_logit_B1HW.float().cpu(),
            None if confidence is None else confidence.float().cpu(),
        )
        return [
            depth_of_log(item, view, output, i, self.record)
            for i, (item, view) in enumerate(zip(items, views, strict=True))
        ]

    def _points(self, items: Sequence[Prepared], image_B3HW: Tensor) -> list[Prediction]:
        with self.precision():
            output = self.network(image_B3HW)
        points, logit = output.points_B3HW.float().cpu(), output.mask_logit_B1HW.float().cpu()
        maps = [
            PointsOf(
                item,
                np.moveaxis(upsample(points[i], item), 0, 2),
                upsample(logit[i], item)[0] > 0,
                float(output.log_scale_B[i]),
            )
            for i, item in enumerate(items)
        ]
        return points_predictions(maps, self.record)


def network_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Input size (height, width) in multiples of 32: near the image's aspect, with the pixels of a 4:3 image of `side`.

    A wide image is given a longer side, at most twice `side`, not fewer pixels: the same time, and no less detail.
    """
    long, short = max(height, width), min(height, width)
    budget = 0.75 * (side / STRIDE) ** 2
    candidates = []
    for units in range(1, 2 * side // STRIDE + 1):
        exact = units * short / long
        for other in {max(math.floor(exact), 1), max(math.ceil(exact), 1)}:
            if units * other <= max(_OVER * budget, 1):
                stretch, pixels = math.log(units / other * short / long), math.log(units * other / budget)
                candidates.append((abs(stretch) + _STRETCH * abs(pixels), units, other))
    _, units, other = min(candidates)
    size = (units * STRIDE, other * STRIDE)
    return size if height >= width else (size[1], size[0])


def _resized(image: NDArray[np.uint8], height: int, width: int) -> Tensor:
    """The image (1, 3, height, width) uint8, area-filtered: as Pillow within a grey level, in a quarter of the time."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)


def _prompt_map(item: Prepared, focal: Tensor, height: int, width: int) -> Tensor:
    """Canonical inverse depth of the prompt (1, H, W), 0 where there is no point."""
    if item.prompt is None:
        return torch.zeros(1, height, width)
    depth = torch.from_numpy(item.prompt.rasterise(height, width))[None]
    return torch.nan_to_num(focal / depth, nan=0.0)
