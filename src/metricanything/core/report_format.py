"""How a report writes text and numbers."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

DASH = "–"


@dataclass
class Numbering:
    """Running numbers of the captions of one page."""

    counts: dict[str, int] = field(default_factory=dict)

    def next(self, kind: str) -> int:
        """The next number of `kind`, from 1."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return self.counts[kind]

    def caption(self, kind: str, text: str) -> str:
        """A numbered `<figcaption>`, or nothing when `text` is empty."""
        return f"<figcaption><b>{kind} {self.next(kind)}.</b> {escape(text)}</figcaption>" if text else ""


def escape(value: Any) -> str:
    """`value` as text, safe inside HTML elements and quoted attributes; what is not valid Unicode becomes `?`."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"), quote=True)


def as_number(value: Any) -> float | None:
    """`value` as a float when it is a number (NumPy's included, bool excluded), else None."""
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else None


def format_value(value: Any, decimals: int | None = None) -> str:
    """One value: five significant digits or `decimals`, thousands separated; NaN and None are a dash."""
    number = as_number(value)
    if value is None or (number is not None and math.isnan(number)):
        return DASH
    if number is None:
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    if isinstance(value, Integral):
        text = f"{int(value):,}"
    elif number != 0 and not 1e-4 <= abs(number) < 1e7:
        text = _scientific(number, 4)
    elif decimals is None:
        text = f"{number:,.5g}" if abs(number) < 1e5 else f"{number:,.0f}"
    else:
        text = f"{number:,.{decimals}f}"
    return text.replace("-", "−", 1) if number < 0 else text


def _scientific(number: float, digits: int) -> str:
    mantissa, exponent = f"{number:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}×{power}"


def common_format(values: Sequence[Any]) -> list[str]:
    """Values that are compared with each other, all with as many decimals as give the largest four digits."""
    floats = [abs(x) for v in values if (x := as_number(v)) and not isinstance(v, Integral) and math.isfinite(x)]
    if not floats:
        return [format_value(v) for v in values]
    decimals = min(max(3 - math.floor(math.log10(max(floats))), 0), 7)
    return [format_value(v, decimals) for v in values]


def tick_label(value: float, largest: float) -> str:
    """A short label of an axis tick, in the unit (1, k, M) that suits `largest`: 0.01, 250, 20k, 10⁻⁴."""
    if value != 0 and not 1e-3 <= abs(value) < 1e9:
        text = _scientific(value, 3)
    else:
        unit, letter = (1e6, "M") if largest >= 1e6 else (1e3, "k") if largest >= 1e4 else (1.0, "")
        text = f"{value / unit:.5g}{letter if value else ''}"
    return text.replace("-", "−", 1) if value < 0 else text
