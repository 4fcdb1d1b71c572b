"""A tiny run of each algorithm on real services: it survives the death of its processes, and its checkpoint acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack

from newt.agent.checkpoints import load_checkpoint
from newt.agent.headers import read_header

pytestmark = pytest.mark.slow

TASKS = ["mw-button-press", "mujoco-reacher"]
PRETRAIN = 80
ONLINE = {"total_env_steps": 600, "seed_env_steps": 150, "updates_per_env_step": 0.2}
TINY: dict[str, Any] = {
    "tasks": TASKS,
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "replay": {"batch_size": 16},
    "evaluation": {"episodes_per_task": 1, "videos": False},
}
SCHEDULE = {"checkpoint_every_updates": 20, "publish_every_s": 0.5}
DEMOS_ALONE = {"demos": {"scripted_episodes": 2}, "schedule": {**SCHEDULE, "pretrain_updates": PRETRAIN}}


def run_to_the_end(stack: LearnerStack, changes: dict[str, Any], *, kill_at: int) -> dict[str, Any]:
    """Submits a run, kills its trainer after so many updates, and follows it to its end."""
    run_id = stack.submit({**TINY, **changes})

    def far_enough(run: dict[str, Any]) -> bool:
        progress = run["progress"]
        return bool(progress["pretrain_updates"] + progress["updates"] >= kill_at)

    run = stack.follow(run_id, far_enough)
    assert not run["error"]
    if run["state"] != "succeeded":  # else it was too fast for the kill
        stack.kill_child(run_id, "trainer")
    run = stack.follow(run_id, lambda run: False)
    assert run["state"] == "succeeded", run["error"]
    return run


def evaluate(stack: LearnerStack, run_id: str, **request: Any) -> dict[str, Any]:
    reply = stack.http.post(f"/runs/{run_id}/evaluate", json={"episodes": 1, **request})
    assert reply.status_code == 202, reply.text
    job: dict[str, Any] = reply.json()
    while job["state"] == "running":
        job = stack.get(f"/evaluations/{job['id']}")
    assert job["state"] == "succeeded", job["error"]
    assert set(job["result"]["tasks"]) == set(request.get("tasks", TASKS))
    return job


def kinds(stack: LearnerStack, run: dict[str, Any]) -> list[tuple[str, str]]:
    results = stack.get(f"/runs/{run['id']}/results")
    return [(evaluation["kind"], evaluation["mode"]) for evaluation in results["evaluations"]]


def newest(run: dict[str, Any]) -> Path:
    files = sorted(Path(run["directory"], "checkpoints").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    return files[-1]


def test_tdmpc2_learns_online_and_tells_tasks_apart_by_learned_vectors(stack: LearnerStack) -> None:
    run = run_to_the_end(stack, {"algorithm": {"name": "tdmpc2"}, "schedule": {**SCHEDULE, **ONLINE}}, kill_at=25)
    progress, spec = run["progress"], run["spec"]
    assert (progress["pretrain_updates"], progress["updates"]) == (0, 90)
    assert progress["env_steps"] >= 600
    assert all(task["demo_episodes"] == 0 for task in progress["tasks"].values())
    assert (spec["train"]["bc_coef"], spec["plan"]["constrained"], spec["algorithm"]["language"]) == (0, False, False)
    assert kinds(stack, run) == [("random", "random"), ("final", "planner")]
    checkpoint = load_checkpoint(newest(run))
    embeddings = checkpoint.model().task_embeddings.detach()
    assert (embeddings.shape, checkpoint.model_config.learned_embeddings) == ((2, 96), True)
    assert float(embeddings.norm(dim=-1).max()) <= 1 + 1e-6
    assert not bool((embeddings[0] == embeddings[1]).any())

    assert evaluate(stack, run["id"], tasks=["mujoco-reacher"])["request"]["mode"] == "planner"
    reply = stack.http.post(f"/runs/{run['id']}/evaluate", json={"tasks": ["walker-walk"]})
    assert reply.status_code == 409
    assert "has none for walker-walk" in reply.json()["message"]
    again = stack.http.post("/runs", json={**TINY, "tasks": ["walker-walk"], "init_from": run["id"]})
    assert (again.status_code, "has none for walker-walk" in again.json()["message"]) == (409, True)


def test_model_based_pretraining_ends_before_the_first_step_and_acts_by_the_policy(stack: LearnerStack) -> None:
    run = run_to_the_end(stack, {"algorithm": {"name": "model-based-pretraining"}, **DEMOS_ALONE}, kill_at=30)
    progress = run["progress"]
    assert (progress["pretrain_updates"], progress["updates"], progress["env_steps"]) == (PRETRAIN, 0, 0)
    assert (progress["total_updates"], progress["total_env_steps"]) == (0, 0)
    assert kinds(stack, run) == [("random", "random"), ("final", "policy")]
    assert not read_header(newest(run)).model_config.policy_only
    assert evaluate(stack, run["id"])["request"]["mode"] == "policy"
    assert evaluate(stack, run["id"], mode="planner", tasks=["mujoco-reacher"])["request"]["mode"] == "planner"


@pytest.mark.parametrize("tasks", [TASKS, ["mujoco-reacher"]], ids=["multitask", "single-task"])
def test_cloning_has_an_encoder_and_a_policy_alone(stack: LearnerStack, tasks: list[str]) -> None:
    several = len(tasks) > 1
    algorithm = {"name": "bc", "language": several}
    run = run_to_the_end(stack, {"tasks": tasks, "algorithm": algorithm, **DEMOS_ALONE}, kill_at=30)
    progress = run["progress"]
    assert (progress["pretrain_updates"], progress["updates"], progress["env_steps"]) == (PRETRAIN, 0, 0)
    assert all(task["demo_episodes"] >= 2 for task in progress["tasks"].values())
    assert set(progress["losses"]) >= {"bc", "total_loss", "grad_norm"}
    assert "value_loss" not in progress["losses"]
    assert kinds(stack, run) == [("random", "random"), ("final", "policy")]

    checkpoint = load_checkpoint(newest(run))
    config = checkpoint.model_config
    assert (config.policy_only, config.language_dim) == (True, 512 if several else 0)
    networks = {name.split(".")[1] for name in checkpoint.state if name.startswith("model.")}
    assert networks == {"encoder", "policy_head"}
    assert int(checkpoint.state["updates"]) == PRETRAIN

    assert evaluate(stack, run["id"], tasks=tasks)["request"]["mode"] == "policy"
    for mode in ("planner", "open_loop"):
        reply = stack.http.post(f"/runs/{run['id']}/evaluate", json={"mode": mode})
        assert (reply.status_code, reply.json()["fields"][0]["field"]) == (422, "mode")
    reply = stack.http.post("/runs", json={**TINY, "tasks": tasks, "init_from": run["id"]})
    assert (reply.status_code, "no world model" in reply.json()["message"]) == (409, True)
