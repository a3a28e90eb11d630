"""Frame: one image with its metric depth, camera, pose and provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError

Kind = Literal["reconstructed", "captured", "rendered"]
Sensor = Literal["sfm", "slam", "mvs", "lidar", "tof", "rgbd", "stereo", "radar", "synthetic"]
Scale = Literal["metric", "up_to_scale", "affine"]

KINDS: tuple[Kind, ...] = ("reconstructed", "captured", "rendered")
SENSORS: tuple[Sensor, ...] = ("sfm", "slam", "mvs", "lidar", "tof", "rgbd", "stereo", "radar", "synthetic")
SCALES: tuple[Scale, ...] = ("metric", "up_to_scale", "affine")


@dataclass(frozen=True)
class Frame:
    """One image–depth pair, as every reader yields it and every shard stores it.

    name: unique within its source, such as `scene/000123`.
    image: uint8 (H, W, 3) sRGB.
    depth: float32 (H, W) z-depth in metres (or in the source's unit when `scale` is not metric);
        NaN = unknown, +inf = known to be sky or beyond range.
    camera: calibrated for exactly this image, (W, H) pixels.
    world_from_cam: float64 (4, 4) pose in the OpenCV convention, or None.
    sigma: float32 (H, W) standard deviation of the depth in the unit of the depth, NaN = not stated; or None.

    Raises InputError, naming the frame, when shapes, types or values contradict this.
    """

    name: str
    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: Camera
    kind: Kind
    sensor: Sensor
    source: str
    licence: str
    scale: Scale = "metric"
    world_from_cam: NDArray[np.float64] | None = None
    sigma: NDArray[np.float32] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        image, depth = self.image, self.depth
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(f"{self.name}: image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        if depth.dtype != np.float32 or depth.shape != image.shape[:2]:
            raise InputError(
                f"{self.name}: depth must be float32 {image.shape[:2]} like the image, got {depth.dtype} {depth.shape}"
            )
        if (self.camera.height, self.camera.width) != image.shape[:2]:
            raise InputError(
                f"{self.name}: camera is for {self.camera.width}x{self.camera.height} pixels but the image has "
                f"{image.shape[1]}x{image.shape[0]}; resize the camera with camera.resize(width, height)"
            )
        if np.any(depth <= 0):
            raise InputError(f"{self.name}: depth has values <= 0; mark unknown pixels with NaN")
        if self.sigma is not None and (self.sigma.shape != depth.shape or self.sigma.dtype != np.float32):
            raise InputError(f"{self.name}: sigma must be float32 {depth.shape} like the depth")
        if self.world_from_cam is not None and (
            self.world_from_cam.shape != (4, 4) or not np.all(np.isfinite(self.world_from_cam))
        ):
            raise InputError(f"{self.name}: world_from_cam must be a finite (4, 4) matrix")
        if self.kind not in KINDS or self.sensor not in SENSORS or self.scale not in SCALES:
            raise InputError(f"{self.name}: kind, sensor or scale unknown: {self.kind}, {self.sensor}, {self.scale}")

    @property
    def height(self) -> int:
        """Image height in pixels."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Image width in pixels."""
        return int(self.image.shape[1])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(H, W) bool, True where the depth is a finite measurement."""
        return np.isfinite(self.depth)
