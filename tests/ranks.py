"""Training runs in processes of their own, one after the other: `python ranks.py SPECS.json`.

A spec says what to do: train, and perhaps be killed on the way, or write a step's gradient; with how many ranks. They
find each other through the environment that torchrun would set. Ranks are forked from this process, which has imported
everything and computed nothing, because importing takes longer than such a run. Prints the exit codes of each run.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import sys
import threading
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from runs import short_recipe

from metricanything.core.files import write_bytes
from metricanything.models.registry import get_spec
from metricanything.training import distill, parallel
from metricanything.training.distill import FROM_TEACHER, Distillation
from metricanything.training.engine import Engine
from metricanything.training.labels import Labelling
from metricanything.training.pretrain import mixture, new_network, run, task_of
from metricanything.training.recipe import Recipe
from metricanything.training.teacher import TeacherTask

TINY = json.dumps(
    {
        "encoder": {
            "widths": [8, 8, 16, 16], "blocks": [1, 1, 1], "token_width": 32, "token_blocks": 1, "heads": 2,
        },
        "decoder": {"widths": [8, 8, 16, 16], "fusion_width": 8},
    }
)  # fmt: skip


def recipe_of(spec: dict[str, Any]) -> Recipe:
    """Two micro-batches of two images a step, two sizes of views, an average; checkpoints as often as can be."""
    return short_recipe(
        spec["steps"],
        batch=2,
        micro_batches=2,
        config=TINY,
        shards=(Path(spec["shards"]),),
        sizes=((32, 64), (64, 32)),
        average=0.9,
        checkpoint_seconds=spec.get("checkpoint_seconds", -1.0),
        parallel=spec.get("parallel", "ddp"),
        precision=spec.get("precision", "float32"),
        checkpoint_activations=spec.get("checkpoint_activations", False),
        validation=(Path(spec["shards"]),) if "validate_every" in spec else (),
        validate_every=spec.get("validate_every", 1000),
        validation_frames=6,
    )


def train(spec: dict[str, Any]) -> None:
    """Train, or die with SIGKILL: at a step, or after some seconds, whatever is being done then."""
    kill_step, kill_seconds = spec.get("kill_step"), spec.get("kill_seconds")
    if kill_seconds is not None:
        threading.Timer(kill_seconds, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

    def progress(done: int, loss: float, terms: dict[str, float]) -> None:
        if done == kill_step:
            os.kill(os.getpid(), signal.SIGKILL)

    run(recipe_of(spec), Path(spec["folder"]), progress)


def gradient(spec: dict[str, Any]) -> None:
    """Write the gradient of the first step by parameter, whole."""
    from torch.distributed.tensor import DTensor

    from metricanything.curate.shards import Shards

    recipe = recipe_of(spec)
    with parallel.world(recipe.hardware) as world:
        torch.manual_seed(0)
        network = get_spec(recipe.model).build(json.loads(recipe.config))
        with torch.no_grad():  # nothing starts at zero, where half of the gradients would be
            for parameter in network.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        data = mixture(recipe, [Shards(path) for path in recipe.data.shards], 0)
        engine = Engine(network, task_of(recipe), recipe, [data], Path(spec["folder"]), world)
        number, batches = next(iter(engine.batches(0)))
        engine.gradients(number, batches)
        norm = parallel.gradient_norm(engine.network, 1e9)
        whole = {}
        for name, parameter in engine.network.named_parameters():
            value = parameter.grad
            assert value is not None, name
            whole[name] = (value.full_tensor() if isinstance(value, DTensor) else value).tolist()
        if world.first:
            content = json.dumps({"gradient": whole, "norm": float(norm)})
            write_bytes(Path(spec["folder"]) / "gradient.json", content.encode())


class Poisoned(TeacherTask):
    """Charges NaN for the micro-batches that process 1 computes in the steps of `at`."""

    at: tuple[int, ...] = ()
    calls = 0

    def loss(self, output: Any, batch: Any, weights: Any) -> dict[str, Any]:
        bad = os.environ.get("RANK") == "1" and self.calls in self.at
        object.__setattr__(self, "calls", self.calls + 1)
        return {name: term * math.nan if bad else term for name, term in super().loss(output, batch, weights).items()}


def poisoned(spec: dict[str, Any]) -> None:
    """Two ranks of which one has a bad loss in step 1; every rank writes what it warned of and its weights."""
    from metricanything.curate.shards import Shards

    recipe = recipe_of(spec)
    task = Poisoned(recipe.prompts)
    object.__setattr__(task, "at", (1,))
    with parallel.world(recipe.hardware) as world, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = mixture(recipe, [Shards(path) for path in recipe.data.shards], 0)
        engine = Engine(new_network(recipe), task, recipe, [data], Path(spec["folder"]), world)
        curve = engine.run()
        said = [str(one.message) for one in caught if "skipped" in str(one.message)]
        names = [list(data.batch(2 + rank).names) for rank in range(2)]
        state = {name: value.tolist() for name, value in engine.network.state_dict().items()}
        record = {"said": said, "names": names, "steps": [step for step, _ in curve], "state": state}
        write_bytes(Path(spec["folder"]) / f"rank-{world.rank}.json", json.dumps(record).encode())


def distil(spec: dict[str, Any]) -> None:
    """Label, then train a student; or die with SIGKILL after some frames, or at a step."""
    labels = Labelling(spec["teacher"], Path(spec["folder"]) / "labels", ("uniform-100",), frames_per_shard=1)
    student = replace(recipe_of(spec), model="compact-depthmap", start=FROM_TEACHER)
    kill_step, kill_label = spec.get("kill_step"), spec.get("kill_label")

    def labelled(shards: Path, frames: int, size: int) -> None:
        if kill_label is not None and frames:
            os.kill(os.getpid(), signal.SIGKILL)

    def progress(done: int, loss: float, terms: dict[str, float]) -> None:
        if done == kill_step:
            os.kill(os.getpid(), signal.SIGKILL)

    distill.run(Distillation(student, labels), Path(spec["folder"]), labelled, progress)


DO = {"distil": distil, "poisoned": poisoned, "train": train, "gradient": gradient}


def attempt(spec: dict[str, Any]) -> list[int]:
    """Fork the ranks of a spec and wait for them; exit codes, -9 = killed. When one dies, a launcher ends the rest."""
    ranks, children = spec.get("ranks", 1), []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if ranks > 1:
                    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
                # One rank dies by itself.
                DO[spec["do"]](spec if rank == ranks - 1 else {k: v for k, v in spec.items() if k[:5] != "kill_"})
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes: dict[int, int] = {}
    for _ in children:
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child] != 0:
            for other in set(children) - set(codes):
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


if __name__ == "__main__":
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401 (imported once, not by every rank)

    torch.set_num_threads(1)
    print(json.dumps([attempt(spec) for spec in json.loads(Path(sys.argv[1]).read_text())]))
