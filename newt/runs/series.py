"""Metrics of a run as columns, as charts draw them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from newt.runs.base import Record

Source = Literal["trainer", "collector", "evaluation"]


class Series(Record):
    """One metric, oldest first: lists of equal length."""

    name: str
    source: Source = Field(description="Which process wrote it.")
    total: int = Field(description="Points that there are. Of more than were asked for, these show the same range.")
    env_steps: list[int]
    updates: list[int] = Field(description="Updates so far, pretraining included.")
    episodes: list[int | None] = Field(
        description="Training episodes so far; null before the first, and where an earlier version did not count them."
    )
    time: list[float] = Field(description="Seconds since 1970.")
    values: list[float]
    superseded: list[bool] = Field(
        description="Whether the run went back behind this point later: it resumed from an older checkpoint."
    )


class RunSeries(Record):
    """GET /runs/{id}/series."""

    run_id: str
    names: list[str] = Field(description="All names that there are; empty where some were asked for.")
    series: list[Series] = Field(description="Those that were asked for, as far as there are any points.")
