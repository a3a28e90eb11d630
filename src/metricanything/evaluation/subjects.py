"""What is evaluated: models that `metricanything.load` takes; by prefix peers, baselines, models fitted to prompts."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from metricanything.core.camera import Camera
from metricanything.core.errors import InputError
from metricanything.core.files import file_sha256
from metricanything.core.prompt import SparsePrompt

if TYPE_CHECKING:
    from metricanything.inference.predictor import Model

_PREFIX, _PEER, _MOGE = "baseline:", "peer:", "moge-baseline:"


@dataclass(frozen=True)
class Query:
    """One image uint8 (H, W, 3) with its prompt and camera, each None where a protocol gives none."""

    image: NDArray[np.uint8]
    prompt: SparsePrompt | None
    camera: Camera | None


@dataclass(frozen=True)
class Answer:
    """Depth float32 (H, W) metres; the model's mask bool (H, W) and points (H, W, 3), and a camera it recovered."""

    depth: NDArray[np.float32]
    mask: NDArray[np.bool_] | None = None
    points: NDArray[np.float32] | None = None
    camera: Camera | None = None


class Subject(Protocol):
    """Anything that answers queries; `record` says what it is, JSON-ready."""

    record: dict[str, Any]
    batch_size: int

    def check(self, prompted: bool, protocol: str) -> None:
        """Raises InputError when it cannot be measured by a protocol with (or without) prompts."""
        ...

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """Answers in order; raises InputError for a query that it cannot take."""
        ...


class BaselineSubject:
    """A prompt-only baseline of `inference.baselines`."""

    batch_size = 1

    def __init__(self, name: str) -> None:
        from metricanything.inference.baselines import BASELINES

        if name not in BASELINES:
            raise InputError(f"baseline {name!r} is unknown; use {', '.join(_PREFIX + n for n in BASELINES)}")
        if BASELINES[name].needs == "prediction":
            raise InputError(f"{_PREFIX}{name} rescales a model's prediction; name that model, as in {name}:MODEL")
        self._complete: Any = BASELINES[name].complete
        self._sees_image = "image" in inspect.signature(self._complete).parameters
        self.record = {"name": _PREFIX + name, "what": BASELINES[name].description, "sha256": None}

    def check(self, prompted: bool, protocol: str) -> None:
        """See `Subject.check`."""
        if not prompted:
            raise InputError(f"{self.record['name']} needs a prompt and protocol {protocol} gives none; leave it out")

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """See `Subject.answer`."""
        return [Answer(self._one(query)) for query in queries]

    def _one(self, query: Query) -> NDArray[np.float32]:
        more = {"image": query.image} if self._sees_image else {}
        return np.asarray(self._complete(*_points(query, str(self.record["name"])), **more), dtype=np.float32)


class FittedSubject:
    """A model that is not shown the prompt, its prediction scaled (and shifted) to fit the prompt by least squares."""

    def __init__(self, fit: str, model: Subject) -> None:
        from metricanything.inference.baselines import BASELINES

        self.model, self.batch_size = model, model.batch_size
        self._baseline = BASELINES[fit]
        self.record = {
            "name": f"{fit}:{model.record['name']}",
            "what": self._baseline.description,
            "sha256": model.record["sha256"],
            "fitted_model": model.record,
        }

    def check(self, prompted: bool, protocol: str) -> None:
        """See `Subject.check`."""
        if not prompted:
            raise InputError(f"{self.record['name']} needs a prompt and protocol {protocol} gives none; leave it out")
        self.model.check(False, protocol)

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """See `Subject.answer`; of the model's answer the depth alone is kept, which is what was fitted."""
        found = self.model.answer([replace(query, prompt=None) for query in queries])
        return [
            Answer(self._baseline.complete(*_points(query, self.record["name"]), prediction=one.depth))
            for query, one in zip(queries, found, strict=True)
        ]


def _points(query: Query, name: str) -> tuple[NDArray[np.float64], NDArray[np.float32], int, int]:
    """Pixels, depths, height and width, as baselines take them; prompts may be on a coarser grid of the same view."""
    height, width = query.image.shape[:2]
    if query.prompt is None:
        raise InputError(f"{name} needs a prompt")
    scale = np.array([width / query.prompt.width, height / query.prompt.height])
    return query.prompt.uv * scale, query.prompt.depth, height, width


class ModelSubject:
    """A network with its preprocessing."""

    def __init__(self, name: str, device: str | None, dtype: str | None, max_side: int | None) -> None:
        from metricanything.inference.engine import Options
        from metricanything.inference.predictor import find_checkpoint, load

        path = find_checkpoint(name)
        self.model: Model = load(name, device=device, dtype=dtype)
        self._options = self.model.engine.check(Options(max_side=max_side))
        self.batch_size = self.model.engine.batch_size
        self.record = {
            # A path differs between machines, the hash does not.
            "name": path.stem if path.exists() and str(path) == name else name,
            "what": self.model.spec.name,
            "task": self.model.spec.task,
            "sha256": file_sha256(path),
            "weights": path.name,
            "device": self.model.device.type,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "max_side": max_side,
        }

    def check(self, prompted: bool, protocol: str) -> None:
        """See `Subject.check`."""
        if prompted and self.model.spec.task != "prompted-depth":
            raise InputError(
                f"{self.record['name']} takes no prompt and protocol {protocol} gives one; choose a protocol without "
                "(depth_pro, moge, classic, ma-promptless) or a teacher"
            )

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """See `Subject.answer`."""
        items = [self.model.prepare(q.image, q.prompt, q.camera, options=self._options) for q in queries]
        return [
            Answer(p.depth, p.mask, p.points, p.camera if p.camera_source == "model" else None)
            for p in self.model.predict_prepared(items, max(len(items), 1))
        ]


class PeerSubject:
    """Another author's model behind `evaluation.peers`, or an adapter file of MoGe's evaluation."""

    batch_size = 1

    def __init__(self, name: str, device: str | None) -> None:
        from metricanything.evaluation.peers import load_moge_baseline, load_peer

        if name.startswith(_MOGE):
            self.peer: Any = load_moge_baseline(name.removeprefix(_MOGE))
        else:
            self.peer = load_peer(name, device=device)
        self.record = {"name": self.peer.name, "what": "peer", "licence": self.peer.licence, "sha256": None}

    def check(self, prompted: bool, protocol: str) -> None:
        """See `Subject.check`."""
        if prompted and not self.peer.takes_prompt:
            raise InputError(f"{self.peer.name} takes no prompt and protocol {protocol} gives one; choose one without")

    def answer(self, queries: Sequence[Query]) -> list[Answer]:
        """See `Subject.answer`."""
        found = [self.peer.predict(q.image, prompt=q.prompt, camera=q.camera) for q in queries]
        return [Answer(p.depth, p.mask, p.points, p.camera if p.camera_source == "model" else None) for p in found]


def open_subject(
    name: str, *, device: str | None = None, dtype: str | None = None, max_side: int | None = None
) -> Subject:
    """The subject of this name: `baseline:nearest`, `peer:depth-pro`, `moge-baseline:FILE.py` (which is run), any model
    as `fitted:MODEL`, `fitted-scale:MODEL` or `fitted-disparity:MODEL`, or what `metricanything.load` takes; InputError
    as there.
    """
    from metricanything.inference.baselines import BASELINES

    fits = {fit for fit, baseline in BASELINES.items() if baseline.needs == "prediction"}
    fit, _, model = name.partition(":")
    if fit in fits:
        if not model or model.partition(":")[0] in {*fits, _PREFIX[:-1]}:
            raise InputError(f"{name}: {fit} takes a model that predicts depth without the prompt, as in {fit}:MODEL")
        return FittedSubject(fit, open_subject(model, device=device, dtype=dtype, max_side=max_side))
    if name.startswith(_PREFIX):
        return BaselineSubject(name.removeprefix(_PREFIX))
    if name.startswith((_PEER, _MOGE)):
        return PeerSubject(name, device)
    return ModelSubject(name, device, dtype, max_side)
