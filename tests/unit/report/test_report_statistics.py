"""Aggregates against numbers worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from newt.report.statistics import Estimate, difference, estimate, iqm, mean, resampled


def test_the_interquartile_mean_drops_a_quarter_at_either_end() -> None:
    # sorted 1..8: 1, 2 and 7, 8 go; (3 + 4 + 5 + 6) / 4
    assert iqm(np.array([[8.0, 1.0], [2.0, 7.0], [6.0, 3.0], [4.0, 5.0]])) == 4.5
    # five scores: a quarter is 1.25, so one at either end; (1 + 2 + 9) / 3
    assert iqm(np.array([[100.0, 0.0, 1.0, 2.0, 9.0]])) == 4.0
    # three: none is dropped
    assert iqm(np.array([[0.0], [0.0], [3.0]])) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_it_is_the_trimmed_mean_of_a_quarter(scores: list[float]) -> None:
    assert iqm(np.array([scores])) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_means_of_many_matrices_at_once() -> None:
    scores = np.arange(24.0).reshape(2, 3, 4)
    assert mean(scores).tolist() == [5.5, 17.5]
    assert iqm(scores).tolist() == [5.5, 17.5]


def test_every_task_is_resampled_by_itself() -> None:
    scores = np.array([[0.0, 10.0], [1.0, 11.0]])
    draws = resampled(scores, 2000)
    assert set(np.unique(draws[..., 0])) == {0.0, 1.0}
    assert set(np.unique(draws[..., 1])) == {10.0, 11.0}
    # whole seeds would always give the same difference of the two columns
    assert len(np.unique(draws[:, 0, 1] - draws[:, 0, 0])) == 3


def test_the_interval_of_six_coins() -> None:
    """Two seeds, scores 0 and 1, on three tasks: the mean of six fair coins.

    P(0 of 6) = 1/64 = 1.6% < 2.5% and P(at most 1 of 6) = 7/64 = 10.9% > 2.5%: the interval is 1/6 to 5/6.
    """
    found = estimate(np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), "mean")
    assert (found.value, found.low, found.high) == (0.5, pytest.approx(1 / 6), pytest.approx(5 / 6))
    # drawn as whole seeds, it would have been 0 to 1; one task has P(0 of 2) = 1/4
    single = estimate(np.array([[0.0], [1.0]]), "mean")
    assert (single.low, single.high) == (0.0, 1.0)


def test_seeds_that_agree_leave_no_doubt() -> None:
    found = estimate(np.array([[0.2, 0.8], [0.2, 0.8], [0.2, 0.8]]), "mean")
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_difference_of_two_variants() -> None:
    ours, theirs = np.array([[0.6], [0.6]]), np.array([[0.1], [0.3]])
    found = difference(ours, theirs)
    # theirs is resampled to 0.1, 0.2 or 0.3, the outer ones a quarter of the time each
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.3, 0.5))


def test_one_seed_has_no_interval_and_a_gap_has_no_value() -> None:
    one = estimate(np.array([[0.25, 0.75]]))
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert one.text() == "0.500"
    gap = estimate(np.array([[0.25, math.nan], [0.2, 0.3]]))
    assert math.isnan(gap.value)
    assert gap.text() == "-"
    assert math.isnan(difference(np.zeros((0, 0)), np.ones((2, 2))).value)
    assert Estimate(0.5, 0.25, 0.75).text(2) == "0.50 (0.25 to 0.75)"
