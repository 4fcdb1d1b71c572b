"""Fewer points that look the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from newt.report.statistics import Array


def thinned(values: Array, most: int) -> NDArray[np.intp]:
    """Places of the points to draw: first, last, and the least and greatest value of equal stretches between.

    A peak of one point stays visible, which a mean or every n-th point would hide.

    Args:
        values: float64[N].
        most: Most points to keep, at least 4.

    Returns:
        intp[M], ascending, M <= most; all places if N <= most.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(1, count - 1, (most - 2) // 2 + 1).astype(int)
    kept = {0, count - 1}
    for start, end in pairwise(edges):
        if end > start:
            stretch = values[start:end]
            kept |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
    return np.array(sorted(kept))
