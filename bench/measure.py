"""Taking times: candidates take turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeVar

from bench.figures import Ratio, Spread

# On a machine that others use too, a case ends early; with fewer repetitions than these it would say nothing.
_LONGEST_S = 60.0
_FEWEST_REPETITIONS = 5

T = TypeVar("T")
Level = Literal["full", "quick", "tiny"]


@dataclass(frozen=True)
class Effort:
    """How much work a benchmark may do.

    Attributes:
        level: `full` for figures to keep, `quick` for a look, `tiny` to see that it runs at all.
    """

    level: Level

    def pick(self, *, full: T, quick: T, tiny: T) -> T:
        """One of three values."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.level]

    @property
    def repetitions(self) -> int:
        """Rounds of interleaved measurements."""
        return self.pick(full=25, quick=7, tiny=1)


@dataclass(frozen=True)
class Candidate:
    """One contestant.

    Attributes:
        run: The work to be timed.
        setting: Entered around `run`, outside of the time taken; sets what the candidates must not share.
    """

    run: Callable[[], object]
    setting: Callable[[], AbstractContextManager[object]] = nullcontext


def interleaved(
    candidates: Mapping[str, Candidate],
    repetitions: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times every candidate once per repetition, in alternating order.

    Args:
        candidates: Candidates by name.
        repetitions: Times taken of each; fewer if they take longer than a minute.
        warm_up: Rounds before, which do not count.
        clock: What is read before and after; processor time, say, instead of time.

    Returns:
        Seconds by name; the i-th of each were taken side by side.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    deadline = time.perf_counter() + _LONGEST_S
    for repetition in range(-warm_up, repetitions):
        if repetition >= _FEWEST_REPETITIONS and time.perf_counter() > deadline:
            break
        for name in names if repetition % 2 == 0 else reversed(names):
            candidate = candidates[name]
            with candidate.setting():
                start = clock()
                candidate.run()
                taken = clock() - start
            if repetition >= 0:
                seconds[name].append(taken)
    return seconds


def duration_ratio(
    key: str, what: str, ours: list[float], plain: list[float], *, at_least: float | None = None
) -> Ratio:
    """Compares durations in seconds; reported in milliseconds."""
    return Ratio(
        key,
        what,
        "ms",
        ours=Spread.of([1000 * s for s in ours]),
        plain=Spread.of([1000 * s for s in plain]),
        ratio=Spread.of([p / o for o, p in zip(ours, plain, strict=True)]),
        at_least=at_least,
    )


def rate_ratio(
    key: str, what: str, unit: str, work: float, ours: list[float], plain: list[float], *, at_least: float | None = None
) -> Ratio:
    """Compares rates: `work` units done in each of the durations, seconds."""
    return Ratio(
        key,
        what,
        unit,
        ours=Spread.of([work / s for s in ours]),
        plain=Spread.of([work / s for s in plain]),
        ratio=Spread.of([p / o for o, p in zip(ours, plain, strict=True)]),
        at_least=at_least,
    )
