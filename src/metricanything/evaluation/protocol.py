"""What a number of an evaluation means: the protocol that it was measured by, as data.

The protocols themselves are in `protocols/`, one small file per source. Everything that changes a number is a field
here, and `record` of every result holds them all.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError

Task = Literal["completion", "super-resolution", "depth", "camera", "radar", "points", "boundary"]
#: Prompt names beside the patterns: what the data itself brings along, and no prompt.
GIVEN, NONE = "given", "none"


@dataclass(frozen=True)
class Crop:
    """A rectangle of an image: rows and columns from (included) to (excluded).

    `fractions`: of height and width, as int(fraction * size), the rounding of the Eigen and Garg crops. `pixels`: as
    they are, negative or too large bounds cut off. `bottom`: a window of `rows[1]` x `columns[1]` pixels at the bottom,
    centred from left to right, as the KITTI benchmark crop; a smaller image is left whole along that side.
    """

    name: str
    unit: Literal["all", "fractions", "pixels", "bottom"] = "all"
    rows: tuple[float, float] = (0, 1)
    columns: tuple[float, float] = (0, 1)

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, bottom, left, right in pixels of an image of this size; raises InputError when nothing is left."""
        if self.unit == "all":
            return 0, height, 0, width
        if self.unit == "bottom":
            h, w = min(int(self.rows[1]), height), min(int(self.columns[1]), width)
            left = (width - w) // 2
            return height - h, height, left, left + w
        scale = (height, width) if self.unit == "fractions" else (1, 1)
        top, bottom = (min(max(int(x * scale[0]), 0), height) for x in self.rows)
        left, right = (min(max(int(x * scale[1]), 0), width) for x in self.columns)
        if top >= bottom or left >= right:
            raise InputError(f"crop {self.name} leaves nothing of an image of {width}x{height} pixels")
        return top, bottom, left, right

    def mask(self, height: int, width: int) -> NDArray[np.bool_]:
        """bool (height, width): True inside."""
        top, bottom, left, right = self.box(height, width)
        inside = np.zeros((height, width), dtype=bool)
        inside[top:bottom, left:right] = True
        return inside


WHOLE = Crop("none")
EIGEN = Crop("eigen", "fractions", (0.3324324, 0.91351351), (0.0359477, 0.96405229))
GARG = Crop("garg", "fractions", (0.40810811, 0.99189189), (0.03594771, 0.96405229))
NYU = Crop("nyu", "pixels", (45, 471), (41, 601))
KITTI_BENCHMARK = Crop("kitti-benchmark", "bottom", (0, 352), (0, 1216))


@dataclass(frozen=True)
class Protocol:
    """One way of measuring; every field changes numbers or says where the rest comes from.

    name: unique, source first, such as `kitti-eigen-garg-652`. summary: one line for people.
    source: publication and the place in its code. dataset: set, split and number of images that the source measures;
        what was measured here stands beside it in every result.
    prompt: patterns of `metricanything.patterns`, "given" (the data's own prompt) or "none"; of several, all points,
        and the first where two share a pixel. seed: with name of protocol and frame, makes each frame's random stream.
    intrinsics: whether the model is told the camera.
    size: (height, width) that images are brought to before all else, None = as they are; then `input_crop` is cut out,
        which the model sees alone. crop: where errors are counted.
    view: how images come to `size`: resized, or `centred`, turned to a centred principal point (`views.centred`).
    metric_truth: whether ground truth has to be in metres; False where every metric is blind to its scale.
    depth_range: metres; ground truth outside (bounds are inside) does not count. clamp: predictions are clamped to it.
    far_outliers: ground truth beyond this many times its own 1 % quantile does not count (MoGe: 1000).
    alignment: a name of `scores.ALIGNMENTS`, applied to the prediction over the pixels that count.
    model_mask: whether pixels that the model itself masks out have no prediction (which is charged, never skipped).
    averaging: `per_image` = mean over images; `pooled` = over all pixels of all images.
    metrics: names of `scores.SCORES`; the first ranks frames. not_measured: metrics of the source that are missing.
    unknown: what the source does not say, or where this departs from it.
    """

    name: str
    task: Task
    summary: str
    source: str
    dataset: str
    metrics: tuple[str, ...]
    prompt: tuple[str, ...] = (NONE,)
    seed: int = 0
    intrinsics: bool = True
    size: tuple[int, int] | None = None
    view: Literal["resized", "centred"] = "resized"
    metric_truth: bool = True
    input_crop: Crop = WHOLE
    crop: Crop = WHOLE
    depth_range: tuple[float, float] = (1e-3, float("inf"))
    clamp: bool = False
    far_outliers: float | None = None
    alignment: str = "none"
    model_mask: bool = False
    averaging: Literal["per_image", "pooled"] = "per_image"
    not_measured: tuple[str, ...] = ()
    unknown: str = ""

    def __post_init__(self) -> None:
        if self.view == "centred" and (self.size is None or GIVEN in self.prompt):
            raise ValueError(f"{self.name}: a centred view needs a size, and takes no prompt of the data along")

    @property
    def prompted(self) -> bool:
        """Whether the model is given a prompt."""
        return self.prompt != (NONE,)

    def frame_seed(self, frame: str) -> int:
        """The seed (below 2^63) of a frame's prompt, from the protocol and the frame's name alone."""
        text = "\n".join([self.name, *self.prompt, str(self.seed), frame])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def counts(self, depth: NDArray[np.float32]) -> NDArray[np.bool_]:
        """bool (H, W): ground truth, in metres, that is measured: known, in the crop, in range and no far outlier."""
        known = np.isfinite(depth) & (depth > 0)
        if self.far_outliers is not None and known.any():
            known &= depth <= self.far_outliers * float(np.quantile(depth[known], 0.01))
        low, high = self.depth_range
        with np.errstate(invalid="ignore"):
            known &= (depth >= low) & (depth <= high)
        return known & self.crop.mask(*depth.shape)

    def record(self) -> dict[str, Any]:
        """All fields, JSON-ready (an open end of the range is null), with the rules that hold for every protocol."""
        record = asdict(self)
        record["depth_range"] = [None if bound == float("inf") else bound for bound in self.depth_range]
        record["prompt_seed"] = f"SHA-256 of protocol, patterns, seed {self.seed} and frame name"
        record["prediction_resize"] = "to the size of the input, by the model; the input has the size of the truth"
        own = " and the model's mask" if self.model_mask else "; the model's mask is not applied"
        record["mask"] = f"known ground truth{own}"
        record["missing_prediction"] = "an error of every metric, as evaluation/metrics.py states"
        record["excluded_pixels"] = {
            "all": "unknown ground truth, outside crop and depth range",
            **({"unprompted": "the same, and pixels that hold a prompt point"} if self.prompted else {}),
        }
        return record
