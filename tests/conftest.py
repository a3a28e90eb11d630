"""What all tests share: no network, one thread per process, and small synthetic scenes with exact depth."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported: with one worker per core, more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from hypothesis import settings

from metricanything.core.camera import Camera
from metricanything.core.frame import Frame

if TYPE_CHECKING:
    from metricanything.curate.shards import Shards
    from metricanything.models.compact.teacher import DepthConfig

settings.register_profile("tests", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("tests")


def plane_frame(seed: int = 0, height: int = 48, width: int = 64, **fields: Any) -> Frame:
    """A slanted plane, a nearer box in front and a strip of sky above; depth is exact at every pixel centre.

    Colours depend on the depth, so that even a small network has something to learn.
    """
    rng = np.random.default_rng(seed)
    f = width * rng.uniform(0.7, 1.3)
    camera = Camera.pinhole(f, f * 1.02, width * 0.48, height * 0.53, width, height)
    rays = camera.rays().astype(np.float64)
    normal = np.array([rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.6), 1.0])
    distance = rng.uniform(2.0, 5.0)
    depth = distance / ((rays / rays[..., 2:]) @ normal)
    row, column = int(height * rng.uniform(0.3, 0.6)), int(width * rng.uniform(0.2, 0.6))
    depth[row : row + height // 4, column : column + width // 4] = distance * 0.4
    shade = np.clip(255 / (1 + depth / 3), 0, 255)[..., None] * rng.uniform(0.5, 1.0, 3)
    image = np.clip(shade + rng.normal(0, 4, (height, width, 1)), 0, 255).astype(np.uint8)
    image[: height // 8], depth[: height // 8] = (200, 220, 255), np.inf
    defaults = {
        "name": f"planes/{seed:03d}",
        "camera": camera,
        "kind": "rendered",
        "sensor": "synthetic",
        "source": "planes",
        "licence": "CC0-1.0",
    }
    return Frame(image=image, depth=depth.astype(np.float32), **{**defaults, **fields})


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., Frame]:
    """`plane_frame(seed, height, width, **fields of Frame)`."""
    return plane_frame


@pytest.fixture
def make_shards(tmp_path: Path) -> Callable[..., Shards]:
    """Frames -> an opened shard folder, a new one for every call."""
    from metricanything.curate.shards import Shards
    from metricanything.curate.writing import write_shards

    def make(frames: list[Frame], **options: Any) -> Shards:
        folder = tmp_path / f"shards-{len(list(tmp_path.iterdir()))}"
        write_shards(frames, folder, **options)
        return Shards(folder)

    return make


@pytest.fixture(scope="session")
def tiny_config() -> DepthConfig:
    """A compact network of a few thousand parameters."""
    from metricanything.models.compact.decoder import DecoderConfig
    from metricanything.models.compact.encoder import EncoderConfig
    from metricanything.models.compact.teacher import DepthConfig

    encoder = EncoderConfig(widths=(8, 8, 16, 16), blocks=(1, 1, 1), token_width=32, token_blocks=1, heads=2)
    return DepthConfig(encoder, DecoderConfig(widths=(8, 8, 16, 16), fusion_width=8))
