"""A small evaluation on the bundled real frames guards every headline number: 1 % of change is a failure.

After a change that is meant to move numbers: `python tests/test_golden_evaluation.py` writes them anew; look at the
difference before you commit it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from metricanything import samples
from metricanything.evaluation.datasets import open_data
from metricanything.evaluation.measuring import UNPROMPTED, answers, make_case, measure
from metricanything.evaluation.protocols import PROTOCOLS
from metricanything.evaluation.subjects import Answer, open_subject
from metricanything.models.registry import COMPACT

GOLDEN = Path(__file__).parent / "golden_evaluation.json"
PROMPTED = ("ma-uniform-500", "ma-uniform-100", "ma-lidar-8", "ma-grid-16", "ma-uniform-500+outliers-5")
PROMPTLESS = ("ma-image",)
BASELINES = ("baseline:nearest", "baseline:linear", "baseline:idw", "baseline:morphological")
BUNDLED = tuple(name for name, spec in COMPACT.items() if spec.weights_path().is_file())
TOLERANCE = 0.01


def measured(name: str) -> dict[str, float]:
    """AbsRel in % of one subject by protocol, over the held-out samples with a metric camera."""
    subject, data = open_subject(name, device="cpu"), open_data(samples.path("heldout"), fov_x=60)
    prompted = name in BASELINES or COMPACT[name].task == "prompted-depth"
    found = {}
    for protocol in (PROTOCOLS[p] for p in (PROMPTED if prompted else PROMPTLESS)):
        values = []
        for number in range(len(data)):
            case = make_case(protocol, data.load(number))
            (answer,) = answers(subject, [case])
            assert isinstance(answer, Answer), answer
            regions = measure(protocol, case, answer)["regions"]
            values.append(regions[UNPROMPTED if protocol.prompted else "all"]["values"]["abs_rel"])
        found[protocol.name] = round(100 * float(np.mean(values)), 4)
    return found


@pytest.mark.parametrize("name", [*BASELINES, *BUNDLED])
def test_headline_numbers_are_what_they_were(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert name in golden, f"{name} is bundled but has no golden numbers; run python {Path(__file__).name}"
    now = measured(name)
    assert now.keys() == golden[name].keys()
    moved = {
        protocol: f"{golden[name][protocol]} -> {value} %"
        for protocol, value in now.items()
        if abs(value / golden[name][protocol] - 1) > TOLERANCE
    }
    assert not moved, f"AbsRel of {name} moved by more than 1 %: {moved}"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: measured(name) for name in (*BASELINES, *BUNDLED)}, indent=2) + "\n")
