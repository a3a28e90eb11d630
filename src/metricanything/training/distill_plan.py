"""What a distillation would do and cost, worked out without a weight of the student: labels, then training."""

from __future__ import annotations

import json
from pathlib import Path

from metricanything.curate.index import INDEX
from metricanything.curate.pieces import PLAN, UNFINISHED
from metricanything.curate.shards import Shards
from metricanything.inference.native import network_size
from metricanything.inference.predictor import find_checkpoint
from metricanything.models.checkpoint import load_model
from metricanything.training.distill import Distillation
from metricanything.training.plan import PEAKS, plan
from metricanything.training.recipe import Data, Recipe

_SIDE = 512  # of the teacher's input where its record states none


def text(distillation: Distillation, utilisation: float = 0.4) -> str:
    """The plan as lines to read; InputError for shards and a teacher that are named and not there."""
    student, labels = distillation.student, distillation.labels
    lines, frames = [], 0
    for path in student.data.shards:
        count = len(Shards(path).kept)
        frames += count
        lines.append(f"label {count} kept frames of {path} into {labels.output(path)}: {_state(labels.output(path))}")
    if not student.data.shards:
        lines.append("label no frames yet: --data.shards FOLDER names them")
    lines.append(
        f"prompts: {', '.join(labels.prompts)} of each frame's own measurements; {labels.held_out:.0%} of them are "
        f"held out, and a frame is put aside where the teacher meets fewer than {labels.agreement:.0%} of these within "
        "25 %"
    )
    if labels.teacher:
        lines += _teacher(labels.teacher, frames, utilisation)
    else:
        lines.append("teacher: none yet; --labels.teacher CHECKPOINT names it")
    lines += [f"learn from {len(Shards(path).kept)} kept frames of {path} as they are" for path in distillation.exact]
    lines.append(f"then train on these labels, and on original measurements in {distillation.real:.0%} of the views")
    lines.append(f"start: {student.start or 'from scratch'}")
    return "\n".join([*lines, plan(student, utilisation).text()])


def _state(folder: Path) -> str:
    if (folder / PLAN).exists():
        done = len(list((folder / UNFINISHED).glob("[0-9]*.arrow")))
        return f"begun, {done} shards are there"
    return "done" if (folder / INDEX).exists() else "not begun"


def _teacher(name: str, frames: int, utilisation: float) -> list[str]:
    """The teacher, and what its labels cost at the size that it was trained for."""
    _, spec, description = load_model(find_checkpoint(name), low_memory=True)
    side = int(description["record"].get("input_side", min(spec.max_side, _SIDE)))
    size = (side, side) if spec.min_side == spec.max_side else network_size(3, 4, side)
    recipe = Recipe(spec.name, 1, batch=1, config=json.dumps(description["config"]), data=Data(sizes=(size,)))
    made = plan(recipe, utilisation)
    hours = [
        f"{frames * made.forward_flops / (peak * utilisation) / 3600:,.3g} hours on one {device}"
        for device, peak in PEAKS.items()
    ]
    return [
        f"teacher: {spec.name}, {made.parameters / 1e6:.1f} M parameters, {made.forward_flops / 1e9:.4g} GFLOPs per "
        f"frame at {size[0]}x{size[1]}: {'; '.join(hours)}, at {utilisation:.0%} of the peak"
    ]
