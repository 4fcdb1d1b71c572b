"""95% intervals, against a t table and against numbers worked by hand."""

from __future__ import annotations

import math

import pytest

from newt.runs.intervals import half_width, t_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (4, 2.7764), (9, 2.2622), (10, 2.2281), (19, 2.0930), (60, 2.0003), (1e9, 1.95996)],
)
def test_quantiles_are_those_of_the_tables(freedom: float, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=3e-4)


def test_one_task() -> None:
    # Scores 0, 0, 1, 1, 1: mean 0.6, s^2 = (2 * 0.36 + 3 * 0.16) / 4 = 0.3, so 2.776445 * sqrt(0.3 / 5) = 0.680088.
    assert half_width([math.sqrt(0.3)], [5]) == pytest.approx(0.680088, abs=1e-5)


def test_the_mean_of_several_tasks() -> None:
    # Two tasks with v_k = 0.04 / 4 / 4 = 0.0025 each: v = 0.005, and 0.005^2 / (2 * 0.0025^2 / 3) = 6 degrees.
    assert half_width([0.2, 0.2], [4, 4]) == pytest.approx(2.446912 * math.sqrt(0.005))
    # A task without spread leaves the other's degrees of freedom, and half of its width.
    assert half_width([0.2, 0.0], [4, 4]) == pytest.approx(half_width([0.2], [4]) / 2)


def test_no_interval_where_there_is_nothing_to_tell() -> None:
    assert half_width([None], [1]) is None
    assert half_width([0.1, None], [5, 5]) is None  # one record of before deviations were stored
    assert half_width([0.0, 0.0], [5, 5]) == 0
