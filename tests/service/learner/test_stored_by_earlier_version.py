"""What version 0.1.0 has stored is read, shown, played and gone on with by today's services."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from earlier_version import STORED, restore
from learner_stack import LearnerStack

from newt.client.replay import ReplayClient

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """Today's services on yesterday's data."""
    home = tmp_path_factory.mktemp("upgraded")
    stack = LearnerStack(home, ())
    restore(stack.redis.url, home / "data")
    (run_id,) = (run["id"] for run in stack.get("/runs")["runs"] if run["spec"]["name"] == "half")
    folder = home / "data" / "runs" / run_id / "checkpoints"
    folder.mkdir(parents=True)
    shutil.copy(STORED / "checkpoints" / "150.safetensors", folder)
    (evaluation,) = stack.get("/evaluations")["evaluations"]
    (home / "data" / "evaluations" / evaluation["id"]).mkdir(parents=True)
    shutil.copy(STORED / "report.json", home / "data" / "evaluations" / evaluation["id"])
    for name in ("sim", "replay", "planner"):
        stack.start(name)
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


def by_name(stack: LearnerStack) -> dict[str, dict[str, Any]]:
    return {run["spec"]["name"]: run for run in stack.get("/runs")["runs"]}


def test_runs_are_shown_as_they_were(upgraded: LearnerStack) -> None:
    runs = by_name(upgraded)
    assert {name: run["state"] for name, run in runs.items()} == {"finished": "succeeded", "half": "cancelled"}
    assert runs["finished"]["tasks"] == ["mujoco-reacher"]
    assert runs["finished"]["progress"]["updates"] == runs["finished"]["progress"]["total_updates"] > 0
    results = upgraded.get(f"/runs/{runs['finished']['id']}/results")
    assert [row["kind"] for row in results["evaluations"]] == ["random", "pretrained", "periodic", "final"]
    rows = upgraded.get(f"/runs/{runs['finished']['id']}/metrics")["rows"]
    assert {"total_loss", "score/mujoco-reacher"} <= {name for row in rows for name in row["values"]}
    assert '"succeeded"' in upgraded.http.get(f"/runs/{runs['finished']['id']}/events").text


def test_their_curves_are_drawn_and_compared(upgraded: LearnerStack) -> None:
    (run_id,) = (run["id"] for run in upgraded.get("/runs")["runs"] if run["spec"]["name"] == "finished")
    found = upgraded.get(f"/runs/{run_id}/series", name=["score", "total_loss", "eval_score"])["series"]
    assert {series["name"]: len(series["values"]) > 0 for series in found} == dict.fromkeys(
        ("score", "total_loss", "eval_score"), True
    )
    assert {episodes for series in found for episodes in series["episodes"]} == {None}  # they were not counted
    (group,) = upgraded.get("/compare", group=run_id)["groups"]
    assert group["final"]["seeds"] == 1


def test_evaluations_and_demonstrations_are_shown_as_they_were(upgraded: LearnerStack) -> None:
    (evaluation,) = upgraded.get("/evaluations")["evaluations"]
    assert (evaluation["state"], list(evaluation["result"]["tasks"])) == ("succeeded", ["mujoco-reacher"])
    assert upgraded.get(f"/evaluations/{evaluation['id']}/report")["episodes"]
    demos = upgraded.get("/demos/old-experts")
    assert demos["collection"]["state"] == "succeeded"
    with ReplayClient(upgraded.replay_address) as replay:
        episodes = list(replay.read_episodes(demo_set="old-experts"))
    assert [(episode.task, len(episode.reward), episode.obs.shape) for episode in episodes] == [
        ("mujoco-reacher", 50, (51, 11)),
        ("mujoco-reacher", 50, (51, 11)),
    ]


def test_a_checkpoint_is_evaluated(upgraded: LearnerStack) -> None:
    request = {"checkpoint": f"{by_name(upgraded)['half']['id']}/150", "episodes": 1, "mode": "policy"}
    reply = upgraded.http.post("/evaluations", json=request)
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    while job["state"] == "running":
        time.sleep(0.2)
        job = upgraded.get(f"/evaluations/{job['id']}")
    assert job["state"] == "succeeded", job["error"]


def test_a_run_goes_on_from_its_checkpoint(upgraded: LearnerStack) -> None:
    half = by_name(upgraded)["half"]
    assert upgraded.http.post(f"/runs/{half['id']}/resume").status_code == 200
    run = upgraded.follow(half["id"], lambda run: False)
    assert run["state"] == "succeeded", run["error"]
    assert run["progress"]["updates"] == run["progress"]["total_updates"]
    kinds = [row["kind"] for row in upgraded.get(f"/runs/{half['id']}/results")["evaluations"]]
    assert kinds == ["random", "pretrained", "periodic", "final"]
