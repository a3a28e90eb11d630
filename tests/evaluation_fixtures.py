"""One small scene for several test files, from closed formulas, so that other programs can compute it too."""

from __future__ import annotations

import numpy as np


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prediction and truth (48, 60) float32 metres and a mask: a ramp with a box in front, the prediction distorted."""
    v, u = np.mgrid[0:48, 0:60].astype(np.float64)
    gt = 3 + 0.05 * v + 0.02 * u
    gt[12:36, 20:45] = 1.5 + 0.3 * np.sin(0.4 * u[12:36, 20:45])
    pred = 0.6 * gt**1.2 * (1 + 0.08 * np.sin(0.7 * u + 0.31 * v)) + 0.3 + 0.02 * np.cos(2.1 * u * v)
    pred[12:36, 20:24] = 2.9
    mask = (np.sin(1.3 * u) + np.cos(0.9 * v + 0.2 * u)) > -0.9
    return pred.astype(np.float32), gt.astype(np.float32), mask


def sparse_mask() -> np.ndarray:
    """A few pixels of the scene's mask: enough to tell an alignment, few enough to solve it at once."""
    v, u = np.mgrid[0:48, 0:60]
    return scene()[2] & ((3 * u + 5 * v) % 17 == 0)


def point_maps() -> tuple[np.ndarray, np.ndarray]:
    """The scene's prediction and truth as points (48, 60, 3), the predicted camera a little wrong."""
    pred, gt, _ = scene()
    v, u = np.mgrid[0:48, 0:60].astype(np.float32)
    x, y = (u - 29.5) / 50, (v - 23.5) / 50
    true = np.stack([x * gt, y * gt, gt], axis=-1)
    return np.stack([x * pred * 1.1 + 0.1, y * pred * 1.05 - 0.05, pred], axis=-1).astype(np.float32), true


def segments() -> np.ndarray:
    """Segments (48, 60) of the scene: 0 without a label, 1 the box, 2 what is above, 3 a corner too small to count."""
    ids = np.zeros((48, 60), np.int64)
    ids[:12] = 2
    ids[12:36, 20:45] = 1
    ids[40:44, :3] = 3
    return ids
