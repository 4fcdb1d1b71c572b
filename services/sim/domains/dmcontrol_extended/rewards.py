"""How far a quantity is from where it should be, as a reward in [0, 1].

All are 1 where the bound is met. With margin m and the distance d by which it is missed, the smooth ones fall off as
0.1^((d/m)²), the linear one as a straight line which has the value v at d = m and stays at 0 once it gets there.
"""

from __future__ import annotations


def smooth_above(value: float, bound: float, margin: float) -> float:
    """1 from the bound upwards, 0.1 a margin below it."""
    return _smooth(bound - value, margin)


def smooth_below(value: float, bound: float, margin: float) -> float:
    """1 from the bound downwards, 0.1 a margin above it."""
    return _smooth(value - bound, margin)


def linear_above(value: float, bound: float, margin: float, at_margin: float = 0.0) -> float:
    """1 from the bound upwards, `at_margin` a margin below it."""
    return _linear(bound - value, margin, at_margin)


def linear_below(value: float, bound: float, margin: float, at_margin: float = 0.0) -> float:
    """1 from the bound downwards, `at_margin` a margin above it."""
    return _linear(value - bound, margin, at_margin)


def _smooth(missed_by: float, margin: float) -> float:
    return float(0.1 ** ((max(missed_by, 0.0) / margin) ** 2))


def _linear(missed_by: float, margin: float, at_margin: float) -> float:
    return float(max(0.0, 1.0 - (1.0 - at_margin) * max(missed_by, 0.0) / margin))
