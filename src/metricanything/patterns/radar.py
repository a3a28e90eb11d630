"""Radar-like prompts: few, noisy, ambiguous in height."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metricanything.patterns.drawing import Streams, place_points, split
from metricanything.patterns.noise import Outliers
from metricanything.patterns.uniform import Uniform

_GHOSTS = Outliers(probability=(0.0, 0.1))


@dataclass(frozen=True)
class Radar:
    """Reflectors near the horizon, returned with errors in range and azimuth, a wrong height, and ghosts among them.

    The virtual camera is that of the LiDAR patterns: focal length equal to the image height, looking at the horizon.
    Automotive radar gives no height (nuScenes states all returns at the height of the sensor), so that a return lies
    up or down from its pixel by metres over depth. There is no published definition for masks of dense depth: all
    numbers are ours, in the range of automotive sensors.
    """

    points: tuple[int, int] = (30, 125)
    """Fewest and most reflectors, log-uniform; some are lost when they leave the image or share a pixel."""
    elevation: float = 0.15
    """Radians above and below the horizon that are lit."""
    height_error: float = 0.5
    """Standard deviation in metres."""
    azimuth_error: float = 0.005
    """Standard deviation in radians."""
    range_error: float = 0.02
    """Standard deviation relative to the depth."""
    ghosts: Outliers = _GHOSTS

    def draw(self, depth_BHW: Tensor, generator: torch.Generator, image_B3HW: Tensor | None = None) -> Tensor:
        """Prompt (B, H, W), also where depth is unknown; without a point where nothing near the horizon is known."""
        of_reflectors, of_errors, of_ghosts = split(generator, 3)
        _, h, _ = depth_BHW.shape
        row = torch.arange(h, device=depth_BHW.device) + 0.5
        lit_H1 = ((row - h / 2).abs() <= h * math.tan(self.elevation))[:, None]
        reflectors = Uniform(points=self.points, max_fraction=1.0)
        true_BHW = reflectors.draw(torch.where(lit_H1, depth_BHW, math.nan), of_reflectors)
        image, row, column = torch.isfinite(true_BHW).nonzero(as_tuple=True)
        depth = true_BHW[image, row, column]
        up, across, along = Streams(of_errors, len(depth_BHW)).of_points(image, 3, normal=True).unbind(dim=1)
        row = row + (h * self.height_error * up / depth).round().long()
        column = column + (h * self.azimuth_error * across).round().long()
        depth = depth * (self.range_error * along).exp()
        return self.ghosts.disturb(place_points(depth_BHW.shape, image, row, column, depth), depth_BHW, of_ghosts)
