"""Which compact design? Trains variants of the compact teacher alike and measures them side by side.

    python benchmarks/compare_compact.py SHARDS FRAMES… [--steps 260]

SHARDS is a folder of training shards (`runs/quickstart/shards` will do), FRAMES are folders that the `folder` reader
understands, from other sources than the shards. Prints one table: AbsRel in % over unprompted pixels per pattern,
prompt-only baselines, parameters and milliseconds for one 480x640 image. Results: docs/decisions/compact-models.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metricanything import sources
from metricanything.core.frame import Frame
from metricanything.curate.shards import Shards
from metricanything.evaluation.metrics import abs_rel
from metricanything.inference.baselines import prompt_only
from metricanything.inference.predictor import Model
from metricanything.models import prompting
from metricanything.models.compact.encoder import TransformerBlock, uv_grid
from metricanything.models.compact.teacher import CompactTeacher, DepthConfig
from metricanything.models.planes import spread
from metricanything.models.registry import MODELS
from metricanything.patterns import draw_prompt
from metricanything.training.engine import train
from metricanything.training.pretrain import mixture, task_of
from metricanything.training.recipes import quickstart_teacher

PATTERNS = ("uniform-500", "uniform-100", "lidar-8", "grid-8")


class PlainViT(nn.Module):
    """A plain ViT (patch 16, width 192, 12 blocks) with feature maps upsampled for the same decoder."""

    def __init__(self, widths: tuple[int, ...], width: int = 192, depth: int = 12) -> None:
        super().__init__()
        self.patch = nn.Conv2d(5, width, 16, stride=16)
        self.blocks = nn.ModuleList(TransformerBlock(width, 3) for _ in range(depth))
        self.reassemble = nn.ModuleList(nn.Conv2d(width, c, 1) for c in widths)
        self.down = nn.Conv2d(width, 256, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> list[Tensor]:
        h, w = image.shape[-2:]
        x = self.patch(torch.cat([image * 4 - 2, uv_grid(h, w, image).expand(len(image), -1, -1, -1)], dim=1))
        taps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i % 3 == 2:
                taps.append(x)
        maps = [
            F.interpolate(project(tap), scale_factor=scale, mode="bilinear")
            for project, tap, scale in zip(self.reassemble, taps, (8.0, 4.0, 2.0, 1.0), strict=True)
        ]
        return [*maps, self.down(x)]


class Unguided(prompting.PromptAnchor):
    """The anchor without learned affinities: planes go on bilinearly."""

    def forward(self, log_c: Tensor, prompt: prompting.SparseMap, features: list[Tensor]) -> Tensor:
        with patch.object(prompting, "spread", lambda moments, _, *rest: spread(moments, (), *rest)):
            return super().forward(log_c, prompt, features)


class NoAnchor(prompting.PromptAnchor):
    """Zero-initialised fusion alone."""

    def forward(self, log_c: Tensor, prompt: prompting.SparseMap, features: list[Tensor]) -> Tensor:
        return log_c


class PlanesAlone(prompting.PromptAnchor):
    """What the measurements say, without the network: prompt-only interpolation."""

    def forward(self, log_c: Tensor, prompt: prompting.SparseMap, features: list[Tensor]) -> Tensor:
        planes = spread(prompt.moments)[0].value[:, :1]
        return prompt.log_mean + prompt.log(planes) + 0 * self.raw_gain


class GlobalAnchor(prompting.PromptAnchor):
    """One shift per image: the mean residual at the prompt."""

    def forward(self, log_c: Tensor, prompt: prompting.SparseMap, features: list[Tensor]) -> Tensor:
        points, log = prompt.moments[:, :1], prompt.moments[:, 7:8]
        missed = (log - points * (log_c - prompt.log_mean)).sum(dim=(1, 2, 3), keepdim=True)
        return log_c + self.gain * missed / points.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1)


def variant(anchor: type[prompting.PromptAnchor] | None = None, vit: bool = False) -> Callable[[], CompactTeacher]:
    """A builder of the compact teacher with one part exchanged."""

    def build() -> CompactTeacher:
        config = DepthConfig()
        network = CompactTeacher(config)
        if anchor is not None:
            network.anchor = anchor(config.decoder.widths)
        if vit:
            network.encoder = PlainViT(config.encoder.widths)  # type: ignore[assignment]
        return network

    return build


VARIANTS: dict[str, Callable[[], CompactTeacher]] = {
    "fusion alone": variant(NoAnchor),
    "fusion + global anchor": variant(GlobalAnchor),
    "planes of the measurements alone": variant(PlanesAlone),
    "fusion + planes": variant(Unguided),
    "fusion + guided planes (chosen)": variant(),
    "the same with a plain ViT encoder": variant(vit=True),
}


def errors(frames: list[Frame], predict: Callable[[Frame, object, int], np.ndarray]) -> list[float]:
    """Mean AbsRel in % of each pattern."""
    means = []
    for pattern in PATTERNS:
        values = []
        for seed, frame in enumerate(frames):
            prompt = draw_prompt(frame.depth, pattern, seed)
            unseen = np.isnan(prompt.rasterise(frame.height, frame.width))
            values.append(abs_rel(predict(frame, prompt, seed), frame.depth, unseen))
        means.append(100 * float(np.mean(values)))
    return means


def milliseconds(network: nn.Module) -> float:
    """Median time of one 480x640 image with 500 prompt points."""
    image, prompt = torch.rand(1, 3, 480, 640), torch.zeros(1, 1, 480, 640)
    prompt.view(-1)[torch.randperm(480 * 640)[:500]] = 0.3
    times = []
    with torch.inference_mode():
        for _ in range(7):
            started = time.perf_counter()
            network(image, prompt)
            times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("frames", nargs="+")
    parser.add_argument("--steps", type=int, default=quickstart_teacher().steps)
    parser.add_argument("--every", type=int, default=1, help="take every n-th frame")
    parser.add_argument("--side", type=int, default=256)
    arguments = parser.parse_args()
    frames = [f for folder in arguments.frames for f in list(sources.read("folder", folder))[:: arguments.every]]
    shards = Shards(arguments.shards)
    config = quickstart_teacher(arguments.steps)
    print(f"{len(frames)} frames, {arguments.steps} steps of {config.batch}")
    print("| variant | parameters | ms | " + " | ".join(PATTERNS) + " |\n|" + "---|" * (3 + len(PATTERNS)))
    for name, baseline in prompt_only().items():
        row = errors(frames, lambda f, p, _, b=baseline: b.complete(p.uv, p.depth, f.height, f.width, image=f.image))
        print(f"| {name} | | | " + " | ".join(f"{e:.2f}" for e in row) + " |", flush=True)
    for name, build in VARIANTS.items():
        torch.manual_seed(config.seed)
        network = build()
        with tempfile.TemporaryDirectory() as folder:
            train(network, task_of(config), config, [mixture(config, [shards], 0)], folder)
        model = Model(network, MODELS["compact-teacher"], device="cpu")
        row = errors(
            frames,
            lambda f, p, _, m=model: m.predict(f.image, prompt=p, camera=f.camera, max_side=arguments.side).depth,
        )
        count = sum(p.numel() for p in network.parameters()) / 1e6
        cells = " | ".join(f"{e:.2f}" for e in row)
        print(f"| {name} | {count:.1f} M | {milliseconds(network):.0f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
