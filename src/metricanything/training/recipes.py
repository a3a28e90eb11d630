"""Training recipes: functions that return a typed configuration.

The `quickstart_*` recipes are the small ones that `metricanything quickstart` runs.
"""

from __future__ import annotations

from metricanything.training.loop import TrainConfig

#: (height, width). Half the pixels of the default views: twice the steps in the same time, and no worse after it.
SMALL_VIEWS = ((96, 128), (128, 96), (96, 160))


def quickstart_teacher(steps: int = 400, seed: int = 0) -> TrainConfig:
    """The compact teacher from scratch on a few hundred frames, as part of `metricanything quickstart`.

    Hardware and time: 2 CPU cores, about 1.5 minutes. Expected: near linear interpolation on uniform prompts
    (docs/decisions/compact-models.md has the measured numbers). Command: `metricanything quickstart`.
    """
    return TrainConfig(steps=steps, batch_size=8, sizes=SMALL_VIEWS, learning_rate=2e-3, seed=seed)


def quickstart_student(steps: int = 150, seed: int = 0) -> TrainConfig:
    """A compact student, started from the teacher's image encoder, on the teacher's labels.

    Hardware and time: 2 CPU cores, about 40 seconds each. Command: `metricanything quickstart`.
    """
    return TrainConfig(steps=steps, batch_size=8, sizes=SMALL_VIEWS, learning_rate=1e-3, warmup=20, seed=seed)
