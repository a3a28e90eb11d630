"""What a kind of scene says of itself, and where its camera looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metricanything.sources.procedural.draws import Draws, Floats
from metricanything.sources.procedural.parts import Parts


@dataclass
class Layout:
    """B scenes of one kind in world coordinates (metres, z up, linear light).

    `eye`, `target` (B, 3): where the camera is and looks; `lights` (B, 2, 7): x, y, z, w, r, g, b, with w = 0 a lamp
    at a place and w = 1 the sun in a unit direction; `ambient` (B, 2, 3): light from above and from below;
    `sky` (B, 2, 3): at the horizon and in the zenith; `cloud` (B,): share of cloud; `haze` (B,): extinction per metre;
    `field` (B, G, G): heights around the origin, or None; `ground` (B, M): its material.
    """

    parts: Parts
    eye: Floats
    target: Floats
    lights: Floats
    ambient: Floats
    sky: Floats
    cloud: Floats
    haze: Floats
    field: Floats | None = None
    ground: Floats | None = None


def look_at(draw: Draws, eye: Floats, target: Floats) -> Floats:
    """World-from-camera rotations (B, 3, 3), OpenCV axes, looking from `eye` to `target` with a slight random roll."""
    forward = target - eye
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.maximum(np.linalg.norm(right, axis=-1, keepdims=True), 1e-9)
    down = np.cross(forward, right)
    roll = np.deg2rad(draw(-1, 1) ** 3 * 20)[:, None]
    right, down = np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right
    return np.stack([right, down, forward], axis=-1)


def daylight(draw: Draws) -> tuple[Floats, Floats, Floats, Floats]:
    """Sun (B, 7), ambient (B, 2, 3), sky (B, 2, 3) and cloud (B,): from blue noon to overcast and low evening sun."""
    elevation, azimuth = np.deg2rad(draw(8, 75)), draw(0, 2 * np.pi)
    direction = np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth),
                          np.sin(elevation)], axis=-1)  # fmt: skip
    cloud = np.where(draw.chance(0.25), 1.0, draw(0, 0.6))
    low = np.clip(1 - elevation / 0.6, 0, 1)[:, None]
    sun = (np.array([1.0, 0.95, 0.87]) * (1 - low) + np.array([1.0, 0.72, 0.45]) * low) * 2.6
    sun = sun * np.where(cloud > 0.99, 0.12, 1.0)[:, None] * draw(0.7, 1.2)[:, None]
    grey = np.clip(cloud, 0, 1)[:, None]
    zenith = np.array([0.12, 0.28, 0.75]) * (1 - grey) + np.array([0.55, 0.58, 0.62]) * grey
    horizon = np.array([0.62, 0.72, 0.85]) * (1 - 0.5 * low) + np.array([0.9, 0.66, 0.45]) * 0.5 * low
    horizon = horizon * (1 - grey) + np.array([0.75, 0.76, 0.78]) * grey
    ambient = np.stack([0.45 * zenith + 0.4 * horizon + 0.1, 0.2 * horizon + 0.08], axis=1)
    lights = np.concatenate([direction, np.ones((len(draw), 1)), sun], axis=-1)
    return lights, ambient, np.stack([horizon, zenith], axis=1), cloud


def lamplight(parts: Parts, draw: Draws, size: Floats, eye: Floats, target: Floats) -> Layout:
    """Rooms with a corner at the origin, lit by a lamp, and by the sun through the windows or a second lamp."""
    sun, ambient, sky, cloud = daylight(draw)
    warm = np.stack([np.ones(len(draw)), draw(0.75, 1.0), draw(0.5, 1.0)], -1)
    lamps = np.stack([draw(0.2, 0.8, 2), draw(0.2, 0.8, 2), draw(0.7, 0.93, 2)], -1) * size[:, None]
    power = (size[:, :2].prod(-1) ** 0.5)[:, None] * draw(0.4, 1.6, 2)
    lights = np.concatenate([lamps, np.zeros((len(draw), 2, 1)), warm[:, None] * power[..., None]], -1)
    lights[:, 1] = np.where(draw.chance(0.6)[:, None], sun * [1, 1, 1, 1, 2.5, 2.5, 2.5], lights[:, 1])
    level = draw(0.15, 0.5)[:, None, None]
    ambient = level * (0.5 * warm[:, None] + 0.5) * np.array([1.0, 0.75])[:, None]
    return Layout(parts, eye, target, lights, ambient, sky * draw(1, 3)[:, None, None], cloud, np.zeros(len(draw)))
