"""From measurements to decisions: which frames are kept, and why the others are not.

The rules stand in a TOML file (`rules.toml` beside this module is the default), so that thresholds can be read, argued
about and changed; `decide` applies them to the columns of an index, without reading a frame. Most look at one frame,
some at the other frames of its source.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metricanything.core.errors import InputError
from metricanything.core.frame import SCALES
from metricanything.curate.duplicates import earlier_equal, hamming, similar_pairs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Columns = Mapping[str, NDArray[Any]]
Rules = Mapping[str, Mapping[str, Any]]
Bool = NDArray[np.bool_]

_FEW = 5  # frames of a source below which it has no median to compare with
_MOST = 64  # rules: one bit each
_FEW_SHOTS = 3  # the same for a camera


def default_rules() -> str:
    """The text of the default rules, with their comments."""
    return (resources.files(__package__) / "rules.toml").read_text("utf-8")


def read_rules(path: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """The rules of a TOML file by name, the default ones without a path.

    Raises InputError for a missing file, bad TOML, an unknown test and parameters that a test does not have or lacks.
    """
    where = "rules.toml" if path is None else str(path)
    try:
        text = default_rules() if path is None else Path(path).read_text("utf-8")
        rules: dict[str, dict[str, Any]] = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror}); give a TOML file of rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: not a TOML file ({error}); correct it") from None
    for name, rule in rules.items():
        if ";" in name:
            raise InputError(f"{where}: rule {name}: its name has a semicolon, which separates the names of reasons")
        _check(f"{where}: rule {name}", rule)
    if len(rules) > _MOST:
        raise InputError(f"{where}: has {len(rules)} rules; {_MOST} are the most")
    return rules


def _check(where: str, rule: Any) -> None:
    if not isinstance(rule, dict) or rule.get("test") not in _TESTS:
        raise InputError(f"{where}: needs a test, one of {', '.join(_TESTS)}")
    test = _TESTS[rule["test"]]
    given = set(rule) - {"test", "scale"}
    if missing := set(test.needs) - given:
        raise InputError(f"{where}: test {rule['test']} needs {', '.join(sorted(missing))}")
    if unknown := given - set(test.needs) - set(test.may):
        raise InputError(f"{where}: test {rule['test']} takes no {', '.join(sorted(unknown))}")
    if test.may and not given & set(test.may):
        raise InputError(f"{where}: test {rule['test']} needs {' or '.join(test.may)}")
    if rule.get("scale", SCALES[0]) not in SCALES:
        raise InputError(f"{where}: scale must be one of {', '.join(SCALES)}, got {rule['scale']!r}")
    for key in given:
        kind, words = (str, "text") if key == "column" else ((int, float), "a number")
        if isinstance(rule[key], bool) or not isinstance(rule[key], kind):
            raise InputError(f"{where}: {key} must be {words}, got {rule[key]!r}")


def decide(columns: Columns, rules: Rules | None = None) -> tuple[Bool, NDArray[Any]]:
    """Which frames are kept (N,) bool, and the names of the rules that fired (N,) str, joined by ";".

    columns: `name`, `source`, `scale`, `width`, `height`, `fx`, `valid`, `depth_p50`, `hash`, `depth_hash` and the
    measurements `q_…` of `curate.quality`, each (N,), in the order in which the frames were taken. A column that a
    rule asks for and that is absent is an InputError.
    """
    rules = read_rules() if rules is None else rules
    frames = _Frames(columns)
    fired = np.zeros(len(frames), dtype=np.uint64)
    for bit, rule in enumerate(rules.values()):
        hit = _TESTS[rule["test"]].find(frames, rule)
        if "scale" in rule:
            hit &= frames.has_text("scale", rule["scale"])
        fired |= hit.astype(np.uint64) << np.uint64(bit)
    patterns, which = np.unique(fired, return_inverse=True)
    names = list(rules)
    texts = [";".join(n for bit, n in enumerate(names) if int(pattern) >> bit & 1) for pattern in patterns]
    return fired == 0, np.array(texts, dtype=str)[which]


@dataclass(frozen=True)
class _Frames:
    """The columns, with what several tests ask of them."""

    columns: Columns

    def __len__(self) -> int:
        return len(self.columns["valid"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.columns[name]
        except KeyError:
            raise InputError(f"rules ask for the column {name}, which these frames do not have") from None

    def _coded(self, name: str) -> tuple[NDArray[np.int64], list[str]]:
        """A column of text as numbers, which an index stores already, and what they stand for."""
        if hasattr(self.columns, "coded"):
            codes, texts = self.columns.coded(name)
        else:
            texts, codes = np.unique(self[name], return_inverse=True)
        return np.asarray(codes, dtype=np.int64), list(texts)

    def has_text(self, name: str, text: str) -> Bool:
        """Where a column of text is `text`."""
        codes, texts = self._coded(name)
        return np.array([t == text for t in texts], dtype=bool)[codes]

    @cached_property
    def source(self) -> NDArray[np.int64]:
        """Number of the source of every frame."""
        return self._coded("source")[0]

    def source_median(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """For every frame the median of the known values of its source, NaN where fewer than five are known."""
        return _median(values, self.source, _FEW)

    @cached_property
    def shift(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Median shift (pixels) of the depth edges in the frame's source, across and down."""
        return self.source_median(self["q_edge_dx"]), self.source_median(self["q_edge_dy"])


def _median(values: NDArray[Any], groups: NDArray[np.int64], few: int) -> NDArray[np.float64]:
    """For every frame the median of the known values of its group, NaN where fewer than `few` are known."""
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.lexsort((values[known], groups[known]))]
    count = np.bincount(groups[known], minlength=int(groups.max(initial=0)) + 1)
    start = np.cumsum(count) - count
    medians = np.full(len(count), np.nan)
    full = count >= few
    low, high = order[start[full] + (count[full] - 1) // 2], order[start[full] + count[full] // 2]
    medians[full] = (values[low].astype(np.float64) + values[high]) / 2
    return medians[groups]


def _groups(*keys: NDArray[Any]) -> NDArray[np.int64]:
    """Number of the group of every frame: those that agree in all keys."""
    groups = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        code = np.unique(key, return_inverse=True)[1]
        groups = np.unique(groups * (code.max(initial=0) + 1) + code, return_inverse=True)[1].astype(np.int64)
    return groups


# ---------------------------------------------------------------- the tests; missing values compare as False


def _outside(values: NDArray[Any], rule: Mapping[str, Any]) -> Bool:
    with np.errstate(invalid="ignore"):
        return np.asarray((values < rule.get("below", -np.inf)) | (values > rule.get("above", np.inf)))


def _range(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    return _outside(frames[rule["column"]], rule)


def _ratio(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    values = frames[rule["column"]]
    with np.errstate(divide="ignore", invalid="ignore"):
        return _outside(values / frames.source_median(values), rule)


def _edges(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    """In a registered source the best place must be near; in another, near the source's own shift."""
    across, down = frames.shift
    with np.errstate(invalid="ignore"):
        elsewhere = np.hypot(across, down) > rule["registered"]
        moved = np.hypot(frames["q_edge_dx"] - across, frames["q_edge_dy"] - down) > rule["apart"]
        return np.where(elsewhere, moved, frames["q_edge_margin"] < rule["margin"])


def _unrelated(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    """No place fits much better than the others, and the right one hardly better than the best of those."""
    peak = frames["q_edge_peak"]
    with np.errstate(invalid="ignore"):
        low = (peak < rule["peak"]) | (peak < rule["share"] * frames.source_median(peak))
        return np.asarray(low & (frames["q_edge_margin"] < rule["margin"]))


def _registration(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    with np.errstate(invalid="ignore"):
        return np.hypot(*frames.shift) > rule["above"]


def _focal(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    """Another focal length than most frames of what must be one camera: same source, size and principal point."""
    centres = [np.round(frames[f"q_centre_{axis}"].astype(np.float64), 4) for axis in "xy"]
    camera = _groups(frames.source, frames["width"], frames["height"], *centres)
    focal = frames["fx"].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(np.log(focal / _median(focal, camera, _FEW_SHOTS))) > np.log(rule["ratio"])
    count = np.bincount(camera)
    usual = np.bincount(camera[~off], minlength=len(count))
    return np.asarray(off & (usual >= rule["majority"] * count)[camera])


def _earlier_depth(frames: _Frames, rule: Mapping[str, Any]) -> tuple[NDArray[np.int64], Bool, Bool]:
    """Frames that repeat the depth of an earlier one of their source, and whether its image is another, or the same."""
    earlier = earlier_equal(frames["depth_hash"], frames.source)
    again = np.flatnonzero(earlier >= 0)
    differ = hamming(frames["hash"][again], frames["hash"][earlier[again]]) > rule["distance"]
    return again, differ, ~differ


def _frozen(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    again, differ, _ = _earlier_depth(frames, rule)
    return _marked(len(frames), again[differ])


def _duplicate(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    again, _, same = _earlier_depth(frames, rule)
    return _marked(len(frames), again[same])


def _repeated(frames: _Frames, rule: Mapping[str, Any]) -> Bool:
    """Of two frames with one image and different depth, the one whose edges fit worse; the later, where unknown."""
    hashes = frames["hash"]
    equal = earlier_equal(hashes, frames.source)
    again = np.flatnonzero(equal >= 0)
    pairs = np.concatenate(
        [np.stack([equal[again], again], axis=-1), similar_pairs(hashes, int(rule["distance"]), frames.source)]
    )
    depth, margin = frames["depth_p50"], frames["q_edge_margin"]
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = pairs[np.abs(np.log(depth[pairs[:, 0]] / depth[pairs[:, 1]])) > np.log(rule["ratio"])]
        earlier_worse = margin[pairs[:, 0]] < margin[pairs[:, 1]]
    return _marked(len(frames), np.where(earlier_worse, pairs[:, 0], pairs[:, 1]))


def _marked(count: int, numbers: NDArray[Any]) -> Bool:
    marked = np.zeros(count, dtype=bool)
    marked[numbers] = True
    return marked


@dataclass(frozen=True)
class _Test:
    """How a rule decides: `find` gives a bool for every frame; the parameters it `needs` and those it `may` have."""

    find: Callable[[_Frames, Mapping[str, Any]], Bool]
    needs: tuple[str, ...]
    may: tuple[str, ...] = ()


_TESTS = {
    "range": _Test(_range, ("column",), ("below", "above")),
    "ratio": _Test(_ratio, ("column",), ("below", "above")),
    "edges": _Test(_edges, ("margin", "registered", "apart")),
    "unrelated": _Test(_unrelated, ("peak", "share", "margin")),
    "registration": _Test(_registration, ("above",)),
    "focal": _Test(_focal, ("ratio", "majority")),
    "frozen": _Test(_frozen, ("distance",)),
    "duplicate": _Test(_duplicate, ("distance",)),
    "repeated": _Test(_repeated, ("distance", "ratio")),
}
