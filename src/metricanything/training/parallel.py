"""One process or many: who I am, how the network is spread over devices, what all processes agree on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from metricanything.core.errors import InputError
from metricanything.models.compact.encoder import TransformerBlock
from metricanything.models.vit import Block
from metricanything.training.recipe import Hardware

BLOCKS = (Block, TransformerBlock)
"""What is sharded, checkpointed and compiled as a unit."""


@dataclass(frozen=True)
class World:
    """The processes of a run: this one's number, how many there are, its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, micro_batches: int) -> int:
        """Micro-batches per step of each process; raises InputError where they cannot be shared out evenly."""
        if micro_batches % self.size:
            raise InputError(
                f"{micro_batches} micro-batches per step cannot be shared by {self.size} processes; "
                f"set --micro-batches to a multiple of {self.size}"
            )
        return micro_batches // self.size

    def sum(self, values: Tensor) -> Tensor:
        """The sum of float64 `values` over all processes, on the CPU."""
        values = values.double()
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def gather(self, value: Any) -> list[Any]:
        """The picklable `value` of every process, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def world(hardware: Hardware) -> Iterator[World]:
    """Join the processes that torchrun started, if it did, and leave them at the end."""
    cuda = hardware.device == "cuda" or (hardware.device == "auto" and torch.cuda.is_available())
    if cuda and not torch.cuda.is_available():
        raise InputError("no CUDA device found; use --hardware.device cpu")
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if size == 1:
        yield World(0, 1, device)
        return
    # Checkpoints are gathered on the CPU, whatever the gradients travel by.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def spread(network: nn.Module, hardware: Hardware, world: World) -> nn.Module:
    """The network on its device, ready for training: what to call; `network` itself keeps names and parameters.

    Order matters: activation checkpoints inside, compilation of single blocks, then sharding or replication.
    """
    network.to(world.device)
    sharded = world.size > 1 and hardware.parallel == "fsdp"  # which knows contiguous parameters alone
    if not sharded and not any(isinstance(module, Block) for module in network.modules()):
        # Convolutions are faster so on CPUs and GPUs; transformers have nothing to gain.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if hardware.checkpoint_activations:
        recompute(network)
    if hardware.compile:
        for block in _blocks(network):
            block.compile()
        if not any(True for _ in _blocks(network)):
            network.compile()
    if world.size == 1:
        return network
    if sharded:
        _shard(network, hardware, world)
        return network
    ids = [world.device.index] if world.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if isinstance(module, BLOCKS))


def recompute(network: nn.Module) -> None:
    """Let every block keep its input alone; its forward is replaced, so that no parameter changes its name."""
    from torch.utils.checkpoint import checkpoint

    for block in _blocks(network):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def _shard(network: nn.Module, hardware: Hardware, world: World) -> None:
    """FSDP2: every transformer block a unit of its own, the rest with the root."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Nothing here changes a block's output in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    # Blocks travel and compute in half precision; norms, heads and the prompt path stay with the root in float32.
    half = torch.bfloat16 if hardware.precision == "bfloat16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=True)
    for block in _blocks(network):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh)


def autocast(hardware: Hardware, world: World) -> AbstractContextManager:
    """Lower precision where the recipe asks for it."""
    if hardware.precision == "float32":
        return nullcontext()
    return torch.autocast(world.device.type, dtype=torch.bfloat16)


def synchronised(network: nn.Module, now: bool) -> AbstractContextManager:
    """Whether gradients are exchanged at the end of this backward pass; all but a step's last micro-batch wait."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        return nullcontext() if now else network.no_sync()
    if hasattr(network, "set_requires_gradient_sync"):
        network.set_requires_gradient_sync(now)  # type: ignore[operator]
    return nullcontext()


def gather_again(network: nn.Module) -> None:
    """Forget the whole parameters that a sharded network keeps from a forward pass that no backward pass followed.

    Whoever changes parameters after such a pass (`Average.swap`) would otherwise find the next one using the old ones.
    """
    for module in network.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # type: ignore[operator]


def gradient_norm(network: nn.Module, clip: float) -> Tensor:
    """Clip the gradient in place to the norm `clip`; the norm over all processes before that, float32 ()."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
