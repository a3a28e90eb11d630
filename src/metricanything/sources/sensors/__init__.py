"""Simulated sensors: what stereo, structured light, time of flight, LiDAR, MVS and SfM make of true depth."""

from __future__ import annotations

from metricanything.sources.sensors.models import SENSOR_MODELS, simulate

__all__ = ["SENSOR_MODELS", "simulate"]
