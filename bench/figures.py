"""What a benchmark yields: ratios and plain values, each with its spread and its goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        low, median, high = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75)).tolist()
        return cls(median, low, high)

    def flat(self, key: str) -> dict[str, float]:
        """`key`, `key.low` and `key.high`."""
        return {key: _rounded(self.median), f"{key}.low": _rounded(self.low), f"{key}.high": _rounded(self.high)}


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is than a plain implementation.

    Attributes:
        key: Dotted name, such as `planner.S.b8`.
        what: One line for people.
        unit: Unit of `ours` and `plain`, such as `ms` or `steps/s`.
        ours: Measurements of ours.
        plain: Measurements of the plain implementation.
        ratio: Ratio of the repetitions' own ratios: each compares two measurements taken side by side.
        at_least: The goal, if there is one.
    """

    key: str
    what: str
    unit: str
    ours: Spread
    plain: Spread
    ratio: Spread
    at_least: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.at_least is None else self.ratio.median >= self.at_least

    def flat(self) -> dict[str, object]:
        """Flat keys for the results file."""
        values: dict[str, object] = {}
        for name in ("ours", "plain", "ratio"):
            spread: Spread = getattr(self, name)
            values |= spread.flat(f"{self.key}.{name}")
        values[f"{self.key}.unit"] = self.unit
        if self.at_least is not None:
            values |= {f"{self.key}.goal": f">= {self.at_least:g}", f"{self.key}.met": self.met}
        return values


@dataclass(frozen=True)
class Value:
    """A figure that has no plain counterpart.

    Attributes:
        key: Dotted name.
        what: One line for people.
        unit: Unit of the value.
        value: Measurements.
        at_most: The goal, if there is one.
    """

    key: str
    what: str
    unit: str
    value: Spread
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.at_most is None else self.value.median <= self.at_most

    def flat(self) -> dict[str, object]:
        """Flat keys for the results file."""
        values: dict[str, object] = {**self.value.flat(self.key), f"{self.key}.unit": self.unit}
        if self.at_most is not None:
            values |= {f"{self.key}.goal": f"<= {self.at_most:g}", f"{self.key}.met": self.met}
        return values


Figure = Ratio | Value


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
