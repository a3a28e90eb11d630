"""What a metric of the evaluation is: one frame's `Sample` in, a few terms out, and from terms a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera

Terms = tuple[float, ...]


class NotMeasured(Exception):
    """The data lacks what a metric looks at; the message says what. The metric then has no number in this frame."""


@dataclass(frozen=True)
class Sample:
    """What a metric may look at: one frame at the size of its ground truth.

    pred: float32 (H, W) metres, aligned; NaN or not positive = no prediction. gt: float32 (H, W) metres, NaN where it
    does not count. truth: the frame's camera, None where it is not known. recovered: the camera that the model found
    by itself, or None. points: float32 (H, W, 3) metres of the prediction in the camera frame, or None.
    image: uint8 (H, W, 3). segments: int32 (H, W), a number for each object and 0 for none, or None. matte: float32
    (H, W), share of foreground 0..1, or None.
    """

    pred: NDArray[np.float32]
    gt: NDArray[np.float32]
    image: NDArray[np.uint8]
    truth: Camera | None = None
    recovered: Camera | None = None
    points: NDArray[np.float32] | None = None
    segments: NDArray[np.int32] | None = None
    matte: NDArray[np.float32] | None = None

    def once(self, key: str, compute: Callable[[], Any]) -> Any:
        """A value that several metrics of this sample share, computed at the first call."""
        kept: dict[str, Any] = self.__dict__.setdefault("_kept", {})
        if key not in kept:
            kept[key] = compute()
        return kept[key]


def first(terms: Terms) -> float:
    """The number of a metric of one term."""
    return terms[0]


@dataclass(frozen=True)
class Score:
    """A metric: one line on what it is, its unit ("" = none) and direction, and how it is computed.

    terms: means over the pixels of a `Sample` that count. finish: terms to the number. poolable: whether means of terms
    over all pixels of several images are the terms of those images together. depth: whether it needs true depth.
    """

    description: str
    terms: Callable[[Sample], Terms]
    finish: Callable[[Terms], float] = first
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    poolable: bool = True
    depth: bool = True


def plain(function: Callable[[Any, Any], float]) -> Callable[[Sample], Terms]:
    """The one term of a metric of prediction and truth."""
    return lambda sample: (function(sample.pred, sample.gt),)
