"""What `newt eval` prints and refuses."""

from __future__ import annotations

import math

import pytest
from commands import Commands
from rich.console import Console

from newt.cli.evaluations import scores_table
from newt.cli.main import app
from newt.errors import InvalidInputError
from newt.runs.base import now
from newt.runs.evaluations import CheckpointEvaluationRequest, EvaluationJob
from newt.runs.record import EpisodeStats, Evaluation
from newt.tasks.registry import all_tasks


def printed(*stats: EpisodeStats, weight: float | None = None) -> list[list[str]]:
    request = CheckpointEvaluationRequest(checkpoint="run-1/0", constraint_weight=weight)
    job = EvaluationJob(
        id="e", run_id="run-1", state="succeeded", request=request, checkpoint_sha256="", created_at=now()
    )
    tasks = {f"task-{number}": each for number, each in enumerate(stats)}
    console = Console(width=100, force_terminal=False)
    with console.capture() as capture:
        console.print(scores_table(job, Evaluation(kind="requested", mode="planner", env_steps=0, tasks=tasks)))
    return [line.replace("│", " ").split() for line in capture.get().splitlines()]


def stats(score: float, std: float | None, episodes: int) -> EpisodeStats:
    return EpisodeStats(score=score, score_std=std, return_=1.0, length=5, episodes=episodes)


def row(lines: list[list[str]], name: str) -> list[str]:
    return next(line for line in lines if line and line[0] == name)


def test_a_row_has_mean_interval_and_episodes() -> None:
    lines = printed(stats(0.6, math.sqrt(0.3), 5), stats(0.5, 0.0, 5))
    assert row(lines, "task-0")[:3] == ["task-0", "0.600", "0.680"]
    assert "5" in row(lines, "task-0")
    assert row(lines, "task-1")[:3] == ["task-1", "0.500", "0.000"]
    assert row(lines, "mean") == ["mean", "0.550", "0.340"]
    assert "as trained" in " ".join(lines[0])


def test_a_record_of_before_is_shown_without_an_interval() -> None:
    old = EpisodeStats.model_validate({"score": 0.7, "return": 3.0, "length": 5, "episodes": 10})
    lines = printed(old, stats(0.5, 0.1, 5), weight=0.0)
    assert row(lines, "task-0")[:3] == ["task-0", "0.700", "-"]
    assert row(lines, "mean") == ["mean", "0.600", "-"]
    assert "constraint weight 0" in " ".join(lines[0])


def test_a_changed_instruction_is_marked_and_cuts_no_figure() -> None:
    name = max((task.name for task in all_tasks()), key=len)
    request = CheckpointEvaluationRequest(checkpoint="run-1/0", instructions={name: "Stand still.", "another": "Run."})
    job = EvaluationJob(
        id="e", run_id="run-1", state="succeeded", request=request, checkpoint_sha256="", created_at=now()
    )
    result = Evaluation(kind="requested", mode="planner", env_steps=0, tasks={name: stats(0.6, 0.5, 100)})
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(scores_table(job, result))
    (line,) = (line for line in capture.get().splitlines() if name in line)
    assert line.replace("│", " ").split()[:4] == [name, "*", "0.600", "0.099"]
    assert "* told otherwise" in capture.get()


@pytest.mark.parametrize("weight", ["0.5", "1"])
def test_two_wishes_at_once_are_refused(weight: str) -> None:
    refused = Commands(app).refused(
        InvalidInputError, "eval", "run-1", "--unconstrained", "--constraint-weight", weight
    )
    assert "--unconstrained" in refused
