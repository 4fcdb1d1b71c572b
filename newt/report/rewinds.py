"""Runs that resume from an older checkpoint go back: what they had told beyond it counts no more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from newt.runs.record import MetricsRow


def superseded(counters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Of each row of one writer, whether a later one is behind it.

    Args:
        counters: int64[N], its updates (of a trainer) or env steps, in the order in which they were told.

    Returns:
        bool[N].
    """
    found = np.zeros(len(counters), bool)
    if len(counters):
        least_from_here = np.minimum.accumulate(counters[::-1])[::-1]
        found[:-1] = least_from_here[1:] < counters[:-1]
    return found


def standing(rows: Sequence[MetricsRow]) -> list[MetricsRow]:
    """The rows that count."""
    kept = np.ones(len(rows), bool)
    for source in {row.source for row in rows}:
        places = np.array([place for place, row in enumerate(rows) if row.source == source])
        counters = [rows[place].updates if source == "trainer" else rows[place].env_steps for place in places]
        kept[places[superseded(np.array(counters))]] = False
    return [row for row, keep in zip(rows, kept, strict=True) if keep]
