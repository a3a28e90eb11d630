"""Baselines: dense depth from the sparse points alone, from points and image, or from points and a prediction.

They show what a learned model adds. All take `uv` (N, 2) pixels (the centre of the top-left pixel is at (0.5, 0.5)),
`depth` (N,) z-depth in metres and the image size, and return float32 (H, W) metres:
- points whose depth is not finite and positive, or whose pixel is not finite, are no measurement and are left out;
- of points at exactly the same position the nearest one wins, since it hides the others;
- without any point the map is all NaN; otherwise it has a finite positive value everywhere, never outside the range of
  the points, unless it scales a prediction (`needs == "prediction"`).
They raise InputError when the shapes do not fit, and when what they need beside the points is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from numpy.typing import ArrayLike

from metricanything.core.errors import InputError
from metricanything.inference.baselines.filling import guided, morphological
from metricanything.inference.baselines.fitting import fitted
from metricanything.inference.baselines.interpolation import idw, linear, nearest
from metricanything.inference.baselines.measurements import DepthMap

__all__ = ["BASELINES", "Baseline", "fitted", "guided", "idw", "linear", "morphological", "nearest", "prompt_only"]

Needs = Literal["prompt", "image", "prediction"]


@dataclass(frozen=True)
class Baseline:
    """A baseline: one line on what it does, what it needs beside the prompt, and its function."""

    description: str
    function: Callable[..., DepthMap]
    """`function(uv, depth, height, width)`, and by name what `needs` says."""
    needs: Needs = "prompt"
    """prompt: nothing more; image: the photograph; prediction: a model's depth, made without the prompt."""

    def complete(
        self,
        uv: ArrayLike,
        depth: ArrayLike,
        height: int,
        width: int,
        *,
        image: ArrayLike | None = None,
        prediction: ArrayLike | None = None,
    ) -> DepthMap:
        """Dense depth float32 (H, W) in metres of points `uv` (N, 2) with `depth` (N,).

        image: uint8 (H, W, 3); prediction: depth (H, W); both may be given to every baseline, and those that have no
        use for them do not look at them. Raises InputError when the needed one is missing or shapes do not fit.
        """
        if self.needs == "prompt":
            return self.function(uv, depth, height, width)
        given = image if self.needs == "image" else prediction
        if given is None:
            raise InputError(f"this baseline ({self.description}) needs {self.needs}=, which is missing")
        return self.function(uv, depth, height, width, **{self.needs: given})


#: All baselines by name.
BASELINES: dict[str, Baseline] = {
    "nearest": Baseline("depth of the nearest prompt point in the image", nearest),
    "linear": Baseline("linear interpolation over the Delaunay triangles of the prompt, nearest point outside", linear),
    "idw": Baseline("mean of the 8 nearest prompt points, weighted by inverse squared distance", idw),
    "morphological": Baseline("dilation and closing of inverted depth, near surfaces win (IP-Basic)", morphological),
    "guided": Baseline("mean of the 16 nearest prompt points, weighted by distance and colour", guided, "image"),
    "fitted-scale": Baseline(
        "prompt-free prediction times the scale that fits the prompt", partial(fitted, shift=False), "prediction"
    ),
    "fitted": Baseline("prompt-free prediction, scaled and shifted in depth to fit the prompt", fitted, "prediction"),
    "fitted-disparity": Baseline(
        "prompt-free prediction, scaled and shifted in disparity to fit the prompt",
        partial(fitted, space="disparity"),
        "prediction",
    ),
}


def prompt_only() -> dict[str, Baseline]:
    """The baselines that need no model: the prompt, and for some the image."""
    return {name: baseline for name, baseline in BASELINES.items() if baseline.needs != "prediction"}
