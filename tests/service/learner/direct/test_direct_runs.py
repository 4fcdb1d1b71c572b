"""Tiny runs of PPO and FastTD3 on real simulators, without replay and planner: their whole life."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack, processes_of, wait_until

from newt.baselines.checkpoints import load_policy
from newt.runs.spec import RunSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = ["mw-button-press", "mujoco-reacher"]
TINY: dict[str, Any] = {
    "tasks": TASKS,
    "preset": "laptop",
    "collect": {"envs_per_task": 2},
    "schedule": {"total_env_steps": 800, "checkpoint_every_updates": 30},
    "evaluation": {"episodes_per_task": 1, "videos": False},
}
PPO = {"name": "ppo", "ppo": {"hidden_dim": 32, "rollout_steps": 20, "minibatches": 4, "epochs": 2}}
FASTTD3 = {"name": "fasttd3", "fasttd3": {"actor_dim": 32, "critic_dim": 32, "batch_size": 32, "n_step": 3}}
LONG = {**TINY, "schedule": {"total_env_steps": 400_000, "checkpoint_every_updates": 30, "keep_checkpoints": 3}}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """No replay and no planner: nobody may ask them."""
    stack = LearnerStack(tmp_path_factory.mktemp("direct"), ("sim",), {"MAX_CONCURRENT_RUNS": 2})
    try:
        wait_until(
            lambda: set(stack.http.get("/readyz").json()["missing"]) == {"planner", "replay"}, "the rest is there"
        )
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module", params=["ppo", "fasttd3"])
def finished(request: pytest.FixtureRequest, stack: LearnerStack) -> dict[str, Any]:
    """A run that was left alone."""
    algorithm = PPO if request.param == "ppo" else FASTTD3
    schedule = {**TINY["schedule"], "eval_every_env_steps": 500}
    run = stack.follow(stack.submit({**TINY, "algorithm": algorithm, "schedule": schedule}), lambda run: False)
    assert run["state"] == "succeeded", run["error"]
    return run


def test_a_run_does_what_was_asked(stack: LearnerStack, finished: dict[str, Any]) -> None:
    progress, spec = finished["progress"], RunSpec.model_validate(finished["spec"])
    assert progress["env_steps"] == 800
    assert progress["computing"]["precision"] == "float32"
    # 200 steps of 4 instances: 10 rollouts of 20 steps; or all but the first 9, twice.
    assert progress["updates"] == progress["total_updates"] == spec.online_updates()
    assert progress["updates"] == (10 * 8 if spec.algorithm.name == "ppo" else 191 * 2)
    assert {name: task["env_steps"] for name, task in progress["tasks"].items()} == dict.fromkeys(TASKS, 400)
    assert progress["tasks"]["mw-button-press"]["episodes"] == 4  # of 100 steps
    assert all(task["last_return"] is not None for task in progress["tasks"].values())
    wait_until(lambda: not processes_of(finished["id"], "learning"), "its process has ended")


def test_its_states_metrics_and_results_are_those_of_other_runs(stack: LearnerStack, finished: dict[str, Any]) -> None:
    text = stack.http.get(f"/runs/{finished['id']}/events").text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    states = [event["data"]["state"] for event in events if event.get("kind") == "state" and event["data"]]
    assert states == ["training", "evaluating", "training", "evaluating", "succeeded"]
    rows = stack.get(f"/runs/{finished['id']}/metrics")["rows"]
    names = {name for row in rows for name in row["values"]}
    loss = "value_loss" if finished["spec"]["algorithm"]["name"] == "ppo" else "critic_loss"
    assert {loss, "updates_per_s", "env_steps_per_s", "eval_score"} <= names
    assert {f"{name}/{task}" for task in TASKS for name in ("return", "score", "eval_score")} <= names
    results = stack.get(f"/runs/{finished['id']}/results")
    assert [evaluation["kind"] for evaluation in results["evaluations"]] == ["random", "periodic", "final"]
    assert json.loads((Path(finished["directory"]) / "results.json").read_text())["tasks"] == results["tasks"]


def test_its_checkpoint_evaluates_like_its_last_evaluation(stack: LearnerStack, finished: dict[str, Any]) -> None:
    name = finished["spec"]["algorithm"]["name"]
    listed = stack.get(f"/runs/{finished['id']}/checkpoints")["checkpoints"]
    assert listed[-1]["name"] == "800"
    assert listed[-1]["score"] == stack.get(f"/runs/{finished['id']}/results")["mean_score"]["final"]
    assert all(checkpoint["broken"] is None for checkpoint in listed)
    header = load_policy(Path(finished["directory"]) / "checkpoints" / "800.safetensors").header
    assert (header.algorithm, header.tasks, header.info["env_steps"]) == (name, tuple(TASKS), 800)
    request = {"checkpoint": finished["id"], "episodes": 1, "tasks": [*TASKS, "mw-push"]}  # the last was never seen
    reply = stack.http.post("/evaluations", json=request)
    assert reply.status_code == 202, reply.text
    job_id = reply.json()["id"]
    wait_until(lambda: stack.get(f"/evaluations/{job_id}")["state"] != "running", "it is evaluated")
    job = stack.get(f"/evaluations/{job_id}")
    assert job["state"] == "succeeded", job["error"]
    assert (job["request"]["mode"], job["result"]["mode"]) == ("policy", "policy")
    assert set(job["result"]["tasks"]) == {*TASKS, "mw-push"}
    again = stack.http.post("/evaluations", json={**request, "mode": "open_loop"})
    assert again.status_code == 422, again.text
    assert "has a policy only" in again.text


def test_other_uses_of_its_checkpoint_are_refused(stack: LearnerStack, finished: dict[str, Any]) -> None:
    tuned = stack.http.post("/runs", json={"tasks": TASKS, "preset": "laptop", "init_from": finished["id"]})
    assert tuned.status_code == 409, tuned.text
    assert "only agents with a world model" in tuned.text
    demos = stack.http.post(f"/runs/{finished['id']}/demos", json={"name": "own"})
    assert demos.status_code == 409, demos.text


@pytest.mark.parametrize("algorithm", [PPO, FASTTD3], ids=["ppo", "fasttd3"])
def test_a_killed_run_goes_on_from_its_checkpoint_and_can_be_cancelled(
    stack: LearnerStack, algorithm: dict[str, Any]
) -> None:
    run_id = stack.submit({**LONG, "algorithm": algorithm, "evaluation": {"episodes_per_task": 0}})

    def checkpoints() -> list[dict[str, Any]]:
        return list(stack.get(f"/runs/{run_id}/checkpoints")["checkpoints"])

    wait_until(lambda: len(checkpoints()) >= 2, "there are checkpoints")
    stack.kill_child(run_id, "learning")
    saved = checkpoints()[-1]
    run = stack.follow(run_id, lambda run: run["progress"]["restarts"] == 1)
    run = stack.follow(run_id, lambda run: run["progress"]["env_steps"] > saved["env_steps"] + 200)
    assert run["state"] == "training", run["error"]
    assert run["progress"]["updates"] >= saved["updates"]
    log = (Path(run["directory"]) / "logs" / "learning.log").read_text()
    resumed = [json.loads(line) for line in log.splitlines() if '"resumed"' in line]
    assert [entry["checkpoint"] for entry in resumed] == [saved["name"]]
    stack.http.post(f"/runs/{run_id}/cancel")
    wait_until(lambda: not processes_of(run_id, "learning"), "its process has ended")
    last = checkpoints()[-1]
    assert last["env_steps"] > saved["env_steps"]
    assert len(checkpoints()) <= 3
    run = stack.get(f"/runs/{run_id}")
    assert (run["state"], run["progress"]["tasks"][TASKS[0]]["env_steps"] * 2) == (
        "cancelled",
        run["progress"]["env_steps"],
    )


def test_what_makes_no_sense_is_refused(stack: LearnerStack) -> None:
    for change, named in (
        ({"obs": "state+rgb"}, "obs"),
        ({"demos": {"scripted_episodes": 5}}, "demos.scripted_episodes"),
        ({"algorithm": {**PPO, "ppo": {"rollout_steps": 1}}}, "algorithm.ppo"),
        ({"algorithm": {**PPO, "ppo": {"clip": "wide"}}}, "algorithm.ppo"),
    ):
        reply = stack.http.post("/runs", json={**TINY, "algorithm": PPO, **change})
        assert reply.status_code == 422, reply.text
        assert named in reply.text
