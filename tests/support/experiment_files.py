"""A folder with a small experiment, and records of its runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from newt.runs.expansion import PlannedRun
from newt.runs.record import EpisodeStats, Evaluation, Progress, Run, RunResults, RunState

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
TASKS = ["pygame-cowboy", "pygame-landing"]

SCALES: dict[str, Any] = {
    "scales": {
        scale: {
            "description": "for tests",
            "seeds": 2,
            "run": {
                "preset": "laptop",
                "tasks": TASKS,
                "schedule": {"total_env_steps": 4000, "eval_every_env_steps": 1000},
                "demos": {"scripted_episodes": 0},
            },
        }
        for scale in ("mini", "paper")
    }
}
TINY: dict[str, Any] = {
    "shows": "Figure 0",
    "question": "Does it work?",
    "variants": {"a": {"title": "Variant A"}, "b": {"title": "Variant B", "run": {"train": {"lr": 0.002}}}},
    "drawings": [{"kind": "bars", "title": "Final"}, {"kind": "curves", "title": "Learning"}],
}


def write(folder: Path, scales: dict[str, Any] | None = None, **files: Any) -> Path:
    """Writes scales.yaml and an experiment for each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"scales": scales or SCALES, **files}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def record(planned: PlannedRun, state: RunState = RunState.SUCCEEDED, number: int = 0, **changes: Any) -> Run:
    """The record of a planned run, an hour long."""
    request = planned.request()
    spec = type(planned.spec).model_validate_json(json.dumps({**request, **changes}))
    begun = NOON + timedelta(hours=number)
    return Run(
        id=f"20261129-{number:06d}",
        state=state,
        attempt=1,
        spec=spec,
        tasks=[task.name for task in spec.task_list()],
        created_at=begun,
        started_at=begun,
        finished_at=begun + timedelta(hours=1) if state.finished else None,
        progress=Progress(),
        directory="/data",
    )


def stats(score: float) -> EpisodeStats:
    """What an evaluation has of a task."""
    return EpisodeStats.model_validate(
        {"score": score, "corrected_score": score, "return": 100 * score, "length": 10, "episodes": 2}
    )


def results(run: Run, scores: dict[str, list[float]]) -> RunResults:
    """Results of a run whose evaluations are random, pretrained or periodic, and final.

    Args:
        run: Its record.
        scores: Task to its score in each evaluation, evenly spaced over the run's env steps.
    """
    count = len(next(iter(scores.values())))
    total = run.spec.schedule.total_env_steps
    evaluations = [
        Evaluation(
            kind="random" if i == 0 else "final" if i == count - 1 else "periodic",
            mode="planner",
            env_steps=round(total * i / (count - 1)),
            tasks={task: stats(values[i]) for task, values in scores.items()},
        )
        for i in range(count)
    ]
    return RunResults.build(run.id, run.state, run.tasks, evaluations, {})
