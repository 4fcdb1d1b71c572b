"""Aggregates over seeds and tasks with bootstrap intervals, as rliable defines them.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), sections 4.1 and
4.3: scores of R seeds on K tasks are a matrix; the interquartile mean (IQM) is the mean of the middle half of all R·K
scores; its interval comes from a bootstrap that is stratified by task: seeds are drawn with replacement for each task.

>>> scores = np.array([[0.0, 0.2], [0.4, 0.6], [0.8, 1.0]])
>>> round(float(iqm(scores)), 3), round(float(mean(scores)), 3)
(0.5, 0.5)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
StatisticName = Literal["mean", "iqm"]

RESAMPLES = 5_000
COVERAGE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An aggregate and its percentile interval; with one seed the interval is NaN: nothing is known of the spread."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def text(self, digits: int = 3) -> str:
        """`0.512 (0.470 to 0.561)`, without interval where there is none, a dash for NaN."""
        if np.isnan(self.value):
            return "-"
        value = f"{self.value:.{digits}f}"
        return value if np.isnan(self.low) else f"{value} ({self.low:.{digits}f} to {self.high:.{digits}f})"


NOTHING = Estimate(float("nan"))


def mean(scores: Array) -> Array:
    """Mean over the last two axes: float64[..., R, K] to float64[...]."""
    return np.asarray(scores.mean(axis=(-2, -1)))


def iqm(scores: Array) -> Array:
    """Interquartile mean over the last two axes: float64[..., R, K] to float64[...].

    A quarter of the R·K scores, rounded down, is dropped at either end.
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    count = flat.shape[-1]
    cut = count // 4
    return np.asarray(flat[..., cut : count - cut].mean(axis=-1))


STATISTICS: dict[StatisticName, Callable[[Array], Array]] = {"mean": mean, "iqm": iqm}


def resampled(scores: Array, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Bootstrap samples, stratified by task.

    Args:
        scores: float64[R, K], a row per seed.
        resamples: How many.
        seed: Source of the draws.

    Returns:
        float64[resamples, R, K]: in each, every column has R scores that are drawn with replacement from that column.
    """
    seeds, tasks = scores.shape
    rows = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds, tasks))
    return np.asarray(scores[rows, np.arange(tasks)])


def estimate(scores: Array, statistic: StatisticName = "iqm", resamples: int = RESAMPLES) -> Estimate:
    """An aggregate of scores float64[R, K] with its 95% interval. NaN if any score is: a gap stays a gap."""
    if scores.size == 0 or np.isnan(scores).any():
        return NOTHING
    function = STATISTICS[statistic]
    value = float(function(scores))
    if len(scores) < 2:
        return Estimate(value)
    return Estimate(value, *_interval(function(resampled(scores, resamples))))


def difference(ours: Array, theirs: Array, statistic: StatisticName = "mean", resamples: int = RESAMPLES) -> Estimate:
    """How much higher the first aggregate is, with the interval of resampling both apart. NaN if a score is missing."""
    if min(ours.size, theirs.size) == 0 or np.isnan(ours).any() or np.isnan(theirs).any():
        return NOTHING
    function = STATISTICS[statistic]
    value = float(function(ours) - function(theirs))
    if min(len(ours), len(theirs)) < 2:
        return Estimate(value)
    draws = function(resampled(ours, resamples)) - function(resampled(theirs, resamples, seed=1))
    return Estimate(value, *_interval(draws))


def _interval(draws: Array) -> tuple[float, float]:
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
