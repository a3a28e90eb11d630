"""Keypoints of the image: the prompts that structure from motion gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metricanything.core.errors import InputError
from metricanything.patterns.drawing import Pattern, Streams, copy_points, split
from metricanything.patterns.uniform import Uniform

_ORB_BORDER = 31  # pixels along the edge without keypoints: the default of OpenCV
_RANDOM = Uniform(points=(2000, 2000), max_fraction=1.0)


@dataclass(frozen=True)
class Keypoints:
    """Pixels where OpenCV detects SIFT keypoints or ORB corners, as in OMNI-DC and Prior Depth Anything.

    Both detect on the full-size grey image, SIFT with OpenCV's defaults and ORB with up to 100 000 features scored by
    FAST, and round coordinates to pixels. Where fewer than `least` keypoints are detected, `fallback` is drawn: 2000
    random points in Prior Depth Anything, the default; OMNI-DC's is
    `Uniform(points=(1000, 1000), max_fraction=1.0, match_density=True)`.
    """

    detector: Literal["sift", "orb"]
    least: int = 20
    fallback: Pattern = _RANDOM
    max_dropout: float = 0.0
    """Pixels are dropped at random with a probability uniform in 0..max_dropout, drawn per image (OMNI-DC)."""

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W): the known depths at keypoints; raises InputError without an image or without OpenCV."""
        if image_B3HW is None:
            raise InputError(f"prompt pattern {self.detector!r} looks at the image; pass it along with the depth map")
        first, second = split(generator, 2)
        streams = Streams(first, len(depth_BHW))
        dropout_B = (streams.rand() * self.max_dropout).tolist()
        prompts = self.fallback.draw(depth_BHW, second)
        images = (image_B3HW.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to("cpu", torch.uint8).numpy()
        detect = _detector(self.detector)
        for i, (image, dropout, stream) in enumerate(zip(images, dropout_B, streams.images, strict=True)):
            points = detect(np.ascontiguousarray(image))
            if len(points) < self.least:
                continue
            h, w = depth_BHW.shape[1:]
            column, row = torch.from_numpy(points).round().long().unbind(dim=1)
            index = torch.unique(row.clamp(max=h - 1) * w + column.clamp(max=w - 1))
            index = index[torch.rand(len(index), generator=stream) >= dropout].to(depth_BHW.device)
            prompts[i : i + 1] = copy_points(depth_BHW[i : i + 1], [index])
        return prompts


def _detector(name: str) -> Any:
    """uint8 image (H, W, 3) -> keypoints (P, 2) float as column, row counted from pixel centres."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            f"prompt pattern {name!r} needs OpenCV ({error}); pip install 'metricanything[keypoints]'"
        ) from None
    detector: Any = (
        cv2.SIFT.create() if name == "sift" else cv2.ORB.create(nfeatures=100_000, scoreType=cv2.ORB_FAST_SCORE)
    )

    def detect(image: np.ndarray) -> np.ndarray:
        if name == "orb" and min(image.shape[:2]) <= 2 * _ORB_BORDER:
            return np.empty((0, 2))  # no room for a keypoint, and OpenCV fails to shrink images of a few pixels
        found = detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        return np.array([point.pt for point in found], dtype=np.float64).reshape(-1, 2)

    return detect
