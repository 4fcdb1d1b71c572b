"""Columns of metrics: means over tasks, and what is behind a run that went back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

from newt.runs.record import MetricsRow
from services.learner.records.series import Columns


def columns(*rows: tuple[Literal["trainer", "collector"], int, int, dict[str, float]]) -> Columns:
    result = Columns()
    for place, (source, env_steps, updates, values) in enumerate(rows):
        time = datetime.fromtimestamp(1000 + place, UTC)
        result.add(
            MetricsRow(id=f"{place}-0", time=time, source=source, env_steps=env_steps, updates=updates, values=values)
        )
    return result


def test_the_score_is_the_mean_over_tasks_of_the_latest_of_each() -> None:
    found = columns(
        ("collector", 10, 0, {"score/a": 0.2, "return/a": 5.0}),
        ("collector", 20, 0, {"score/b": 0.6}),
        ("collector", 30, 0, {"length/a": 9.0}),
        ("collector", 40, 0, {"score/a": 0.4}),
    )
    series = found.series("score", 10, found.superseded())
    assert series is not None
    assert (series.values, series.env_steps, series.time) == ([0.2, 0.4, 0.5], [10, 20, 40], [1000.0, 1001.0, 1003.0])
    assert found.names() == ["length/a", "return", "return/a", "score", "score/a", "score/b"]
    assert found.series("score/c", 10, found.superseded()) is None
    assert series.episodes == [None] * 3  # an earlier version did not count them


def test_every_point_knows_how_many_episodes_there_were() -> None:
    found = columns(
        ("trainer", 0, 10, {"loss": 3.0}),
        ("collector", 20, 10, {"score/a": 0.2, "success/a": 1.0, "episodes": 2.0}),
        ("trainer", 20, 20, {"loss": 2.0}),
        ("collector", 40, 20, {"success/b": 0.0, "episodes": 5.0}),
        ("trainer", 40, 30, {"loss": 1.0}),
    )
    loss, success = (found.series(name, 10, found.superseded()) for name in ("loss", "success"))
    assert loss is not None
    assert loss.episodes == [None, 2, 5]
    assert success is not None
    assert (success.values, success.episodes) == ([1.0, 0.5], [2, 5])


def test_a_trainer_that_goes_back_to_a_checkpoint_supersedes_what_it_had_done_since() -> None:
    trainer = [("trainer", 100, updates, {"loss": 1.0}) for updates in (10, 20, 30, 40, 25, 35)]
    # Meanwhile the collector loses nothing, and sees the trainer's updates fall.
    collector = [("collector", steps, updates, {"score/a": 0.5}) for steps, updates in ((50, 40), (60, 25), (60, 26))]
    found = columns(*trainer, *collector)  # type: ignore[arg-type]
    loss, score = (found.series(name, 10, found.superseded()) for name in ("loss", "score"))
    assert loss is not None
    assert loss.superseded == [False, False, True, True, False, False]
    assert score is not None
    assert not any(score.superseded)


def test_a_collector_that_starts_again_supersedes_what_it_had() -> None:
    found = columns(*(("collector", steps, 0, {"score/a": 0.5}) for steps in (10, 20, 5)))
    assert list(found.superseded()) == [True, True, False]
