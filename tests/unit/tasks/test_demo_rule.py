from __future__ import annotations

import math

import pytest

from newt.tasks.demo_rule import accepted, good_so_far, must_succeed, threshold
from newt.tasks.registry import all_tasks

NAN = math.nan


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([4.0], 3.0),
        ([1.0, 8.0, 4.0], 3.0),
        ([1.0, 4.0, 8.0, 9.0], 3.0),  # the lower one in the middle
        ([-4.0, -8.0, -1.0], -5.0),
        ([0.0, 0.0, 5.0], 0.0),
    ],
)
def test_the_threshold_lies_a_quarter_of_the_median_below_it(returns: list[float], expected: float) -> None:
    assert threshold(returns) == expected


def test_an_episode_must_exceed_the_threshold() -> None:
    returns = [3.0, 3.01, 4.0, 5.0, 2.0]
    assert list(accepted("walker-walk", [*returns, 4.0, 4.0], [NAN] * 7)) == [
        False,
        True,
        True,
        True,
        False,
        True,
        True,
    ]
    # With a return of zero in the middle, the rule asks for more than zero.
    assert not accepted("walker-walk", [0.0, 0.0, 0.0], [NAN] * 3).any()


def test_manipulation_must_end_in_success() -> None:
    returns, successes = [10.0, 10.0, 10.0, 1.0], [1.0, 0.0, NAN, 1.0]
    assert list(accepted("mw-reach", returns, successes)) == [True, False, False, False]
    assert list(accepted("ms-hopper-hop", returns, successes)) == [True, True, True, False]


def test_which_tasks_must_succeed() -> None:
    names = {task.name for task in all_tasks() if must_succeed(task.name)}
    assert {"mw-reach", "rd-push-red", "ms-pick-cube", "ms-anymal-reach"} <= names
    assert not {"walker-walk", "ms-cartpole-balance", "ms-hopper-hop", "ms-ant-run", "og-ant", "atari-pong"} & names


@pytest.mark.parametrize(
    ("returns", "score", "success", "good"),
    [
        ([5.0], 0.5, NAN, True),
        ([5.0], 0.0, NAN, False),  # scores nothing
        ([10.0, 1.0], 0.5, NAN, True),  # the lower of two returns is their median
        ([10.0, 10.0, 7.4], 0.5, NAN, False),
        ([10.0, 10.0, 7.5], 0.5, NAN, True),  # equals the threshold
        ([0.0, 0.0], 1.0, NAN, True),  # nothing is better than 0 here
        ([-4.0, -4.0, -5.1], 0.5, NAN, False),
        ([10.0, 10.0, 1.0], 0.0, 1.0, True),  # success alone counts where it is defined
        ([10.0], 1.0, 0.0, False),
    ],
)
def test_an_experts_newest_episode(returns: list[float], score: float, success: float, good: bool) -> None:
    assert good_so_far(returns, score, success) is good
