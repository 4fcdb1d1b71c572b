"""A tiny experiment on a real local stack: started, killed in the middle, continued, drawn."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from experiment_files import write

from newt.cli.experiment_runner import Runner
from newt.cli.rest import Api
from newt.local import control
from newt.local.stack import StackConfig
from newt.runs.record import Run, RunList, RunState
from newt.runs.shelf import Shelf
from newt.runs.standing import Standing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[3]
TASKS = ["pygame-landing", "pygame-point-maze-var1"]
SCALES: dict[str, Any] = {
    "scales": {
        scale: {
            "description": "for this test",
            "seeds": 2,
            "run": {
                "preset": "laptop",
                "tasks": TASKS,
                "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
                "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
                "schedule": {
                    "total_env_steps": 1200,
                    "seed_env_steps": 400,
                    "updates_per_env_step": 0.02,
                    "eval_every_env_steps": 0,
                    "publish_every_s": 0.5,
                },
                "replay": {"batch_size": 16},
                "demos": {"scripted_episodes": 0},
                "evaluation": {"episodes_per_task": 1, "videos": False},
            },
        }
        for scale in ("mini", "paper")
    }
}
TINY: dict[str, Any] = {
    "shows": "Figure 0",
    "question": "Does it go on?",
    "variants": {"a": {"title": "A"}, "b": {"title": "B", "run": {"algorithm": {"planning": False}}}},
    "evaluations": {
        "policy": {"title": "policy alone", "variants": ["a"], "request": {"mode": "policy", "episodes": 1}}
    },
    "drawings": [
        {"kind": "bars", "title": "Final"},
        {"kind": "curves", "title": "Learning"},
        {"kind": "evaluations", "title": "Policy", "evaluations": ["policy"]},
        {"kind": "losses", "title": "Losses", "metrics": ["consistency_loss"]},
    ],
}


class Place:
    """A stack with a folder of experiments.

    Args:
        home: Folder of everything.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.experiments = home, write(home / "experiments", SCALES, tiny=TINY)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "newt.cli.main", *arguments, "--folder", str(self.experiments)]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NEWT_HOME": str(self.home / "stack"), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def newt(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            self.command(*arguments), env=self.environment(), capture_output=True, text=True, timeout=800
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def api(self) -> Api:
        state = control.read(self.home / "stack")
        assert state is not None
        return Api(state.rest_url)

    def standing(self) -> Standing:
        return Runner(self.api(), Shelf(self.experiments).load("mini/tiny"), [1, 2]).look()

    def runs(self) -> dict[tuple[str, int], str]:
        """Variant and seed to state; nothing is there twice."""
        cells = self.standing().cells
        assert not [run for cell in cells for run in cell.others]
        return {(cell.key.variant, cell.key.seed): cell.state for cell in cells}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("experiments")
    stack = home / "stack"
    control.up(StackConfig(home=stack, domains=("miniarcade",), fixed_ports=False, owner_pid=os.getpid()))
    try:
        yield Place(home)
    finally:
        control.down(stack)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_an_experiment_survives_its_command_and_the_learner(place: Place) -> None:
    arguments = ("experiment", "run", "mini/tiny", "--every", "0.5")
    log = (place.home / "first.log").open("w")
    first = subprocess.Popen(place.command(*arguments), env=place.environment(), stdout=log, stderr=log)
    try:
        wait_until(lambda: "succeeded" in place.runs().values() or first.poll() is not None, "one run has succeeded")
        # a second one would submit the same runs
        assert "at work already" in place.newt(*arguments, code=1)
    finally:
        first.kill()
        first.wait()
    before = place.runs()
    assert list(before) == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert "missing" in before.values()

    state = control.read(place.home / "stack")
    assert state is not None
    learner = next(service for service in state.services if service["name"] == "learner")
    second = subprocess.Popen(place.command(*arguments), env=place.environment(), stdout=log, stderr=log)
    os.kill(int(learner["pid"]), signal.SIGKILL)
    assert second.wait(800) == 0, (place.home / "first.log").read_text()
    assert set(place.runs().values()) == {"succeeded"}
    assert len(place.runs()) == 4

    # there is nothing left to do, and nothing is done
    said = place.newt(*arguments)
    assert "started" not in said
    assert "4 succeeded, 2 of 2 evaluations" in said


def test_its_report_is_drawn_from_the_records(place: Place) -> None:
    output = place.home / "report"
    said = place.newt("report", "--experiment", "mini/tiny", "--output", str(output))
    assert "missing:" not in said
    api = json.loads(place.newt("experiment", "status", "mini/tiny", "--json"))
    scores: dict[str, list[float]] = {}
    for row in rows(output / "scores.csv"):
        if row["kind"] == "final":
            scores.setdefault(row["variant"], []).append(float(row["score"]))
    assert {name: len(values) for name, values in scores.items()} == {"a": 4, "b": 4}
    for row in rows(output / "bars.csv"):
        own = scores[row["variant"]]
        assert float(row["value"]) == pytest.approx(sum(own) / len(own), rel=1e-4)
        assert (row["seeds"], row["seeds_expected"]) == ("2", "2")
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    assert [row["env_steps_of_a_task"] for row in rows(output / "curves.csv") if row["variant"] == "a"] == ["0", "600"]
    assert {row["series"] for row in rows(output / "evaluations.csv")} == {"a/policy"}
    assert all(row["value"] for row in rows(output / "evaluations.csv"))
    assert {row["runs"] for row in rows(output / "losses.csv")} == {"A", "B"}
    page = (output / "report.md").read_text()
    assert all(run["id"] in page for run in api["runs"])
    # again, without the learner
    again = place.home / "again"
    place.newt("report", "--experiment", "mini/tiny", "--from", str(output / "records"), "--output", str(again))
    assert (again / "bars.csv").read_text() == (output / "bars.csv").read_text()
    assert (again / "report.md").read_text() == page


def test_a_task_without_a_simulator_is_one_clear_line(place: Place) -> None:
    content = {**TINY, "variants": {"a": {"title": "A", "run": {"tasks": ["walker-walk"]}}, "b": TINY["variants"]["b"]}}
    write(place.home / "experiments", SCALES, other=content)
    said = place.newt("experiment", "run", "mini/other", "--seeds", "1", "--variant", "a", "--every", "0.5", code=1)
    assert "refused: mini/other a seed 1" in said
    assert "dmcontrol" in said


def test_a_cancelled_run_is_resumed_only_if_asked(place: Place) -> None:
    long = {**TINY, "run": {"schedule": {"total_env_steps": 100_000}}, "variants": {"a": TINY["variants"]["a"]}}
    del long["evaluations"]
    long["drawings"] = TINY["drawings"][:1]
    write(place.home / "experiments", SCALES, long=long)
    arguments = ("experiment", "run", "mini/long", "--seeds", "1", "--every", "0.5")
    place.newt(*arguments, "--no-follow")

    def record() -> Run:
        (run,) = RunList.model_validate(place.api().get("/runs", label="experiment=mini/long")).runs
        return run

    place.api().post(f"/runs/{record().id}/cancel")
    assert "--resume resumes" in place.newt(*arguments, code=1)
    assert record().state is RunState.CANCELLED
    place.newt(*arguments, "--no-follow", "--resume")
    assert record().state is not RunState.CANCELLED
    place.api().post(f"/runs/{record().id}/cancel")
