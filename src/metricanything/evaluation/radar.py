"""Errors within ranges of depth, in millimetres, as radar-camera fusion reports them on nuScenes.

The truth is LiDAR (one scan or several accumulated) in the image, a pixel without a hit unknown. A range ends before
its last metre: 0 < gt < far. Average the results over images. Source: Singh et al. 2023 (RadarNet / FusionNet) and its
published evaluation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from metricanything.evaluation.metrics import counting_pixels, mae, rmse

RANGES = (50, 70, 80)  # metres


def range_errors(pred: ArrayLike, gt: ArrayLike, mask: ArrayLike | None = None) -> dict[str, float]:
    """MAE and RMSE in **millimetres** of the pixels nearer than 50, 70 and 80 m; lower is better.

    `pred` and `gt` are z-depths in metres of one shape. Names are `mae_mm_0_50`, `rmse_mm_0_50` and so on, NaN when no
    pixel counts within the range. A missing prediction is charged as depth 0. Raises InputError when shapes differ.
    """
    d, g = np.asarray(pred, dtype=np.float64), np.asarray(gt, dtype=np.float64)
    counts = counting_pixels(d.shape, g, mask)
    return {
        f"{name}_mm_0_{far}": 1000 * error(d, g, counts & (g < far))
        for far in RANGES
        for name, error in (("mae", mae), ("rmse", rmse))
    }
