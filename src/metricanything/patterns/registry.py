"""Patterns by name: a family, its numbers, and any suffixes, which are applied from left to right.

`uniform`, `uniform-500`, `range-1-5`, `lidar-8+hole-100+outliers-5`. Without numbers a family is random in them, as
training wants it; with numbers it is one benchmark.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from metricanything.core.errors import InputError
from metricanything.patterns.drawing import Pattern
from metricanything.patterns.grid import Downscale, Grid
from metricanything.patterns.keypoints import Keypoints
from metricanything.patterns.lidar import LidarLines
from metricanything.patterns.noise import Misregistration, Noise, Noisy, Outliers, RangeNoise
from metricanything.patterns.radar import Radar
from metricanything.patterns.regions import FieldOfView, Hole, Range, Region, Within
from metricanything.patterns.uniform import Everything, Nothing, Uniform

T = TypeVar("T", Pattern, Region, Noise)


@dataclass(frozen=True)
class Family(Generic[T]):
    """A family of patterns, regions or noise, with its names."""

    name: str
    description: str
    example: str
    plain: T | None
    """What the name without numbers stands for; None = numbers are needed."""
    numbered: Callable[..., T] | None = None
    """From the numbers of a name; None = the name takes none."""
    numbers: int = 1
    most: int = 10**9

    def make(self, numbers: list[int]) -> T:
        """Raises InputError for numbers that the family does not take."""
        if not numbers and self.plain is not None:
            return self.plain
        if self.numbered is None or len(numbers) != self.numbers or max(numbers) > self.most:
            raise InputError(f"takes {self._wanted()}, as in {self.example}")
        return self.numbered(*numbers)

    def _wanted(self) -> str:
        if self.numbered is None:
            return "no number"
        plural = "a number" if self.numbers == 1 else f"{self.numbers} numbers"
        return plural + (f" of at most {self.most}" if self.most < 10**9 else "")


def _table(*families: Family[T]) -> dict[str, Family[T]]:
    return {family.name: family for family in families}


REGIONS = _table(
    Family[Region]("hole", "all but a square of N pixels", "uniform-500+hole-100", Hole(), Hole),
    Family[Region]("range", "N to M metres", "grid-8+range-1-5", Range(), lambda n, m: Range((n, m)), 2),
    Family[Region](
        "fov",
        "a window of N % of the image's width",
        "lidar-8+fov-50",
        FieldOfView(),
        lambda n: FieldOfView((n / 100, n / 100)),
        most=100,
    ),
)

NOISES = _table(
    Family[Noise](
        "outliers",
        "N % of the points wrong (OMNI-DC's noise)",
        "uniform-500+outliers-5",
        Outliers(),
        lambda n: Outliers((n / 100, n / 100)),
        most=100,
    ),
    Family[Noise](
        "noise",
        "depths off by N % (standard deviation)",
        "uniform-500+noise-2",
        RangeNoise(),
        lambda n: RangeNoise((n / 100, n / 100)),
        most=100,
    ),
    Family[Noise](
        "shift",
        "all points moved by N pixels: a sensor out of register",
        "lidar-8+shift-3",
        Misregistration(),
        lambda n: Misregistration((n, n)),
    ),
)


def _exactly(points: int, *, match_density: bool = False) -> Uniform:
    return Uniform((points, points), max_fraction=1.0, match_density=match_density)


def _alone(region: Family[Region], example: str) -> Family[Pattern]:
    """A region as a pattern: with numbers 2000 points in it, as in Prior Depth Anything, else uniform masking."""
    return Family[Pattern](
        region.name,
        f"uniformly drawn points in {region.description}",
        example,
        Within(Uniform(), region.make([])),
        lambda *numbers: Within(_exactly(2000), region.make(list(numbers))),
        region.numbers,
        region.most,
    )


FAMILIES = _table(
    Family[Pattern](
        "uniform", "N known pixels drawn uniformly (the paper's random masking)", "uniform-500", Uniform(), _exactly
    ),
    Family[Pattern](
        "matched",
        "uniform, N scaled by the known share of the map (OMNI-DC's density)",
        "matched-500",
        Uniform(match_density=True),
        lambda n: _exactly(n, match_density=True),
    ),
    Family[Pattern](
        "lidar",
        "scan lines of a virtual N-line LiDAR",
        "lidar-8",
        LidarLines(),
        lambda n: LidarLines((n, n)),
    ),
    Family[Pattern](
        "lidar_rounded",
        "the same to the published pixel (OMNI-DC, Prior Depth Anything)",
        "lidar_rounded-8",
        LidarLines(rounded=True),
        lambda n: LidarLines((n, n), rounded=True),
    ),
    Family[Pattern](
        "grid", "one pixel per N x N block: a low-resolution sensor", "grid-8", Grid(), lambda n: Grid((n, n))
    ),
    Family[Pattern](
        "downscale", "an N times smaller map, interpolated (Prior Depth Anything)", "downscale-8", None, Downscale
    ),
    Family[Pattern]("sift", "SIFT keypoints of the image", "sift", Keypoints("sift")),
    Family[Pattern]("orb", "ORB corners of the image", "orb", Keypoints("orb")),
    _alone(REGIONS["hole"], "hole-100"),
    _alone(REGIONS["range"], "range-1-5"),
    _alone(REGIONS["fov"], "fov-50"),
    Family[Pattern]("radar", "N radar returns: noisy, at a wrong height", "radar-60", Radar(), lambda n: Radar((n, n))),
    Family[Pattern]("all", "every known pixel", "all", Everything()),
    Family[Pattern]("none", "no prompt", "none", Nothing()),
)


def parse(name: str) -> Pattern:
    """The pattern of this name; raises InputError with the known families or suffixes."""
    first, *suffixes = name.split("+")
    family, numbers = _split(name, first, FAMILIES)
    pattern = _made(name, FAMILIES[family], numbers)
    for suffix in suffixes:
        family, numbers = _split(name, suffix, {**REGIONS, **NOISES})
        if family in REGIONS:
            pattern = Within(pattern, _made(name, REGIONS[family], numbers))
        else:
            pattern = Noisy(pattern, _made(name, NOISES[family], numbers))
    return pattern


def _split(name: str, part: str, table: dict[str, Family[Any]]) -> tuple[str, list[int]]:
    match = re.fullmatch(r"([a-z_]+)((?:-[1-9][0-9]{0,8})*)", part)
    if match is None or match[1] not in table:
        where = "" if part == name else f" at {part!r}"
        known = ", ".join(f.example for f in table.values())
        raise InputError(f"prompt pattern {name!r} is unknown{where}; use for example {known}")
    return match[1], [int(n) for n in match[2].split("-")[1:]]


def _made(name: str, family: Family[T], numbers: list[int]) -> T:
    try:
        return family.make(numbers)
    except InputError as error:
        raise InputError(f"prompt pattern {name!r}: {family.name} {error}") from None
