"""What a training run is: one frozen dataclass, made by the functions in `recipes`, every field of it an option."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metricanything.core.errors import InputError
from metricanything.core.frame import KINDS, Kind
from metricanything.data.augment import Augmentation
from metricanything.data.prompts import PromptMixture
from metricanything.losses.combination import DepthWeights
from metricanything.losses.point_combination import PointWeights


@dataclass(frozen=True)
class Data:
    """Which pairs a run sees, and how."""

    shards: tuple[Path, ...] = ()
    """Shard folders to train on."""
    validation: tuple[Path, ...] = ()
    """Shard folders that are only measured on; without any, the last checkpoint counts as the best."""
    weights: dict[str, float] | None = None
    """Relative share of each source, 0 for those left out; without it, `temperature` decides."""
    temperature: float = 0.5
    """A source's share goes with its number of frames to this power: 0 = all alike, 1 = by size."""
    pairs: int | None = None
    """Train on so many of the pairs alone, of every source in proportion; fewer are always among more."""
    sizes: tuple[tuple[int, int], ...] = ((128, 160), (96, 160), (160, 128))
    """(height, width) of the training views, one drawn per step; multiples of 32."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Crops, mirroring, colours, blur and compression."""
    workers: int = 1
    """Processes that make batches beside the training; 0 = a thread of it."""


@dataclass(frozen=True)
class Stage:
    """A part of a run: which labels count and what is minimised."""

    share: float = 1.0
    """Part of the steps; the shares of all stages sum to 1."""
    kinds: tuple[Kind, ...] = KINDS
    """Which kinds of sources are drawn from."""
    weights: DepthWeights | PointWeights = field(default_factory=DepthWeights)
    """Weights of the terms of the loss, for depth maps or for point maps."""


@dataclass(frozen=True)
class Optimiser:
    """AdamW, its schedule and the average of the weights."""

    rate: float = 1e-3
    """Peak learning rate of decoder, prompt path and heads."""
    encoder_rate: float = 1e-3
    """Peak learning rate of the image encoder; a pretrained one wants a tenth or less."""
    warmup: int = 50
    """Steps of linear warm-up."""
    decay: float = 0.5
    """Fraction of the steps, at the end, over which the rates fall linearly to zero."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Of AdamW."""
    weight_decay: float = 0.01
    """Of weight matrices and convolutions; not of biases, norms and gains."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.0
    """Decay per step of the exponential moving average of the weights, which is then what is saved; 0 = none."""


@dataclass(frozen=True)
class Hardware:
    """How the computation is carried out; changes nothing but rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: every process holds the whole model (DDP) or a slice of it (FSDP2)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: autocast in the forward pass; weights, optimiser and losses stay float32."""
    checkpoint_activations: bool = False
    """Compute each transformer block again in the backward pass instead of keeping what it needs."""
    compile: bool = False
    """torch.compile: worth its minutes on a GPU, not on a CPU."""


@dataclass(frozen=True)
class Record:
    """What a run leaves behind, and how often."""

    checkpoint_seconds: float = 300.0
    """Time between checkpoints."""
    keep: int = 2
    """Checkpoints kept besides the best one."""
    validate_every: int = 1000
    """Steps between measurements on the validation shards."""
    validation_frames: int = 64
    """Frames that each measurement looks at."""
    log_every: int = 10
    """Steps between lines of TensorBoard."""
    wandb: str | None = None
    """Weights & Biases project that mirrors TensorBoard, where wandb is installed."""


@dataclass(frozen=True)
class Recipe:
    """A training run, whole."""

    model: str
    """Name of a registered model (`metricanything models`)."""
    steps: int
    """Optimiser steps."""
    batch: int = 16
    """Images of a micro-batch, which one process computes at a time."""
    micro_batches: int = 1
    """Micro-batches per step, over all processes: each computes its share of them, so their number must divide it."""
    config: str = "{}"
    """Changes to the model's configuration, as JSON: {"decoder": {"widths": [16, 32, 64, 128, 256]}}."""
    start: str | None = None
    """Weights to begin with: a checkpoint, of which every tensor is taken that fits; or DINOv2 or DINOv3 weights for
    a full-size encoder, a file or Hub id."""
    input_side: int = 256
    """Longer side in pixels of a 4:3 image at which the trained model is used unless told otherwise, other images with
    as many pixels; goes into its record."""
    prompts: PromptMixture = field(default_factory=PromptMixture)
    """What the teacher's prompts look like; students see none."""
    data: Data = field(default_factory=Data)
    stages: tuple[Stage, ...] = (Stage(),)
    optimiser: Optimiser = field(default_factory=Optimiser)
    hardware: Hardware = field(default_factory=Hardware)
    record: Record = field(default_factory=Record)
    seed: int = 0
    """Seeds data order, augmentation, prompts and initial weights."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must lie between 0 and 2^32, got {self.seed}")
        record = {f"record.{name}": getattr(self.record, name) for name in ("keep", "validate_every", "log_every")}
        for name, value in {
            "steps": self.steps,
            "batch": self.batch,
            "micro_batches": self.micro_batches,
            **record,
        }.items():
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.data.workers < 0:
            raise InputError(f"data.workers must be at least 0, got {self.data.workers}")
        if not isinstance(self.changes, dict):
            raise InputError(f"config must be a JSON object such as {{}}, got {self.config}")
        if not self.stages or abs(sum(stage.share for stage in self.stages) - 1) > 1e-6:
            raise InputError("the shares of the stages must sum to 1")
        if any(stage.share < 0 for stage in self.stages):
            raise InputError("the shares of the stages must be at least 0")
        if (
            any(height % 32 or width % 32 or height < 32 or width < 32 for height, width in self.data.sizes)
            or not self.data.sizes
        ):
            raise InputError(f"sizes must be multiples of 32, got {self.data.sizes}")
        for name, values in {"average": (self.optimiser.average,), "betas": self.optimiser.betas}.items():
            if not all(0 <= value < 1 for value in values):
                raise InputError(f"optimiser.{name} must lie between 0 and 1, got {getattr(self.optimiser, name)}")
        for name in ("rate", "encoder_rate", "weight_decay", "clip"):
            if not getattr(self.optimiser, name) >= 0:
                raise InputError(f"optimiser.{name} must be at least 0, got {getattr(self.optimiser, name)}")

    @property
    def changes(self) -> dict[str, Any]:
        """`config`, read; InputError where it is not JSON."""
        try:
            value: dict[str, Any] = json.loads(self.config)
        except ValueError as error:
            raise InputError(f"config is not valid JSON ({error}); give an object such as {{}}") from None
        return value

    @property
    def images(self) -> int:
        """Training views of the whole run."""
        return self.steps * self.batch * self.micro_batches

    def stage_starts(self) -> list[int]:
        """The first step of each stage, and the number of steps at the end."""
        ends = [0.0]
        for stage in self.stages:
            ends.append(ends[-1] + stage.share)
        return [round(end * self.steps) for end in ends[:-1]] + [self.steps]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return plain

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its continuation; it may become longer and change machines."""
        plain = self.to_dict()
        for name in ("steps", "hardware", "record"):
            del plain[name]
        for name in ("validation", "workers"):
            del plain["data"][name]
        return plain
