"""What the lines of the tour's plots are made of."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from newt.cli.plots import loss_curves, mean_curve, running_mean, score_curves, spiky
from newt.runs.base import now
from newt.runs.record import EpisodeStats, Evaluation, EvaluationKind, MetricsRow, Progress, Run, RunState
from newt.runs.spec import RunSpec


def test_a_line_is_the_mean_of_the_last_five_episodes() -> None:
    scores = [1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 1.0]
    line = running_mean([(10 * i, score) for i, score in enumerate(scores)])
    assert [x for x, _ in line] == [0, 10, 20, 30, 40, 50, 60]
    assert [y for _, y in line] == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4, 2.5 / 5, 1.5 / 5, 2.5 / 5])


def test_the_mean_begins_when_every_task_has_a_score() -> None:
    assert mean_curve([[(1, 0.0), (4, 1.0)], [(3, 0.5)]]) == [(3, 0.25), (4, 0.75)]
    assert mean_curve([[(1, 0.0)], []]) == []


def test_a_spike_makes_an_axis_logarithmic_and_a_trend_does_not() -> None:
    assert spiky([500.0] + [2.0] * 50)
    assert spiky([-300.0, 1.0, -1.0, 0.5])
    assert not spiky([5.0 * 0.98**i for i in range(100)])
    assert not spiky([])
    assert not spiky([0.0, 0.0])


@pytest.mark.parametrize(
    ("tasks", "steps"), [(["mujoco-reacher"], 0), (["mw-reach", "mujoco-reacher", "mw-push"], 1), (["mujoco-*"], 40)]
)
def test_a_run_of_any_length_is_drawn(tmp_path: Path, tasks: list[str], steps: int) -> None:
    spec = RunSpec.model_validate({"tasks": tasks, "preset": "laptop"})
    names = [task.name for task in spec.task_list()]
    record = Run(
        id="r",
        state=RunState.SUCCEEDED,
        attempt=1,
        spec=spec,
        tasks=names,
        created_at=now(),
        progress=Progress(total_pretrain_updates=10),
        directory="/r",
    )
    kinds: list[EvaluationKind] = ["random", "pretrained", "periodic", "final"][: steps + 1]
    stats = EpisodeStats(score=1.0, corrected_score=1.0, return_=1.0, length=1, episodes=1)
    evaluations = [
        Evaluation(kind=kind, mode="planner", env_steps=0, tasks=dict.fromkeys(names, stats)) for kind in kinds
    ]
    rows = [
        MetricsRow(id=f"{step}", time=now(), source=source, env_steps=step, updates=step, values=values)
        for step in range(steps)
        for source, values in (
            ("trainer", {"total_loss": 1e4 / (1 + step) ** 3, "policy_loss": -(10.0**step), "unheard_of": 0.0}),
            ("collector", {f"score/{names[0]}": 0.5}),
        )
    ]
    score_curves(tmp_path / "scores.png", record, rows, evaluations)
    loss_curves(tmp_path / "losses.png", record, rows)
    assert Image.open(tmp_path / "scores.png").size[0] == 1760
    assert (tmp_path / "losses.png").exists() == (steps > 0)
