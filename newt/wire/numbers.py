"""Whole numbers from callers, checked before protobuf sees them, whose errors name no field."""

from __future__ import annotations

import operator
from typing import Any

from newt.errors import InvalidInputError

MAX_UINT32, MAX_UINT64 = 2**32 - 1, 2**64 - 1


def whole(field: str, value: Any, low: int = 0, high: int = MAX_UINT64) -> int:
    """A whole number as an int.

    >>> whole("seed", 3)
    3

    Args:
        field: What the caller calls it.
        value: What was given.
        low: Lowest that is accepted.
        high: Highest that is accepted.

    Raises:
        InvalidInputError: It is no whole number, or out of range.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidInputError(field, f"got {value!r:.80}, expected a whole number, {low} to {high}") from None
    if not low <= number <= high:
        shown = number if number.bit_length() <= 64 else f"a number of {number.bit_length()} bits"
        raise InvalidInputError(field, f"got {shown}, expected {low} to {high}")
    return number
