"""95% intervals of mean scores, by Student's t over episodes.

Episodes are independent: each has a seed of its own. With s_k the standard deviation of n_k episodes of task k, the
mean over K tasks has the variance v = sum v_k, v_k = s_k^2 / n_k / K^2, and v^2 / sum(v_k^2 / (n_k - 1)) degrees of
freedom (Welch-Satterthwaite), which for one task are n - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_Z = 1.959963984540054
# Quantiles of 0.975 for 1 to 9 degrees of freedom; the expansion below is off by less than 1e-4 from 10 on.
_QUANTILES = (12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157)


def t_quantile(freedom: float) -> float:
    """Quantile 0.975 of Student's t with at least one degree of freedom; below ten they are rounded down."""
    if freedom < 10:
        return _QUANTILES[int(freedom) - 1]
    # Cornish-Fisher expansion in 1 / freedom (Abramowitz and Stegun, 26.7.5).
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    third = (3 * _Z**7 + 19 * _Z**5 + 17 * _Z**3 - 15 * _Z) / 384
    return _Z + first / freedom + second / freedom**2 + third / freedom**3


def half_width(stds: Sequence[float | None], episodes: Sequence[int]) -> float | None:
    """Half of the 95% interval of the mean over tasks of each task's mean score.

    Args:
        stds: Sample standard deviation over the episodes of each task; None where it is not known.
        episodes: Their number by task.

    Returns:
        The half width; None if a deviation is not known, as of a single episode.
    """
    parts = []
    for std, n in zip(stds, episodes, strict=True):
        if std is None or n < 2:
            return None
        parts.append((std**2 / n / len(stds) ** 2, n))
    variance = sum(v for v, _ in parts)
    if variance == 0:
        return 0.0
    freedom = variance**2 / sum(v**2 / (n - 1) for v, n in parts)
    return t_quantile(freedom) * math.sqrt(variance)
