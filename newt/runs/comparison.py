"""Runs beside each other, as groups of seeds."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from newt.runs.base import Record


class ComparedScore(Record):
    """An aggregate of scores over seeds and tasks."""

    value: float
    low: float | None = Field(description="Lower end of the 95% bootstrap interval; null of a single seed.")
    high: float | None = Field(description="Its upper end.")
    seeds: int = Field(description="Runs that have a score of every task there.")


class ComparedPoint(ComparedScore):
    """The aggregate in an evaluation while training."""

    env_steps: int = Field(description="Env steps of a run, where the evaluation was due.")


class ComparedGroup(Record):
    """Runs that are one line."""

    runs: list[str]
    seeds: list[int]
    tasks: int = Field(description="Number of tasks, of the first run.")
    curve: list[ComparedPoint]
    final: ComparedScore | None = Field(description="In the final evaluation; null while there is none.")


class Difference(Record):
    """A setting that is not the same in all groups."""

    setting: str = Field(description="Its path, as in `schedule.total_env_steps`.")
    values: list[Any] = Field(description="Of each group's first run; null where it has none.")


class Comparison(Record):
    """GET /compare."""

    statistic: Literal["mean", "iqm"]
    groups: list[ComparedGroup]
    differences: list[Difference]
