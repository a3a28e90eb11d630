"""Running the published point-map student and stock MoGe-2: an input of so many patches, the image's aspect kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from metricanything.core.errors import InputError
from metricanything.core.prediction import Prediction
from metricanything.inference.engine import Engine, Options, whole
from metricanything.inference.inputs import Prepared
from metricanything.inference.outputs import PointsOf, points_predictions, upsample
from metricanything.models.pointmap import resize_to_grid, token_grid

LEVELS = 9  # the finest resolution level
_MOST_TOKENS = 16384


class PointMapEngine(Engine):
    """Networks of `models.pointmap`."""

    options = ("num_tokens", "resolution_level")

    def input_size(self, height: int, width: int, options: Options) -> tuple[int, int]:
        """The token grid in pixels: about `num_tokens` patches, by default the most that it was trained with."""
        if options.num_tokens is not None and options.resolution_level is not None:
            raise InputError("num_tokens and resolution_level both state the resolution; give one of them")
        tokens = options.num_tokens
        if tokens is None:
            level = LEVELS if options.resolution_level is None else whole(options.resolution_level, "resolution_level")
            if not 0 <= level <= LEVELS:
                raise InputError(f"resolution_level must lie between 0 and {LEVELS}, got {level}")
            low, high = self.network.config.num_tokens_range
            tokens = int(low + level / LEVELS * (high - low))
        if not 1 <= whole(tokens, "num_tokens") <= _MOST_TOKENS:
            raise InputError(f"num_tokens must lie between 1 and {_MOST_TOKENS}, got {tokens}")
        rows, columns = token_grid(height, width, tokens)
        return rows * self._patch, columns * self._patch

    @property
    def _patch(self) -> int:
        return int(self.network.config.encoder.backbone.patch_size)

    @torch.inference_mode()
    def run(self, items: Sequence[Prepared]) -> list[Prediction]:
        """Predictions of images of one token grid."""
        grid = (items[0].size[0] // self._patch, items[0].size[1] // self._patch)
        image_B3HW = torch.cat([resize_to_grid(self.tensor(item), grid, self._patch) for item in items]).to(self.dtype)
        aspect_B = torch.tensor([item.image.shape[1] / item.image.shape[0] for item in items], device=self.device)
        with self.precision():
            raw = self.network(image_B3HW, aspect_B)
        points_B3hw, log_scale = raw.points_B3HW.cpu(), raw.log_scale_B.cpu()
        mask_B1hw = None if raw.mask_logit_B1HW is None else raw.mask_logit_B1HW.cpu()
        normal_B3hw = None if raw.normal_B3HW is None else raw.normal_B3HW.cpu()
        del raw
        maps = []
        for i, item in enumerate(items):
            size = item.image.shape[:2]
            resized = F.interpolate(points_B3hw[i : i + 1], size, mode="bilinear", align_corners=False)
            maps.append(
                PointsOf(
                    item,
                    np.moveaxis(self.network.remap(resized)[0].numpy(), 0, 2),
                    np.ones(size, bool) if mask_B1hw is None else upsample(mask_B1hw[i], item)[0] > 0,
                    float(log_scale[i]),
                    None if normal_B3hw is None else _normals(normal_B3hw[i], item),
                )
            )
        return points_predictions(maps, self.record)


def _normals(raw_3hw: Tensor, item: Prepared) -> np.ndarray:
    """Unit normals (H, W, 3) float32 in the camera frame."""
    resized = F.interpolate(raw_3hw[None], item.image.shape[:2], mode="bilinear", align_corners=False)
    return np.moveaxis(F.normalize(resized, dim=1)[0].numpy(), 0, 2)
