"""The scaling law of a set of runs: how the error falls with the number of training pairs.

Fitted is error = a N^-b + c with a, b, c >= 0 (N pairs; c is the floor that no amount of data removes), by least
squares of the logarithm of the error, and the pure power law (c = 0). The one with the smaller AICc (Hurvich and Tsai
1989) is taken; where there are too few runs for AICc to tell, the power law. Intervals are bootstrapped.

A run is a JSON object, in a file of its own or in a list:

    {"pairs": 2000000, "parameters": 21000000, "error": 0.083, "name": "seed 0"}

pairs: image-depth pairs trained on. parameters (optional): of the model; runs of different sizes are also fitted apart.
error: a positive number, lower is better, or an object of metrics ({"abs_rel": 0.083, "delta1": 0.93}; also accepted
under the key "metrics"), of which one is chosen. Shares where higher is better (delta1, tau, ...) enter as 1 - share.
Several runs of one size are seeds of each other. Other keys are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.files import read_json
from metricanything.evaluation.scaling_fit import Curve, bootstrap, fit_floor, fit_power

Vector = NDArray[np.float64]
Interval = tuple[float, float]

FEWEST_SIZES = 4
REACH = 4.0  # times the largest size: how far a fit may be believed
LEVEL = 0.95
_SHARES = ("delta", "tau", "d_auc", "coverage", "f1", "boundary_f1")


@dataclass(frozen=True)
class ScalingRun:
    """One trained and measured model: training pairs, error (positive, lower is better), parameters if stated."""

    pairs: float
    error: float
    parameters: int | None = None


@dataclass(frozen=True)
class Extrapolation:
    """The error that a fit expects at a number of pairs, and whether that is within four times the data."""

    pairs: float
    error: float
    interval: Interval | None
    within_reach: bool


@dataclass(frozen=True)
class ScalingFit:
    """error = a N^-b + c of a group of runs, with 95 % intervals (None where there is no spread to judge by).

    aicc: of both forms, None where there are too few runs. objections: why the fit does not support a law, in words;
    empty when it does. notes: what else a reader should know.
    """

    group: str
    runs: int
    sizes: int
    smallest: float
    largest: float
    """Numbers of pairs between which there are runs."""
    form: Literal["power", "power+floor"]
    a: float
    b: float
    c: float
    b_interval: Interval | None
    c_interval: Interval | None
    a_interval: Interval | None
    spread: float
    """Standard deviation of the runs around the curve, relative."""
    aicc: dict[str, float | None]
    objections: tuple[str, ...]
    notes: tuple[str, ...]
    extrapolations: tuple[Extrapolation, ...]

    @property
    def supported(self) -> bool:
        """Whether the data support a power law."""
        return not self.objections

    def error_at(self, pairs: float | Vector) -> Any:
        """Expected error at a number of training pairs."""
        return self.a * np.asarray(pairs, dtype=np.float64) ** -self.b + self.c

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable form."""
        return {**asdict(self), "supported": self.supported}


# ---------------------------------------------------------------- reading


def read_runs(paths: Sequence[str | Path], metric: str = "abs_rel") -> list[ScalingRun]:
    """The runs in JSON files, and in all JSON files with a key "pairs" below folders; a file counts once.

    metric: which one, where a run states several. Raises InputError naming the file.
    """
    runs: list[ScalingRun] = []
    seen: set[Path] = set()
    for path in map(Path, paths):
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        before = len(seen)
        for file in files:
            if file.resolve() in seen:
                continue
            value = read_json(file)
            records = value if isinstance(value, list) else [value]
            if path.is_dir() and not any(isinstance(r, dict) and "pairs" in r for r in records):
                continue
            seen.add(file.resolve())
            runs += [_run(record, metric, file) for record in records]
        if path.is_dir() and len(seen) == before and not any(f.resolve() in seen for f in files):
            raise InputError(f'{path}: holds no run; write {{"pairs": N, "error": e}} into a .json file per run')
    return runs


def error_name(metric: str) -> str:
    """What is fitted of a metric: itself, or what a share lacks to 1."""
    return f"1 - {metric}" if metric.startswith(_SHARES) else metric


def _run(record: Any, metric: str, file: Path) -> ScalingRun:
    if not isinstance(record, dict) or "pairs" not in record:
        raise InputError(f'{file}: is no run; write {{"pairs": N, "error": e}}, or a list of such objects')
    error = record.get("error", record.get("metrics"))
    if isinstance(error, dict):
        if metric not in error:
            known = ", ".join(map(str, error)) or "nothing"
            raise InputError(f"{file}: states no {metric!r}; choose one of its metrics ({known})")
        error = error[metric]
        if metric.startswith(_SHARES):
            error = 1 - _number(error, metric, file, lowest=0.0)
    parameters = record.get("parameters")
    return ScalingRun(
        _number(record["pairs"], "pairs", file),
        _number(error, "error", file),
        None if parameters is None else round(_number(parameters, "parameters", file)),
    )


def _number(value: Any, what: str, file: Path, lowest: float | None = None) -> float:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or (value <= 0 if lowest is None else value < lowest):
        raise InputError(f"{file}: {what} must be a positive number, got {value!r}")
    return float(value)


# ---------------------------------------------------------------- fitting


def fit_scaling(
    runs: Sequence[ScalingRun], *, predict: Sequence[float] = (), replicates: int = 1000, seed: int = 0
) -> list[ScalingFit]:
    """The scaling law of all runs, and of every model size where the runs state several.

    predict: numbers of pairs to expect the error at. replicates, seed: of the bootstrap; the same give the same.
    Raises InputError for runs of fewer than two sizes and options that make no sense.
    """
    if replicates < 100:
        raise InputError(f"an interval needs at least 100 bootstrap replicates, got {replicates}")
    if any(not (math.isfinite(n) and n > 0) for n in predict):
        raise InputError(f"the sizes to predict must be positive numbers of pairs, got {list(predict)}")
    models = sorted({run.parameters for run in runs}, key=lambda p: (p is not None, p or 0))
    fits = [_fit_group("all runs", runs, predict, replicates, seed, mixed=len(models) > 1)]
    if len(models) > 1:
        for parameters in models:
            group = [run for run in runs if run.parameters == parameters]
            if len({run.pairs for run in group}) > 1:  # one size alone has no slope
                fits.append(_fit_group(model_name(parameters), group, predict, replicates, seed))
    return fits


def model_name(parameters: int | None) -> str:
    """What a group of runs of one model size is called."""
    return "parameters not stated" if parameters is None else f"{parameters / 1e6:.4g} M parameters"


def _fit_group(
    group: str, runs: Sequence[ScalingRun], predict: Sequence[float], replicates: int, seed: int, mixed: bool = False
) -> ScalingFit:
    pairs, errors = np.array([r.pairs for r in runs]), np.array([r.error for r in runs])
    sizes = len(set(pairs.tolist()))
    if sizes < 2:
        raise InputError(f"a scaling law needs runs with at least two numbers of pairs, got {sizes}")
    power, floor = fit_power(pairs, errors), fit_floor(pairs, errors)
    scores = {"power": power.aicc(), "power+floor": floor.aicc()}
    chosen = _choose(power, floor)
    curves = bootstrap(chosen, pairs, errors, replicates, np.random.default_rng(seed))
    b_interval = _interval([curve.b for curve in curves])
    reach = [_extrapolate(float(n), chosen, curves, float(pairs.max())) for n in predict]
    notes = ["mixes models of different sizes: their differences count as spread here"] if mixed else []
    if scores["power+floor"] is None:
        notes.append("too few runs to tell a floor from none; c = 0 is assumed")
    return ScalingFit(
        group=group,
        runs=len(runs),
        sizes=sizes,
        smallest=float(pairs.min()),
        largest=float(pairs.max()),
        form="power" if chosen is power else "power+floor",
        a=chosen.a,
        b=chosen.b,
        c=chosen.c,
        a_interval=_interval([curve.a for curve in curves]),
        b_interval=b_interval,
        c_interval=_interval([curve.c for curve in curves]) if chosen is floor else None,
        spread=chosen.spread(),
        aicc=scores,
        objections=tuple(_objections(pairs, errors, sizes, b_interval)),
        notes=tuple(notes),
        extrapolations=tuple(reach),
    )


def _choose(power: Curve, floor: Curve) -> Curve:
    """The curve with the smaller AICc; the power law where that cannot be told."""
    without, with_floor = power.aicc(), floor.aicc()
    return floor if without is not None and with_floor is not None and with_floor < without else power


def _extrapolate(pairs: float, curve: Curve, curves: list[Curve], largest: float) -> Extrapolation:
    interval = _interval([float(c.at(pairs)) for c in curves])
    return Extrapolation(pairs, float(curve.at(pairs)), interval, pairs <= REACH * largest)


def _interval(values: list[float]) -> Interval | None:
    if not values:
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _objections(pairs: Vector, errors: Vector, sizes: int, b_interval: Interval | None) -> list[str]:
    """Why these runs do not support a law."""
    found = []
    if sizes < FEWEST_SIZES:
        found.append(f"only {sizes} sizes; a law needs at least {FEWEST_SIZES}")
    if b_interval is None:
        found.append("no run is left to judge the spread by")
    elif b_interval[0] <= 1e-6:
        found.append(
            f"the 95 % interval of b ({b_interval[0]:.3g} to {b_interval[1]:.3g}) includes 0: no fall is shown"
        )
    rise = _rise(pairs, errors)
    if rise is not None:
        found.append(f"not monotone: the error rises from {rise[0]:.3g} to {rise[1]:.3g} pairs")
    return found


def _rise(pairs: Vector, errors: Vector) -> Interval | None:
    """Two neighbouring sizes between which the mean error rises by more than twice the standard error of seeds."""
    sizes = np.unique(pairs)
    logs = [np.log(errors[pairs == n]) for n in sizes]
    repeats = sum(len(values) - 1 for values in logs)
    variance = sum(float(((v - v.mean()) ** 2).sum()) for v in logs) / repeats if repeats else 0.0
    for i in range(len(sizes) - 1):
        noise = math.sqrt(variance * (1 / len(logs[i]) + 1 / len(logs[i + 1])))
        if logs[i + 1].mean() - logs[i].mean() > 2 * noise:
            return float(sizes[i]), float(sizes[i + 1])
    return None
