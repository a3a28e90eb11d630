"""One frame by one protocol: cut, prompted, predicted, measured."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.frame import Frame
from metricanything.core.prompt import SparsePrompt
from metricanything.evaluation.datasets import Item, Map
from metricanything.evaluation.protocol import GIVEN, NONE, Protocol
from metricanything.evaluation.scores import ALIGNMENTS, SCORES, NotMeasured, Sample, Terms
from metricanything.evaluation.subjects import Answer, Query, Subject
from metricanything.evaluation.views import View, seen

#: Which pixels a number is over.
ALL, UNPROMPTED = "all", "unprompted"
#: How messages begin that are not the fault of the data.
INTERNAL = "internal error"


@dataclass(frozen=True)
class Case:
    """A frame as a protocol shows it, with its prompt map float32 (H, W) (NaN without a point, or None).

    segments, matte: as in `Sample`.
    """

    frame: Frame
    prompt: SparsePrompt | None
    sparse: Map | None
    query: Query
    counts: NDArray[np.bool_]
    segments: NDArray[np.int32] | None = None
    matte: Map | None = None


def make_case(protocol: Protocol, item: Item) -> Case:
    """Resize, crop and prompt a frame; raises InputError when nothing is left to measure or there is no prompt."""
    if item.frame.scale != "metric" and (protocol.metric_truth or item.frame.scale != "up_to_scale"):
        raise InputError(f"depth is {item.frame.scale}, not metric; protocol {protocol.name} measures metres")
    given = item.prompt() if GIVEN in protocol.prompt else None
    if GIVEN in protocol.prompt and given is None:
        raise InputError(f"brings no prompt of its own, as protocol {protocol.name} wants; choose one with a pattern")
    view = seen(View(item.frame, given, item.segments(), item.matte()), protocol)
    frame = view.frame
    prompt = _prompt(protocol, frame, view.prompt)
    known = frame.notes.get("camera_source") != "assumed"
    camera = frame.camera if protocol.intrinsics and known else None
    counts = protocol.counts(frame.depth)
    if not counts.any() and any(SCORES[name].depth for name in protocol.metrics):
        raise InputError(f"no pixel of its ground truth counts in protocol {protocol.name} (crop, depth range)")
    sparse = None if prompt is None else prompt.rasterise(frame.height, frame.width)
    return Case(frame, prompt, sparse, Query(frame.image, prompt, camera), counts, view.segments, view.matte)


def measure(protocol: Protocol, case: Case, answer: Answer) -> dict[str, Any]:
    """The row of one frame, JSON-ready: per region its pixel count, the terms of every metric, and the values.

    "not_measured" holds metrics that this frame lacks something for, with the reason; their values are None.
    """
    pred = prepared_depth(protocol, case, answer)
    known = case.frame.notes.get("camera_source") != "assumed"
    row: dict[str, Any] = {
        "source": case.frame.source,
        "points": 0 if case.prompt is None else len(case.prompt),
        "camera_given": case.query.camera is not None,
        "regions": {},
    }
    for region, counts in regions(case).items():
        truth = np.where(counts, case.frame.depth, np.float32(np.nan))
        sample = Sample(
            pred, truth, case.frame.image, case.frame.camera if known else None, answer.camera, answer.points,
            case.segments, case.matte,
        )  # fmt: skip
        terms: dict[str, Terms] = {}
        for name in protocol.metrics:
            try:
                terms[name] = SCORES[name].terms(sample)
            except NotMeasured as reason:
                terms[name] = (math.nan,)
                row.setdefault("not_measured", {})[name] = str(reason)
        row["regions"][region] = {
            "pixels": int(counts.sum()),
            "terms": {name: [_or_none(t) for t in value] for name, value in terms.items()},
            "values": {name: _or_none(_finish(name, value)) for name, value in terms.items()},
        }
    return row


def prepared_depth(protocol: Protocol, case: Case, answer: Answer) -> Map:
    """The prediction (H, W) that is measured: masked, aligned and clamped as the protocol says."""
    pred = answer.depth
    if pred.shape != case.frame.depth.shape:
        raise InputError(f"the prediction has shape {pred.shape}, the ground truth {case.frame.depth.shape}")
    if protocol.model_mask and answer.mask is not None:
        pred = np.where(answer.mask, pred, np.float32(np.nan))
    pred = ALIGNMENTS[protocol.alignment](pred, np.where(case.counts, case.frame.depth, np.float32(np.nan)))
    if protocol.clamp:
        with np.errstate(invalid="ignore"):
            usable = np.isfinite(pred) & (pred > 0)
        pred = np.where(usable, np.clip(pred, *protocol.depth_range), pred)
    return pred.astype(np.float32)


def regions(case: Case) -> dict[str, NDArray[np.bool_]]:
    """The pixels that numbers are over, by name: all that count, and those without a prompt point."""
    if case.sparse is None:
        return {ALL: case.counts}
    return {ALL: case.counts, UNPROMPTED: case.counts & np.isnan(case.sparse)}


def answers(subject: Subject, cases: Sequence[Case]) -> list[Answer | InputError]:
    """Answers to all cases together; where that fails, each by itself, so that one bad frame costs no other."""
    try:
        return list(subject.answer([case.query for case in cases]))
    except Exception as error:
        if len(cases) == 1:
            return [as_input_error(error)]
        return [answers(subject, [case])[0] for case in cases]


def as_input_error(error: Exception) -> InputError:
    """What is said of a frame that failed: an InputError as it is, anything else as `INTERNAL`, a failure of ours."""
    if isinstance(error, InputError):
        return error
    if os.environ.get("METRICANYTHING_DEBUG"):
        raise error
    return InputError(f"{INTERNAL} ({type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]})")


def _finish(name: str, terms: Terms) -> float:
    return math.nan if any(math.isnan(t) for t in terms) else SCORES[name].finish(terms)


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _prompt(protocol: Protocol, frame: Frame, given: Map | None) -> SparsePrompt | None:
    from metricanything.patterns import draw_prompt

    if not protocol.prompted:
        return None
    seed = protocol.frame_seed(frame.name)
    merged = np.full(frame.depth.shape, np.nan, dtype=np.float32)
    for number, pattern in enumerate(name for name in protocol.prompt if name != NONE):
        if pattern == GIVEN:
            sparse = given if given is not None else merged
        else:
            drawn = draw_prompt(frame.depth, pattern, seed + number, frame.image)
            sparse = drawn.rasterise(frame.height, frame.width)
        merged = np.where(np.isnan(merged), sparse, merged)
    return SparsePrompt.from_depth(merged, unit="m")
