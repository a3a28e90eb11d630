"""Images and exact depth of procedural scenes, batched, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.sources.procedural import shade, trace
from metricanything.sources.procedural.scene import Scenes, compose, random_cameras
from metricanything.sources.procedural.texture import Bank, bank

FAR = 1000.0  # metres; what lies beyond counts as sky
_COMPOSED = 64  # scenes laid out together: the work of laying out hardly depends on their number


@dataclass(frozen=True)
class Rendered:
    """B images of H x W pixels, tensors on the device they were rendered on.

    `image` uint8 (B, H, W, 3) sRGB; `depth` float32 (B, H, W) z-depth in metres, +inf sky, NaN where a pixel sees
    nothing or lies behind the image plane; `distance` float32 (B, H, W) along the ray, likewise, also behind;
    `normal` float32 (B, H, W, 3) unit, camera frame, towards the camera, NaN where there is no surface;
    `cameras`; `world_from_cam` float64 (B, 4, 4), z up; `kind`: names of the scenes' layouts.
    """

    image: Tensor
    depth: Tensor
    distance: Tensor
    normal: Tensor
    cameras: list[Camera]
    world_from_cam: NDArray[np.float64]
    kind: tuple[str, ...]


@dataclass(frozen=True)
class _Budget:
    """How much is worked on at once: scenes, and pairs of a tile and a primitive (kept within a CPU's cache)."""

    scenes: int
    pairs: int


def _budget(device: torch.device, pixels: int) -> _Budget:
    if device.type == "cpu":
        return _Budget(max(1, 8 * 160 * 120 // pixels), 512)
    return _Budget(max(1, 256 * 160 * 120 // pixels), 1 << 16)


def render(
    seeds: Sequence[int],
    width: int,
    height: int,
    *,
    device: str | torch.device = "cpu",
    cameras: Sequence[Camera] | None = None,
    photos: Sequence[NDArray[np.uint8]] | Bank = (),
) -> Rendered:
    """Render one scene per seed; the same seed gives the same scene in any batch and on any device.

    `cameras`: one per seed, all `width` x `height`, any model; drawn from the seeds when not given.
    `photos`: uint8 (H, W, 3) sRGB pictures to use as textures on half of the surfaces, or the bank made of them.
    Raises InputError for no seeds, an empty image, cameras that do not fit, or photos that are not such arrays.
    """
    device = torch.device(device)
    if not len(seeds) or width < 1 or height < 1:
        raise InputError(f"render needs seeds and a positive size, got {len(seeds)} seeds and {width}x{height}")
    chosen = random_cameras(seeds, width, height) if cameras is None else list(cameras)
    if len(chosen) != len(seeds) or any((c.width, c.height) != (width, height) for c in chosen):
        raise InputError(f"render needs one camera of {width}x{height} pixels for each of the {len(seeds)} seeds")
    given = photos if isinstance(photos, Bank) else bank(photos) if len(photos) else None
    textures = _procedural_bank(str(device)) if given is None else given.to(device)
    budget = _budget(device, width * height)
    parts = []
    group = budget.scenes * max(1, _COMPOSED // budget.scenes)
    for first in range(0, len(seeds), group):
        composed = compose(seeds[first : first + group])
        for start in range(0, len(composed), budget.scenes):
            scenes = composed.part(start, start + budget.scenes)
            seen_by = chosen[first + start : first + start + len(scenes)]
            rays = torch.from_numpy(np.stack([camera.rays() for camera in seen_by]))
            angle = torch.tensor([1 / camera.fx for camera in seen_by], dtype=torch.float32)
            with _full_precision(device):
                traced = trace_scenes(scenes.to(device), rays.to(device), angle.to(device), textures, budget.pairs)
            parts.append((*traced, _poses(scenes), scenes.kind))
    image, depth, distance, normal, poses, kinds = zip(*parts, strict=True)
    return Rendered(torch.cat(image), torch.cat(depth), torch.cat(distance), torch.cat(normal), chosen,
                    np.concatenate(poses), tuple(kind for group in kinds for kind in group))  # fmt: skip


@cache
def _procedural_bank(device: str) -> Bank:
    return bank().to(torch.device(device))


def _poses(scenes: Scenes) -> NDArray[np.float64]:
    poses = np.tile(np.eye(4), (len(scenes.eye), 1, 1))
    poses[:, :3, :3] = scenes.rotation.cpu().numpy()
    poses[:, :3, 3] = scenes.eye
    return poses


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Products in float32 proper, whatever a training program has set: TF32 or bfloat16 would bend the rays."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False), torch.inference_mode():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def trace_scenes(
    scenes: Scenes, rays_BHW3: Tensor, pixel_B: Tensor, textures: Bank, pairs: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, depth, distance and normals (as in `Rendered`) of scenes seen along unit camera rays (NaN: nothing).

    `pixel`: angle of a pixel in radians; `pairs`: tiles intersected at once.
    """
    _, height, width, _ = rays_BHW3.shape
    sees = rays_BHW3.isfinite().all(-1)
    clean = torch.where(sees[..., None], rays_BHW3, 0.0)
    world = torch.einsum("bij,bhwj->bhwi", scenes.rotation, clean)
    padded = torch.nn.functional.pad(
        world.permute(0, 3, 1, 2), (0, -width % trace.TILE, 0, -height % trace.TILE)
    ).permute(0, 2, 3, 1)
    high, wide = padded.shape[1:3]
    rays = trace.to_tiles(padded)
    hits = shade.find_hits(rays, scenes, pairs, FAR)
    colour, normal = shade.radiance(rays, hits, scenes, textures, pixel_B, pairs)

    def picture(x_BTPC: Tensor) -> Tensor:
        return trace.from_tiles(x_BTPC.transpose(2, 3), high, wide)[:, :height, :width]

    distance = torch.where(sees, picture(hits.distance[..., None])[..., 0], torch.nan)
    z = clean[..., 2]
    depth = torch.where(sees & (z > 0), distance * z.clamp_min(1e-12), torch.nan)
    image = shade.develop(torch.where(sees[..., None], picture(colour), 0.0), scenes.film)
    turned = torch.einsum("bji,bhwj->bhwi", scenes.rotation, picture(normal))
    return image, depth, distance, torch.where(sees[..., None], turned, torch.nan)
