"""Demonstration sets from scripted experts and from a trained agent, with real simulators, planner and replay."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from learner_stack import LearnerStack, wait_until
from stored_runs import episode as stored_episode
from typer.testing import CliRunner

from newt.cli.demos import demos_app
from newt.client.replay import ReplayClient
from newt.errors import NotFoundError
from newt.tasks.demo_rule import threshold
from newt.tasks.registry import get_task
from newt.wire.episodes import Behaviour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BUTTON, HANDLE, REACHER = "mw-button-press", "mw-handle-press", "mujoco-reacher"
TINY: dict[str, Any] = {
    "tasks": [BUTTON, HANDLE, REACHER],
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {
        "total_env_steps": 600,
        "seed_env_steps": 250,
        "pretrain_updates": 20,
        "updates_per_env_step": 0.1,
        "checkpoint_every_updates": 40,
    },
    "replay": {"batch_size": 16, "demo_fraction": 0.25, "demos_in_online": False},
    "demos": {"scripted_episodes": 1},
    "evaluation": {"episodes_per_task": 1, "videos": False},
}


def held(stack: LearnerStack, name: str) -> dict[str, int]:
    """Episodes by task that replay holds of a set."""
    with ReplayClient(stack.replay_address) as replay:
        try:
            (demo_set,) = replay.list_demo_sets(name)
        except NotFoundError:
            return {}
    return {task.task: task.episodes for task in demo_set.tasks}


def follow(stack: LearnerStack, name: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
    """Polls a set until its collection has ended, or until a condition holds."""
    deadline = time.monotonic() + 200
    while True:
        info: dict[str, Any] = stack.get(f"/demos/{name}")
        collection = info["collection"]
        if collection is None or collection["state"] != "collecting" or (until and until(info)):
            return info
        assert time.monotonic() < deadline, info
        time.sleep(0.2)


def scripted(stack: LearnerStack, name: str, episodes: int = 2, tasks: list[str] | None = None) -> httpx.Response:
    return stack.http.post("/demos", json={"name": name, "tasks": tasks or [BUTTON], "episodes": episodes})


def worker_of(name: str) -> int | None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode().split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "services.learner.demonstrating.worker" in arguments and name in arguments:
            return int(process.name)
    return None


def sampled(stack: LearnerStack) -> dict[str, float]:
    """Sequences that replay has drawn so far, by origin."""
    with httpx.Client() as http:
        text = http.get(f"http://127.0.0.1:{stack.ports['replay_metrics']}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("newt_replay_sampled_sequences_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


@pytest.fixture(scope="module")
def run(stack: LearnerStack) -> dict[str, Any]:
    """A whole run, one of whose experts never succeeds; with the sequences drawn for it."""
    before = sampled(stack)
    run_id = stack.submit(TINY)
    run = stack.follow(run_id, lambda run: False, timeout_s=500)
    assert run["state"] == "succeeded", run["error"]
    after = sampled(stack)
    return {**run, "sampled": {origin: after[origin] - before.get(origin, 0) for origin in after}}


def test_a_task_whose_expert_fails_trains_without_demonstrations(stack: LearnerStack, run: dict[str, Any]) -> None:
    demos = {task: progress["demo_episodes"] for task, progress in run["progress"]["tasks"].items()}
    assert demos == {BUTTON: 1, HANDLE: 0, REACHER: 1}
    assert all(progress["episodes"] >= 1 for progress in run["progress"]["tasks"].values())
    text = stack.http.get(f"/runs/{run['id']}/events").text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    (warning,) = [event for event in events if event.get("kind") == "warning"]
    assert warning["data"]["episodes"] == {HANDLE: 0}
    assert "1 of 3 tasks have no demonstrations" in warning["message"]
    assert f"{HANDLE} 0 (its scripted expert brought 0 of 1" in warning["message"]
    log = (Path(run["directory"]) / "logs" / "collector.log").read_text()
    assert '"event": "demos_missing"' in log
    assert '"event": "expert_given_up"' in log


def test_the_share_of_demonstrations_is_what_was_asked_for(stack: LearnerStack, run: dict[str, Any]) -> None:
    batch = TINY["replay"]["batch_size"]
    pretrained = TINY["schedule"]["pretrain_updates"] * batch
    updates = run["progress"]["updates"]
    assert updates == 35
    assert run["sampled"] == {"demos": pretrained + updates * batch / 4, "online": updates * batch * 3 / 4}
    with ReplayClient(stack.replay_address) as replay:
        config = replay.get_buffer(run["id"]).config
    assert (list(config.demo_sets), config.demos_in_online) == (["scripted-1"], False)


def test_a_run_without_any_demonstration_to_pretrain_on_fails_and_says_so(stack: LearnerStack) -> None:
    run_id = stack.submit({**TINY, "tasks": [HANDLE], "demos": {"scripted_episodes": 2}})
    run = stack.follow(run_id, lambda run: False)
    assert run["state"] == "failed"
    assert "no task of the run has demonstrations" in run["error"]
    assert "algorithm.pretraining" in run["error"]


def test_an_agents_good_episodes_become_a_set(stack: LearnerStack, run: dict[str, Any]) -> None:
    request = {"name": "agent", "episodes": 3, "mode": "policy", "seed": 5}
    reply = stack.http.post(f"/runs/{run['id']}/demos", json=request)
    assert reply.status_code == 202, reply.text
    info = follow(stack, "agent")
    assert info["usable"], info["collection"]["error"]
    collection = info["collection"]
    assert (collection["run_id"], collection["source"]) == (run["id"], "agent")
    reacher = collection["yields"][REACHER]
    assert (reacher["played"], reacher["kept"], reacher["missing"]) == (6, 3, None)
    assert 3 <= reacher["accepted"] <= 6
    for task in (BUTTON, HANDLE):  # all that is wanted, or nothing
        found = collection["yields"][task]
        assert (found["played"], found["kept"]) == (6, 3 if found["accepted"] >= 3 else 0)
        assert (found["missing"] is None) == (found["kept"] == 3)
        with ReplayClient(stack.replay_address) as replay:
            successes = [episode.success for episode in replay.read_episodes(demo_set="agent", task=task)]
        assert successes == [1.0] * found["kept"]
    with ReplayClient(stack.replay_address) as replay:
        episodes = list(replay.read_episodes(demo_set="agent", task=REACHER))
    returns = [float(episode.reward.sum(dtype=np.float64)) for episode in episodes]
    assert len(returns) == 3
    assert all(value > reacher["threshold"] for value in returns)
    assert {episode.behaviour for episode in episodes} == {Behaviour.EXPERT}
    facts = get_task(REACHER)
    for episode in episodes:
        assert episode.obs.shape == (facts.episode_length + 1, facts.obs_dim)
        assert episode.action.shape == (facts.episode_length, facts.action_dim)
    assert all(np.isfinite(episode.action).all() and (episode.action != 0).any() for episode in episodes)
    (row,) = [task for task in info["tasks"] if task["task"] == REACHER]
    assert row["mean_return"] == pytest.approx(np.mean(returns), rel=1e-4)
    assert threshold(returns) <= max(returns)
    # The same again is harmless; something else under the same name is refused.
    again = stack.http.post(f"/runs/{run['id']}/demos", json=request)
    assert (again.status_code, again.json()["state"]) == (202, "succeeded")
    other = stack.http.post(f"/runs/{run['id']}/demos", json={**request, "episodes": 4})
    assert (other.status_code, other.json()["error"]) == (409, "AlreadyExists")
    assert held(stack, "agent")[REACHER] == 3


def test_what_an_agent_cannot_do_is_refused(stack: LearnerStack, run: dict[str, Any]) -> None:
    def refused(**request: Any) -> tuple[int, str]:
        reply = stack.http.post(f"/runs/{run['id']}/demos", json={"name": "x", **request})
        return reply.status_code, reply.json()["message"]

    status, message = refused(tasks=["walker-walk"])
    assert status == 422
    assert "not among the run's tasks" in message
    status, message = refused(checkpoint="17")
    assert status == 404
    assert "there are: 0" in message
    assert refused(name="scripted-3")[0] == 422
    assert refused(name="../x")[0] == 422
    assert refused(episodes=0)[0] == 422
    assert stack.http.post("/runs/nobody/demos", json={"name": "x"}).status_code == 404
    stack.kill("planner")
    try:
        wait_until(lambda: refused()[0] == 503, "the planner is missed", 20)
        assert "planner" in refused()[1]
    finally:
        stack.start("planner")
        stack.wait_ready()
    assert stack.http.get("/demos/x").status_code == 404


def test_a_scripted_set_lives_through_restarts_and_serves_a_run(stack: LearnerStack) -> None:
    url = str(stack.http.base_url)

    def newt(*arguments: str) -> str:
        result = CliRunner().invoke(demos_app, [*arguments, "--url", url])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    assert BUTTON in newt("scripted", "--tasks", BUTTON, "--episodes", "2", "--name", "mine")
    stack.kill("replay")
    stack.start("replay")
    stack.wait_ready()
    info = stack.get("/demos/mine")
    assert info["usable"]
    (row,) = info["tasks"]
    assert (row["task"], row["episodes"], row["rows"], row["mean_success"]) == (BUTTON, 2, 202, 1)
    assert "mine" in newt("list")
    assert "100.00" not in newt("show", "mine")
    assert scripted(stack, "mine", 2).json()["state"] == "succeeded"
    assert scripted(stack, "mine", 3).status_code == 409

    request = {**TINY, "tasks": [BUTTON], "demos": {"sets": ["mine"], "scripted_episodes": 0}}
    run_id = stack.submit(request)
    refused = stack.http.delete("/demos/mine")
    assert (refused.status_code, run_id in refused.text) == (409, True)
    running = stack.follow(run_id, lambda run: run["progress"]["pretrain_updates"] > 0)
    assert running["progress"]["tasks"][BUTTON]["demo_episodes"] == 2, running["error"]
    assert stack.http.delete(f"/runs/{run_id}/episodes").status_code == 409
    stack.http.post(f"/runs/{run_id}/cancel")
    refused = stack.http.delete("/demos/mine")  # the cancelled run can be resumed: it still needs the set
    assert (refused.status_code, "/episodes" in refused.text) == (409, True)
    # Refused until the run's processes, which may still append, have ended.
    wait_until(lambda: stack.http.delete(f"/runs/{run_id}/episodes").status_code == 200, "the episodes are deleted")
    assert "2 episodes deleted" in newt("delete", "mine")
    assert stack.http.get("/demos/mine").status_code == 404
    assert stack.http.delete("/demos/mine").status_code == 404
    unknown = stack.http.post("/runs", json=request)
    assert (unknown.status_code, unknown.json()["fields"][0]["field"]) == (422, "demos.sets")


def test_a_disturbed_expert_recovers_and_its_actions_are_recorded_as_taken(stack: LearnerStack) -> None:
    for name, disturbance in (("calm", 0.0), ("pushed", 0.8), ("pushed-again", 0.8)):
        request = {"name": name, "tasks": [REACHER], "episodes": 2, "disturbance": disturbance}
        assert stack.http.post("/demos", json=request).status_code == 202
        assert follow(stack, name)["collection"]["state"] == "succeeded"
    with ReplayClient(stack.replay_address) as replay:
        calm, pushed, again = (
            list(replay.read_episodes(demo_set=name, task=REACHER)) for name in ("calm", "pushed", "pushed-again")
        )
    length = get_task(REACHER).episode_length
    burst, last = length // 8 // 4, length - length // 8
    for episode in pushed:
        assert episode.behaviour == Behaviour.EXPERT
        assert np.abs(episode.action).max() <= 1
        # As noise is independent from step to step, actions of a burst jump; those of the calm end do not.
        jumps = np.abs(np.diff(episode.action, axis=0)).mean(axis=1)
        assert jumps[:burst].mean() > 5 * jumps[last + 1 :].mean()
        assert episode.score > 0.5
    assert {len(episode.action) for episode in calm} == {length}
    assert not any(np.array_equal(one.action, other.action) for one in calm for other in pushed)
    assert len(again) == 2
    wrong = stack.http.post("/demos", json={"name": "x", "tasks": [REACHER], "disturbance": 1.5})
    assert (wrong.status_code, wrong.json()["fields"][0]["field"]) == (422, "disturbance")


def test_wrong_requests_are_refused_with_the_remedy(stack: LearnerStack) -> None:
    for tasks, field, complaint in (
        (["mw-buton-press"], "tasks", BUTTON),
        (["walker-walk"], "tasks", "no scripted expert"),
        (["og-point-var1"], "tasks", "no simulator"),
    ):
        reply = scripted(stack, "y", tasks=tasks)
        assert (reply.status_code, reply.json()["fields"][0]["field"]) == (422, field)
        assert complaint in reply.json()["message"]
    assert scripted(stack, "scripted-9").status_code == 422
    with ReplayClient(stack.replay_address) as replay:
        (episode, *_) = replay.read_episodes(demo_set="scripted-1")
        replay.append(episode, demo_set="imported", timeout_s=10)
    assert scripted(stack, "imported").status_code == 409
    assert stack.get("/demos/imported")["usable"]
    assert stack.http.post("/demos/imported/cancel").status_code == 404
    stack.kill("sim")
    try:
        wait_until(lambda: scripted(stack, "y").status_code == 503, "the simulator is missed", 20)
        assert "sim-metaworld" in scripted(stack, "y").json()["message"]
    finally:
        stack.start("sim")
        stack.wait_ready()


def test_a_cancelled_collection_leaves_nothing(stack: LearnerStack) -> None:
    assert scripted(stack, "long", 500).status_code == 202
    wait_until(lambda: held(stack, "long") != {}, "the first episode is stored")
    unusable = stack.http.post("/runs", json={**TINY, "demos": {"sets": ["long"], "scripted_episodes": 0}})
    assert (unusable.status_code, "under way" in unusable.text) == (422, True)
    assert stack.http.delete("/demos/long").status_code == 409
    reply = stack.http.post("/demos/long/cancel")
    assert (reply.status_code, reply.json()["state"]) == (200, "cancelled"), reply.text
    info = stack.get("/demos/long")
    assert (info["usable"], info["tasks"], held(stack, "long")) == (False, [], {})
    assert worker_of("long") is None
    assert stack.http.post("/demos/long/cancel").status_code == 409
    assert stack.http.delete("/demos/long").json() == {"episodes": 0}
    assert stack.http.get("/demos/long").status_code == 404


def test_a_killed_collection_leaves_no_half_set_and_can_be_repeated(stack: LearnerStack) -> None:
    assert scripted(stack, "hurt", 500).status_code == 202
    wait_until(lambda: held(stack, "hurt") != {}, "the first episode is stored")
    pid = worker_of("hurt")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    info = follow(stack, "hurt")
    assert (info["collection"]["state"], "SIGKILL" in info["collection"]["error"]) == ("failed", True)
    wait_until(lambda: not stack.get("/demos/hurt")["collection"]["unfinished"], "the remains are removed")
    assert held(stack, "hurt") == {}

    # The learner dies: the worker notices, and the next learner cleans up.
    assert scripted(stack, "hurt", 500).status_code == 202
    wait_until(lambda: held(stack, "hurt") != {}, "the first episode is stored again")
    stack.restart_learner()
    info = follow(stack, "hurt")
    assert (info["collection"]["state"], "restarted" in info["collection"]["error"]) == ("failed", True)
    wait_until(lambda: not stack.get("/demos/hurt")["collection"]["unfinished"], "the remains are removed again")
    wait_until(lambda: worker_of("hurt") is None, "what collected it has ended, which a busy machine takes a while for")
    assert held(stack, "hurt") == {}

    stack.wait_ready()
    assert scripted(stack, "hurt", 1).status_code == 202
    assert follow(stack, "hurt")["usable"]
    assert held(stack, "hurt") == {BUTTON: 1}


def test_a_set_that_cannot_be_read_is_shown_refused_and_deleted(stack: LearnerStack) -> None:
    with ReplayClient(stack.replay_address) as replay:
        replay.append(stored_episode(1), demo_set="torn")
    with redis.Redis.from_url(stack.redis.url) as raw:
        raw.hset("newt:replay:1:demos:torn:meta", "next", "abc")
    broken: dict[str, str] = {}
    while "torn" not in broken:
        broken = {item["id"]: item["error"] for item in stack.get("/demos")["broken"]}
    assert "'next'" in broken["torn"]
    assert "DELETE /demos/torn" in broken["torn"]
    refused = stack.http.post("/runs", json={**TINY, "demos": {"sets": ["torn"]}})
    assert refused.status_code == 422
    assert "torn" in refused.json()["message"]
    assert stack.http.delete("/demos/torn").status_code == 200
    assert stack.get("/demos")["broken"] == []
