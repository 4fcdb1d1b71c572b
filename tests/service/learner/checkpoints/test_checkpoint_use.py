"""Checkpoints that were brought in: evaluated in every way, fine-tuned on an unseen task, deleted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from learner_stack import LearnerStack, wait_until
from tiny_agents import PLAN, SIZES, write_agent

from newt.agent.checkpoints import load_checkpoint
from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from newt.errors import NotFoundError
from newt.local import ports
from newt.tasks.registry import get_task
from newt.wire.episodes import Behaviour

pytestmark = pytest.mark.slow

SEEN, UNSEEN = "mujoco-reacher", "mujoco-inverted-pendulum"
PUSH = 1.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnerStack]:
    """A stack whose planner tells how much it was asked, with two imported agents."""
    home = tmp_path_factory.mktemp("lab")
    stack = LearnerStack(home, (), {"DEPENDENCY_TIMEOUT_S": 4})
    stack.settings["planner"]["METRICS_PORT"] = ports.free_port()
    stack.settings["planner"]["PRECISION"] = "float32"
    for name in ("sim", "replay", "planner"):
        stack.start(name)
    try:
        stack.wait_ready()
        write_agent(home / "free", [SEEN])
        write_agent(home / "pushy", [SEEN], push=PUSH)
        # 400 of 1,000 env steps: 0.6 of the policy, in one of two tasks.
        plan = {**PLAN, "constraint_start": 0, "constraint_duration": 1_000}
        trained = {"env_steps": 400, "guided_tasks": [SEEN], "spec": {"plan": plan}}
        write_agent(home / "trained", [SEEN, UNSEEN], push=PUSH, trained=trained)
        for name in ("free", "pushy", "trained"):
            reply = stack.http.put(f"/checkpoints/{name}", content=(home / name).read_bytes())
            assert reply.status_code == 201, reply.text
        yield stack
    finally:
        stack.stop()


def evaluate(stack: LearnerStack, **request: Any) -> dict[str, Any]:
    """The finished evaluation."""
    reply = stack.http.post("/evaluations", json={"checkpoint": "imported/free", "episodes": 2, **request})
    assert reply.status_code == 202, reply.text
    return wait(stack, reply.json()["id"])


def wait(stack: LearnerStack, job_id: str, timeout_s: float = 300) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while (job := stack.get(f"/evaluations/{job_id}"))["state"] == "running":
        assert time.monotonic() < deadline, job
        time.sleep(0.1)
    return dict(job)


def succeeded(job: dict[str, Any]) -> dict[str, Any]:
    assert job["state"] == "succeeded", job["error"]
    return dict(job["result"])


def planner_requests(stack: LearnerStack) -> float:
    text = httpx.get(f"http://127.0.0.1:{stack.settings['planner']['METRICS_PORT']}/metrics", timeout=10).text
    return float(next(line for line in text.splitlines() if line.startswith("newt_planner_requests_total")).split()[1])


def test_imported_checkpoints_are_listed(lab: LearnerStack) -> None:
    listed = {item["name"]: item for item in lab.get("/checkpoints")["checkpoints"]}
    assert set(listed) == {"free", "pushy", "trained"}
    assert listed["free"]["tasks"] == [SEEN]
    assert listed["free"]["text_encoder"].startswith("minilm-l6-v2@")
    taken = lab.http.put("/checkpoints/free", content=(lab.home / "pushy").read_bytes())
    assert (taken.status_code, taken.json()["error"]) == (409, "AlreadyExists")
    foreign = lab.http.put("/checkpoints/foreign", content=b"PK\3\4 something else")
    assert (foreign.status_code, foreign.json()["fields"][0]["field"]) == (422, "file")
    assert "newt checkpoints import" in foreign.json()["message"]


def test_an_agent_is_evaluated_on_a_task_that_it_never_saw(lab: LearnerStack) -> None:
    before = planner_requests(lab)
    job = evaluate(lab, tasks=[UNSEEN, SEEN], mode="policy", seed=7)
    result = succeeded(job)
    assert (result["mode"], result["checkpoint"], job["request"]["seed"]) == ("policy", "imported/free", 7)
    assert {name: stats["episodes"] for name, stats in result["tasks"].items()} == {UNSEEN: 2, SEEN: 2}
    longest = max(get_task(name).episode_length for name in (SEEN, UNSEEN))
    assert planner_requests(lab) - before >= longest  # with feedback: asked at every step
    report = lab.get(f"/evaluations/{job['id']}/report")
    assert [episode["task"] for episode in report["episodes"]] == [UNSEEN, UNSEEN, SEEN, SEEN]
    assert len({episode["seed"] for episode in report["episodes"]}) == 4
    returns = [episode["return"] for episode in report["episodes"][:2]]
    assert result["tasks"][UNSEEN]["return"] == pytest.approx(np.mean(returns))
    assert report["instructions"] == {name: get_task(name).instruction for name in (UNSEEN, SEEN)}
    assert report["plan"]["num_samples"] == PLAN["num_samples"]
    again = succeeded(evaluate(lab, tasks=[UNSEEN, SEEN], mode="policy", seed=7))
    for name in (UNSEEN, SEEN):  # equal up to the company that rows ride in
        assert again["tasks"][name]["return"] == pytest.approx(result["tasks"][name]["return"], rel=1e-3)


def test_an_open_loop_is_one_plan_and_nothing_else(lab: LearnerStack) -> None:
    steps, episodes = 24, 3
    before = planner_requests(lab)
    job = evaluate(lab, tasks=[SEEN], mode="open_loop", plan_steps=steps, episodes=episodes)
    asked = planner_requests(lab) - before
    result = succeeded(job)
    # One request for all plans of the open loop; the closed loop beside it asks at each of its steps.
    assert asked == 1 + steps
    stats = result["open_loop"][SEEN]
    assert (stats["plan_steps"], stats["episodes"]) == (steps, episodes)
    assert [point["steps"] for point in stats["points"]] == [8, 16, 24]
    end = stats["points"][-1]
    assert end["open_return"] == pytest.approx(result["tasks"][SEEN]["return"])
    assert result["tasks"][SEEN]["length"] == steps
    played = lab.get(f"/evaluations/{job['id']}/report")["episodes"]
    seeds = {mode: [e["seed"] for e in played if e["mode"] == mode] for mode in ("open_loop", "planner")}
    assert len(seeds["open_loop"]) == episodes
    assert seeds["open_loop"] == seeds["planner"]
    closed = [episode["return"] for episode in played if episode["mode"] == "planner"]
    assert end["closed_return"] == pytest.approx(np.mean(closed))
    assert end["closed_return"] < 0  # reaching costs, so there is nothing to be a share of
    assert end["fraction"] is None


def test_an_open_loop_of_a_rewarding_task_has_shares(lab: LearnerStack) -> None:
    result = succeeded(evaluate(lab, tasks=["cartpole-balance"], mode="open_loop", plan_steps=12))
    for point in result["open_loop"]["cartpole-balance"]["points"]:
        assert point["closed_return"] > 0
        assert point["fraction"] == pytest.approx(point["open_return"] / point["closed_return"])


def test_a_changed_instruction_changes_what_the_agent_does(lab: LearnerStack) -> None:
    def result(**instructions: str) -> dict[str, Any]:
        return dict(succeeded(evaluate(lab, tasks=[SEEN], mode="policy", instructions=instructions))["tasks"])

    original, repeated = result(), result(**{SEEN: get_task(SEEN).instruction})
    changed = result(**{SEEN: "A walking robot. Jump as high as you can."})
    assert repeated[SEEN]["return"] == pytest.approx(original[SEEN]["return"], rel=1e-4)
    assert changed[SEEN]["return"] != pytest.approx(original[SEEN]["return"], rel=1e-2)


def test_an_agent_acts_as_it_was_trained_to_unless_told_otherwise(lab: LearnerStack) -> None:
    def play(**request: Any) -> tuple[dict[str, float], dict[str, Any]]:
        job = evaluate(lab, checkpoint="imported/trained", tasks=[SEEN, UNSEEN], **request)
        returns = {name: stats["return"] for name, stats in succeeded(job)["tasks"].items()}
        return returns, dict(lab.get(f"/evaluations/{job['id']}/report"))

    (as_trained, report), (free, unconstrained) = play(), play(constraint_weight=0)
    explicit, told = play(constraint_weight=0.6)
    assert report["constraint_weights"] == pytest.approx({SEEN: 0.6, UNSEEN: 0})
    assert unconstrained["constraint_weights"] == {SEEN: 0, UNSEEN: 0}
    assert told["constraint_weights"] == pytest.approx({SEEN: 0.6, UNSEEN: 0.6})
    assert as_trained[SEEN] == pytest.approx(explicit[SEEN], rel=1e-3)
    assert as_trained[SEEN] != pytest.approx(free[SEEN], rel=1e-2)
    assert as_trained[UNSEEN] == pytest.approx(free[UNSEEN], rel=1e-3)


@pytest.mark.parametrize(
    ("request_body", "status", "words"),
    [
        ({"checkpoint": "imported/none"}, 404, "there are: free, pushy, trained"),
        ({"checkpoint": "no-such-run"}, 404, "no run 'no-such-run'"),
        ({"checkpoint": "../etc"}, 422, "RUN/NAME"),
        ({"tasks": ["walker-wlak"]}, 422, "walker-walk"),
        ({"tasks": ["atari-pong"]}, 422, "no simulator"),
        ({"mode": "open_loop", "plan_steps": 49}, 422, "plan_steps"),
        ({"instructions": {UNSEEN: "Balance."}}, 422, "not among the tasks"),
        ({"instructions": {SEEN: " "}}, 422, "blank"),
        ({"mode": "closed"}, 422, "open_loop"),
        ({"constraint_weight": 1.5}, 422, "constraint_weight"),
    ],
)
def test_nonsense_is_refused(lab: LearnerStack, request_body: dict[str, Any], status: int, words: str) -> None:
    reply = lab.http.post("/evaluations", json={"checkpoint": "imported/free", **request_body})
    assert reply.status_code == status
    assert words in reply.json()["message"]


def test_a_text_that_is_too_long_ends_the_evaluation_with_the_reason(lab: LearnerStack) -> None:
    job = evaluate(lab, tasks=[SEEN], instructions={SEEN: "reach " * 600})
    assert job["state"] == "failed"
    assert "tokens" in job["error"]


def fine_tuning(**changes: Any) -> dict[str, Any]:
    return {
        "tasks": [UNSEEN],
        "init_from": "imported/pushy",
        "preset": "laptop",
        "plan": PLAN,
        "schedule": {
            "total_env_steps": 600,
            "seed_env_steps": 300,
            "updates_per_env_step": 0.05,
            "checkpoint_every_updates": 1000,
            "publish_every_s": 0.5,
        },
        "replay": {"batch_size": 16},
        "evaluation": {"episodes_per_task": 1, "videos": False},
        **changes,
    }


@pytest.fixture(scope="module")
def tuned(lab: LearnerStack) -> dict[str, Any]:
    """A run that fine-tuned an imported checkpoint on an unseen task."""
    run = lab.follow(lab.submit(fine_tuning()), lambda run: False, timeout_s=400)
    assert run["state"] == "succeeded", run["error"]
    return run


def test_fine_tuning_starts_from_the_very_weights(lab: LearnerStack, tuned: dict[str, Any]) -> None:
    spec = tuned["spec"]
    assert spec["init_from"] == "imported/pushy"
    assert {name: spec["model"][name] for name in SIZES} == SIZES
    assert spec["algorithm"]["text_encoder"] == "minilm-l6-v2"
    assert tuned["progress"]["total_pretrain_updates"] == 0
    folder = Path(tuned["directory"]) / "checkpoints"
    source, first = load_checkpoint(lab.home / "pushy"), load_checkpoint(folder / "0.safetensors")
    weights = [name for name in source.state if name.startswith("model.")]
    assert len(weights) > 50
    assert all(torch.equal(first.state[name], source.state[name]) for name in weights)
    assert first.updater().updates == 0
    assert not any(name.endswith(".exp_avg") for name in first.state)  # no moments: fresh optimisers
    # The table is the new task's, in the old language.
    assert first.table.names == (UNSEEN,)
    assert first.table.action_dims.tolist() == [1]
    assert first.info["text_encoder"] == source.info["text_encoder"]
    assert not torch.equal(first.table.embeddings[0], source.table.embeddings[0])
    newest = lab.get(f"/runs/{tuned['id']}/checkpoints")["checkpoints"][-1]
    last = load_checkpoint(folder / f"{newest['name']}.safetensors")
    assert last.updater().updates == tuned["progress"]["total_updates"] > 0
    assert not torch.equal(last.state["model.encoder.layers.0.weight"], source.state["model.encoder.layers.0.weight"])


def test_a_fine_tuned_policy_acts_from_the_first_step(lab: LearnerStack, tuned: dict[str, Any]) -> None:
    with ReplayClient(lab.replay_address) as replay:
        episodes = list(replay.read_episodes(buffer_id=tuned["id"]))
        counters = replay.get_buffer(tuned["id"])
    assert sum(task.demo_episodes for task in counters.tasks) == 0
    first = episodes[0]
    assert first.behaviour == Behaviour.POLICY
    np.testing.assert_allclose(first.action[:, :1], np.tanh(PUSH), atol=1e-3)
    assert all(episode.behaviour != Behaviour.RANDOM for episode in episodes)
    assert episodes[-1].behaviour == Behaviour.PLANNER
    kinds = [(e["kind"], e["mode"]) for e in lab.get(f"/runs/{tuned['id']}/results")["evaluations"]]
    assert ("pretrained", "planner") in kinds  # zero-shot, before any update


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"init_from": "imported/none"}, 404, "init_from: no imported checkpoint"),
        ({"init_from": "no-such-run/0"}, 404, "init_from: no run"),
        ({"model": {"size": "L"}}, 422, "which the run keeps"),
        ({"model": {"mlp_dim": 64}}, 422, "model.mlp_dim: got 64"),
        ({"algorithm": {"language": False}}, 422, "algorithm.language"),
        ({"algorithm": {"text_encoder": "clip-vit-b32"}}, 422, "algorithm.text_encoder"),
    ],
)
def test_impossible_fine_tuning_is_refused(lab: LearnerStack, changes: dict[str, Any], status: int, words: str) -> None:
    reply = lab.http.post("/runs", json=fine_tuning(**changes))
    assert reply.status_code == status, reply.text
    assert words in reply.json()["message"]


def test_an_agent_that_needs_images_needs_their_encoder(lab: LearnerStack, tmp_path: Path) -> None:
    write_agent(tmp_path / "seeing", [SEEN], image_dim=8)
    lab.http.put("/checkpoints/seeing", content=(tmp_path / "seeing").read_bytes())
    for changes, words in (
        ({}, "vision: feature_dim 768 times frames 1 must be the 8 columns"),
        ({"obs": "state"}, "obs: got state"),
    ):
        reply = lab.http.post("/runs", json=fine_tuning(init_from="imported/seeing", **changes))
        assert (reply.status_code, words in reply.json()["message"]) == (422, True), reply.text
    reply = lab.http.post("/evaluations", json={"checkpoint": "imported/seeing"})
    assert reply.status_code == 202, reply.text
    job_id = reply.json()["id"]
    wait_until(lambda: lab.get(f"/evaluations/{job_id}")["state"] == "failed", "the evaluation ends", 120)
    assert "NEWT_LEARNER_IMAGE_ENCODER" in lab.get(f"/evaluations/{job_id}")["error"]
    assert lab.http.delete("/checkpoints/seeing").status_code == 204
    assert lab.http.delete("/checkpoints/seeing").status_code == 404


def test_a_lost_planner_ends_an_evaluation_with_the_reason(lab: LearnerStack) -> None:
    reply = lab.http.post("/evaluations", json={"checkpoint": "imported/free", "tasks": ["walker-walk"], "episodes": 8})
    job_id = reply.json()["id"]
    wait_until(lambda: lab.get(f"/evaluations/{job_id}")["progress"] > 0, "the evaluation plays", 300)
    lab.kill("planner")
    job = wait(lab, job_id)
    lab.start("planner")
    lab.wait_ready()
    assert job["state"] == "failed"
    assert "planner at" in job["error"]
    assert "did not" in job["error"]


def test_an_evaluation_outlives_the_learner(lab: LearnerStack) -> None:
    task = "walker-walk"
    request = {"tasks": [task], "mode": "policy", "episodes": 16, "seed": 3}
    expected = succeeded(evaluate(lab, **request))
    job_id = lab.http.post("/evaluations", json={"checkpoint": "imported/free", **request}).json()["id"]
    wait_until(lambda: lab.get(f"/evaluations/{job_id}")["progress"] > 0, "the evaluation plays", 300)
    lab.restart_learner()
    job = wait(lab, job_id)
    assert job["attempt"] == 2
    assert succeeded(job)["tasks"][task]["return"] == pytest.approx(expected["tasks"][task]["return"], rel=1e-3)
    with PlannerClient(f"127.0.0.1:{lab.ports['planner']}") as planner:
        wait_until(lambda: planner.models(timeout_s=5) == [], "its model leaves the planner", 20)


def test_a_finished_run_can_be_deleted(lab: LearnerStack, tuned: dict[str, Any]) -> None:
    run_id = tuned["id"]
    job = wait(lab, lab.http.post(f"/runs/{run_id}/evaluate", json={"mode": "policy", "episodes": 1}).json()["id"])
    assert job["request"]["checkpoint"].startswith(f"{run_id}/")
    child = lab.submit(fine_tuning(init_from=f"{run_id}/0"))
    refused = lab.http.delete(f"/runs/{child}")
    assert (refused.status_code, child in refused.json()["message"]) == (409, True)
    assert lab.http.delete(f"/runs/{run_id}").status_code == 204
    assert lab.http.get(f"/runs/{run_id}").status_code == 404
    assert lab.http.delete(f"/runs/{run_id}").status_code == 404
    assert run_id not in [run["id"] for run in lab.get("/runs")["runs"]]
    assert lab.http.get(f"/evaluations/{job['id']}").status_code == 404
    assert not Path(tuned["directory"]).exists()
    with ReplayClient(lab.replay_address) as replay, pytest.raises(NotFoundError, match=run_id):
        replay.get_buffer(run_id)
    # The run that was started from its checkpoint has a copy.
    run = lab.follow(child, lambda run: False, timeout_s=400)
    assert run["state"] == "succeeded", run["error"]
