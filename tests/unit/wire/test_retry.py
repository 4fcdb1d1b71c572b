"""The one back-off: how often, how long, and what ends it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from newt.errors import ExhaustedError, LostError, NewtError, UnavailableError
from newt.wire.retry import Backoff, until_available


def away(times: int, error: NewtError) -> Callable[[], int]:
    """A call that fails so many times, then returns how often it was made."""
    made = itertools.count(1)

    def call() -> int:
        number = next(made)
        if number <= times:
            raise error
        return number

    return call


def test_pauses_double_up_to_the_longest_and_differ_between_callers() -> None:
    pauses = list(itertools.islice(Backoff(0.1, 1.0).pauses(), 8))
    for pause, longest in zip(pauses, (0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1), strict=True):
        assert longest / 2 <= pause <= longest
    assert pauses != list(itertools.islice(Backoff(0.1, 1.0).pauses(), 8))


def test_a_call_is_repeated_until_it_succeeds_and_each_failure_is_told() -> None:
    slept: list[float] = []
    heard: list[NewtError] = []
    error = UnavailableError("away")
    made = until_available(away(3, error), None, sleep=slept.append, heard=heard.append)
    assert (made, len(slept), heard) == (4, 3, [error] * 3)


def test_the_deadline_ends_it_with_the_last_error() -> None:
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="away"):
        until_available(away(1000, UnavailableError("away")), started + 0.3, Backoff(0.05, 0.05))
    assert time.monotonic() - started < 0.3
    with pytest.raises(UnavailableError):  # One try even so.
        until_available(away(1, UnavailableError("late")), started)


def test_only_the_named_errors_are_waited_out() -> None:
    for error in (LostError("lost"), ExhaustedError("full")):
        with pytest.raises(type(error)):
            until_available(away(1, error), None, sleep=lambda _: None)
        assert until_available(away(1, error), None, sleep=lambda _: None, on=(type(error),)) == 2


def test_whoever_sleeps_may_give_up() -> None:
    class OverError(Exception):
        pass

    def over(seconds: float) -> None:
        raise OverError

    with pytest.raises(OverError):
        until_available(away(1, UnavailableError("away")), None, sleep=over)
