"""What the curves of `newt runs plot` and of the tour are made of, and that they are drawn whatever there is."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from commands import Commands
from matplotlib.axes import Axes
from PIL import Image

from newt.cli.main import app
from newt.cli.plots import draw
from newt.errors import InvalidInputError
from newt.report import metric_names, training
from newt.report.group_names import group_names
from newt.report.records import RunRecord, save
from newt.report.training import Points, mean_curve, running_mean, spiky
from newt.runs.base import now
from newt.runs.record import EpisodeStats, Evaluation, EvaluationKind, MetricsRow, Progress, Run, RunResults, RunState
from newt.runs.spec import RunSpec

PAGE = Path(__file__).resolve().parents[3] / "services/learner/page/static/metric_names.js"


def points(*pairs: tuple[float, float]) -> Points:
    return Points(np.array([x for x, _ in pairs], float), np.array([y for _, y in pairs], float))


def pairs(curve: Points) -> list[tuple[float, float]]:
    return list(zip(curve.x.tolist(), curve.y.tolist(), strict=True))


def record(
    tasks: list[str], steps: int, *, seed: int = 0, lr: float = 1e-3, at: str = "r", name: str = ""
) -> RunRecord:
    """A run whose trainer went back once, from update 30 to 20, if it came that far."""
    spec = RunSpec.model_validate({"tasks": tasks, "preset": "laptop", "seed": seed, "train": {"lr": lr}, "name": name})
    names = [task.name for task in spec.task_list()]
    run = Run(
        id=at,
        state=RunState.SUCCEEDED,
        attempt=1,
        spec=spec,
        tasks=names,
        created_at=now(),
        progress=Progress(total_pretrain_updates=10, updates=steps),
        directory="/r",
    )
    kinds: list[EvaluationKind] = ["random", "pretrained", "periodic", "final"][: steps + 1]
    stats = EpisodeStats(score=1.0, corrected_score=1.0, return_=1.0, length=1, episodes=1)
    evaluations = [
        Evaluation(kind=kind, mode="planner", env_steps=0, tasks=dict.fromkeys(names, stats)) for kind in kinds
    ]
    updates = [*range(min(steps, 30)), *range(20, steps)]
    rows = [
        MetricsRow(id=f"{place}", time=now(), source=source, env_steps=place, updates=update, values=values)
        for place, update in enumerate(updates)
        for source, values in (
            ("trainer", {"total_loss": 1e4 / (1 + place) ** 3, "policy_loss": -(10.0**update), "unheard_of": 0.0}),
            ("collector", {f"score/{names[0]}": 0.5}),
        )
    ]
    return RunRecord(run=run, results=RunResults.build(run.id, run.state, run.tasks, evaluations, {}), metrics=rows)


def test_a_line_is_the_mean_of_the_last_five_episodes() -> None:
    scores = [1.0, 0.0, 0.0, 1.0, 0.5, 0.0, 1.0]
    line = running_mean(points(*((10 * i, score) for i, score in enumerate(scores))))
    assert line.x.tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert line.y.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4, 2.5 / 5, 1.5 / 5, 2.5 / 5])


def test_the_mean_begins_when_every_task_has_a_score() -> None:
    assert pairs(mean_curve([points((1, 0.0), (4, 1.0)), points((3, 0.5))])) == [(3, 0.25), (4, 0.75)]
    assert pairs(mean_curve([points((1, 0.0)), points()])) == []


def test_a_spike_makes_an_axis_logarithmic_and_a_trend_does_not() -> None:
    assert spiky(np.array([500.0] + [2.0] * 50))
    assert spiky(np.array([-300.0, 1.0, -1.0, 0.5]))
    assert not spiky(np.array([5.0 * 0.98**i for i in range(100)]))
    assert not spiky(np.array([]))
    assert not spiky(np.zeros(2))


@pytest.mark.parametrize(
    ("tasks", "steps"), [(["mujoco-reacher"], 0), (["mw-reach", "mujoco-reacher", "mw-push"], 1), (["mujoco-*"], 40)]
)
def test_a_run_of_any_length_is_drawn(tmp_path: Path, tasks: list[str], steps: int) -> None:
    files = draw([record(tasks, steps)], tmp_path)
    assert {path.name for path in files} == {
        f"{stem}.{kind}" for stem in ("scores", *(["losses"] if steps else [])) for kind in ("png", "svg", "csv")
    }
    assert Image.open(tmp_path / "scores.png").size[0] > 1900
    assert "run r, seed 0, 20" in (tmp_path / "scores.svg").read_text()


def test_what_a_run_went_back_behind_is_not_drawn() -> None:
    (group,) = training.groups_of([record(["mujoco-reacher"], 40)])
    told = group.runs[0].metric("total_loss")
    assert told.x.tolist() == list(range(40))
    assert told.y[20] == 1e4 / 31**3  # as it was told the second time


def test_groups_of_one_name_say_what_is_different() -> None:
    specs = [
        RunSpec.model_validate({"tasks": tasks, "preset": "laptop", "name": name, "labels": labels, "train": train})
        for name, tasks, train, labels in (
            ("a", ["mw-push"], {"lr": 1e-3}, {}),
            ("b", ["mw-push"], {"lr": 1e-3}, {}),
            ("a", ["mw-push"], {"lr": 3e-3}, {}),
            ("a", ["mw-reach"], {"lr": 3e-3}, {}),
            ("c", ["metaworld"], {}, {"variant": "v"}),
            ("d", ["metaworld", "mujoco-ant"], {}, {"variant": "v"}),
        )
    ]
    assert group_names(specs) == [
        "a, tasks mw-push, lr 0.001",
        "b",
        "a, tasks mw-push, lr 0.003",
        "a, tasks mw-reach, lr 0.003",
        "v, tasks metaworld",
        "v, tasks metaworld mujoco-ant",
    ]


def test_seeds_are_a_group_and_losses_have_log_axes(tmp_path: Path) -> None:
    runs = [
        record(["mujoco-reacher"], 40, seed=seed, lr=lr, at=f"run-{seed}-{lr}", name="both")
        for lr in (1e-3, 3e-3)
        for seed in (1, 2)
    ]
    groups = training.groups_of(runs)
    assert [group.title for group in groups] == ["both, lr 0.001, 2 runs", "both, lr 0.003, 2 runs"]
    drawn = training.losses(groups, "losses", "Losses")
    assert drawn.figure is not None
    panels: dict[str, Axes] = {panel.get_title(): panel for panel in drawn.figure.axes}
    loss = panels["Model loss, all terms"]
    assert (loss.get_yscale(), loss.get_ylabel()) == ("log", "weighted sum")
    assert panels["Policy loss, all terms"].get_yscale() == "symlog"
    assert panels["unheard of"].get_yscale() == "linear"
    assert not any(panel.get_legend() for panel in panels.values())  # the one legend is off the data

    save(runs, tmp_path / "kept")
    one = tmp_path / "kept" / f"{runs[0].run.id}.run.json"
    output = ("--output", tmp_path / "plots")
    Commands(app).succeed("runs", "plot", "--from", tmp_path / "kept", *output, "--metric", "total_loss")
    with (tmp_path / "plots" / "losses.csv").open() as file:
        table = list(csv.DictReader(file))
    assert {(row["metric"], row["runs"], row["seeds"]) for row in table} == {
        ("total_loss", "both, lr 0.001, 2 runs", "2"),
        ("total_loss", "both, lr 0.003, 2 runs", "2"),
    }
    said = Commands(app).succeed("runs", "plot", runs[0].run.id, "gone", "--from", one, *output)
    assert "missing: no record of run gone" in said
    refused = Commands(app).refused(InvalidInputError, "runs", "plot", "--from", one, *output, "--metric", "los")
    assert "expected one of policy_loss, total_loss, unheard_of" in refused
    assert "name runs" in Commands(app).refused(InvalidInputError, "runs", "plot")


def test_the_page_has_the_same_names() -> None:
    trainer = re.search(r"export const TRAINER = \{(.*?)\n\};", PAGE.read_text(), re.DOTALL)
    assert trainer is not None
    theirs = re.findall(r'^  (\w+): \["(.*)", "(.*)"\]', trainer[1], re.MULTILINE)
    ours = [(name, words.title, words.unit) for name, words in metric_names.METRICS.items()]
    assert theirs == [item for item in ours if item[0] != "updates_per_s"]  # a speed, in another list there
