"""What a recipe would cost, worked out without a weight: parameters, memory, FLOPs, GPU-hours.

The network takes one real step with fake tensors, which have a size and no content. Memory is what the tensors that
live at the same time add up to; a framework's own buffers come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from metricanything.core.errors import InputError
from metricanything.data.batches import Batch
from metricanything.models.registry import get_spec
from metricanything.training import parallel
from metricanything.training.parallel import World
from metricanything.training.pretrain import task_of
from metricanything.training.recipe import Recipe

_CPU_ATTENTION = {  # the counter knows the attention of GPUs alone
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}
PAIRS = 20_000_000
"""Image-depth pairs of the published training set."""
PEAKS = {"H100 or H200 (SXM), bf16": 989e12, "A100, bf16": 312e12, "RTX 4090, bf16": 165e12}
"""Dense matrix FLOP/s, from the makers' data sheets."""


@dataclass(frozen=True)
class Plan:
    """The cost of a recipe; bytes are those of one process."""

    recipe: Recipe
    parameters: int
    weights: int
    gradients: int
    optimiser: int
    average: int
    activations: int
    """What forward and backward pass of one micro-batch need at their peak beyond the rest, the batch included."""
    forward_flops: int
    """Of one image; a multiplication and an addition count as two."""
    step_flops: int
    """Of one image, forward and backward, with what activation checkpoints compute again."""
    utilisation: float

    @property
    def memory(self) -> int:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimiser + self.average + self.activations

    def gpu_hours(self, images: int, peak: float) -> float:
        """Hours of one GPU of `peak` FLOP/s at the stated utilisation."""
        return images * self.step_flops / (peak * self.utilisation) / 3600

    def text(self) -> str:
        """The plan as lines to read."""
        r, gib = self.recipe, 2**30
        step = r.batch * r.micro_batches
        parts = {
            "weights": self.weights, "gradients": self.gradients, "optimiser": self.optimiser,
            "average": self.average, "activations": self.activations,
        }  # fmt: skip
        views = ", ".join(f"{h}x{w}" for h, w in r.data.sizes)
        lines = [
            f"{r.model}: {self.parameters / 1e6:.1f} M parameters, {r.hardware.precision}",
            f"{r.steps} steps of {r.micro_batches} x {r.batch} images at {views}: {r.images / 1e6:.3g} M images",
            f"memory of a process: {self.memory / gib:.2f} GiB = "
            + " + ".join(f"{name} {value / gib:.2f}" for name, value in parts.items()),
            f"{self.forward_flops / 1e9:.4g} GFLOPs per image forward, {self.step_flops / 1e9:.4g} for a training step",
            f"hours at {self.utilisation:.0%} of the peak:",
        ]
        for name, peak in PEAKS.items():
            mine, all_pairs = self.gpu_hours(r.images, peak), self.gpu_hours(PAIRS, peak)
            lines.append(f"  {name}: {mine:,.3g} for this run, {all_pairs:,.3g} for 20 M pairs seen once")
        if r.micro_batches > 1:
            lines.append(f"up to {r.micro_batches} processes share a step of {step} images")
        return "\n".join(lines)


def plan(recipe: Recipe, utilisation: float = 0.4, processes: int = 1) -> Plan:
    """Work out a recipe at its largest view; `processes` share weights, gradients and optimiser under FSDP.

    Raises InputError for a utilisation outside 0 … 1.
    """
    if not 0 < utilisation <= 1:
        raise InputError(f"utilisation is a share of the peak between 0 and 1, got {utilisation}")
    with torch.device("meta"):
        network = get_spec(recipe.model).build(recipe.changes)
    # Fake tensors with meta contents, because the meta device itself knows no autocast.
    with FakeTensorMode(allow_non_fake_inputs=True):
        _empty(network)
        if recipe.hardware.checkpoint_activations:
            parallel.recompute(network)
        return _plan(recipe, network, utilisation, processes if recipe.hardware.parallel == "fsdp" else 1)


def _empty(network: nn.Module) -> None:
    for module in network.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(torch.empty(value.shape), requires_grad=value.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _plan(recipe: Recipe, network: nn.Module, utilisation: float, share: int) -> Plan:
    world = World(0, 1, torch.device("cpu"))
    height, width = max(recipe.data.sizes, key=lambda size: size[0] * size[1])
    task = task_of(recipe)

    def step(batch: Batch, *, backward: bool = True) -> None:
        with parallel.autocast(recipe.hardware, world):
            output = network(*task.inputs(batch))
        if backward:
            torch.stack(list(task.loss(output, batch, recipe.stages[0].weights).values())).sum().backward()

    one = empty_batch(1, height, width)
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as forward, torch.no_grad():
        step(one, backward=False)
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as both:
        step(one)
    network.zero_grad(set_to_none=True)
    weights = sum(p.nbytes for p in network.parameters())
    gradients = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    peak = peak_bytes(lambda: step(empty_batch(recipe.batch, height, width)))
    return Plan(
        recipe,
        parameters=sum(p.numel() for p in network.parameters()),
        weights=weights // share,
        gradients=gradients // share,
        optimiser=2 * gradients // share,
        average=(weights if recipe.optimiser.average else 0) // share,
        activations=max(peak - gradients, 0),
        forward_flops=forward.get_total_flops(),
        step_flops=both.get_total_flops(),
        utilisation=utilisation,
    )


def empty_batch(images: int, height: int, width: int) -> Batch:
    """A batch without content, with a prompt."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype)

    return Batch(
        image_B3HW=empty(images, 3, height, width).to(memory_format=torch.channels_last),
        depth_BHW=empty(images, height, width),
        focal_B=empty(images),
        plane_BHW2=empty(images, height, width, 2),
        trusted_B=empty(images, dtype=torch.bool),
        metric_B=empty(images, dtype=torch.bool),
        sparse_B=empty(images, dtype=torch.bool),
        names=("",) * images,
        prompt_BHW=empty(images, height, width),
    )


def peak_bytes(run: Callable[[], None]) -> int:
    """The largest sum of bytes of the tensors that `run` makes and that live at the same time."""
    with _Tracker() as tracker:
        run()
    return tracker.peak


class _Tracker(TorchDispatchMode):
    """Adds up every storage when an operator makes it, and takes it away when it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {id(t.untyped_storage()) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._seen and id(storage) not in given:
                    self._add(storage)
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def freed(_: object) -> None:
            self.now -= size
            self._seen.pop(key, None)

        self._seen[key] = weakref.ref(storage, freed)
        self.now += size
