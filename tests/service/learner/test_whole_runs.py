"""Tiny runs on real simulators, planner and replay: the whole life of a run, and what it survives."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
from learner_stack import LearnerStack

from newt.agent.checkpoints import load_checkpoint
from newt.backup import making, restoring
from newt.client.replay import ReplayClient
from newt.local import redis_server
from newt.runs.spec import RunSpec

pytestmark = pytest.mark.slow

TASKS = ["mw-button-press", "mujoco-reacher"]
TOTAL, SEED_STEPS, PRETRAIN = 800, 150, 60
TINY: dict[str, Any] = {
    "tasks": TASKS,
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {
        "total_env_steps": TOTAL,
        "seed_env_steps": SEED_STEPS,
        "pretrain_updates": PRETRAIN,
        "updates_per_env_step": 0.2,
        "checkpoint_every_updates": 40,
        "publish_every_s": 0.5,
    },
    "replay": {"batch_size": 16},
    "demos": {"scripted_episodes": 2},
    "evaluation": {"episodes_per_task": 1, "videos": False},
    "train": {},
}


def _with(changes: dict[str, Any]) -> dict[str, Any]:
    return {**TINY, **{k: {**TINY.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}


def _check_episodes(stack: LearnerStack, run_id: str) -> None:
    """Everything that replay acknowledged is there once."""
    with ReplayClient(stack.replay_address) as replay:
        counters = replay.get_buffer(run_id)
        episodes = list(replay.read_episodes(buffer_id=run_id))
    ids = [episode.episode_id for episode in episodes]
    assert len(ids) == len(set(ids)) == counters.episodes
    assert sum(len(episode.reward) for episode in episodes) == counters.env_steps >= TOTAL
    assert len({(episode.task, episode.seed) for episode in episodes}) == len(episodes)


@pytest.fixture(scope="module")
def finished(stack: LearnerStack) -> dict[str, Any]:
    """A run that was left alone."""
    changes = {"schedule": {"eval_every_env_steps": 500}, "evaluation": {"policy_alone": True, "periodic_videos": True}}
    run_id = stack.submit(_with(changes))
    run = stack.follow(run_id, lambda run: False)
    assert run["state"] == "succeeded", run["error"]
    return run


def test_a_run_does_what_was_asked(stack: LearnerStack, finished: dict[str, Any]) -> None:
    spec = RunSpec.model_validate(finished["spec"])
    progress = finished["progress"]
    assert progress["pretrain_updates"] == PRETRAIN
    assert progress["computing"].items() >= {"device": "cpu", "precision": "float32", "compiled": False}.items()
    assert progress["updates"] == progress["total_updates"] == math.floor(0.2 * (TOTAL - SEED_STEPS))
    assert TOTAL <= progress["env_steps"] < TOTAL + 200  # whole episodes
    assert progress["weights_version"] >= 2
    assert spec.scripted_set() in [demo_set["name"] for demo_set in stack.get("/demos")["demo_sets"]]
    assert progress["tasks"]["mw-button-press"]["demo_episodes"] >= 2
    assert progress["tasks"]["mujoco-reacher"]["demo_episodes"] >= 2
    assert all(task["last_return"] is not None for task in progress["tasks"].values())
    _check_episodes(stack, finished["id"])
    with ReplayClient(stack.replay_address) as replay:
        episodes = list(replay.read_episodes(buffer_id=finished["id"]))
    # The planner acted with weights that were published during the run.
    assert {episode.behaviour for episode in episodes} >= {3}
    assert 1 < max(episode.weights_versions[1] for episode in episodes) <= progress["weights_version"]


def test_a_run_passes_through_its_states(stack: LearnerStack, finished: dict[str, Any]) -> None:
    text = stack.http.get(f"/runs/{finished['id']}/events").text
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    states = [event["data"]["state"] for event in events if event.get("kind") == "state" and event["data"]]
    assert states == ["pretraining", "evaluating", "training", "evaluating", "succeeded"]


def test_training_goes_on_while_the_agent_is_evaluated(stack: LearnerStack, finished: dict[str, Any]) -> None:
    rows = stack.get(f"/runs/{finished['id']}/metrics")["rows"]
    periodic = stack.get(f"/runs/{finished['id']}/results")["evaluations"][2]
    told = next(
        place
        for place, row in enumerate(rows)
        if row["source"] == "evaluation" and row["env_steps"] == periodic["env_steps"]
    )
    before = {(row["source"], row["env_steps"] > periodic["env_steps"]) for row in rows[:told]}
    assert {("collector", True), ("trainer", True)} <= before


def test_results_have_all_milestones(stack: LearnerStack, finished: dict[str, Any]) -> None:
    results = stack.get(f"/runs/{finished['id']}/results")
    assert [evaluation["kind"] for evaluation in results["evaluations"]] == [
        "random",
        "pretrained",
        "periodic",
        "final",
        "final_policy",
    ]
    assert [evaluation["mode"] for evaluation in results["evaluations"][-2:]] == ["planner", "policy"]
    for milestone in ("random", "pretrained", "final", "final_policy"):
        scores = [results["tasks"][task][milestone]["score"] for task in TASKS]
        assert results["mean_score"][milestone] == pytest.approx(sum(scores) / len(scores))
    periodic = results["evaluations"][2]
    assert periodic["videos"] == {task: f"{periodic['env_steps']}-{task}.mp4" for task in TASKS}
    video = stack.http.get(f"/runs/{finished['id']}/videos/{periodic['videos'][TASKS[0]]}")
    assert video.content[4:8] == b"ftyp"
    assert results["videos"] == {}  # the final one's, which were not asked for
    row = results["tasks"]["mw-button-press"]["final"]
    assert (row["episodes"], row["length"]) == (1, 100)
    assert row["success"] in (0, 1)
    assert results["tasks"]["mujoco-reacher"]["final"]["success"] is None
    stored = json.loads((Path(finished["directory"]) / "results.json").read_text())
    assert stored["tasks"] == results["tasks"]


def test_metrics_have_losses_and_scores(stack: LearnerStack, finished: dict[str, Any]) -> None:
    rows = stack.get(f"/runs/{finished['id']}/metrics")["rows"]
    names = {name for row in rows for name in row["values"]}
    assert {"total_loss", "policy_loss", "grad_norm", "scale", "updates_per_s"} <= names
    assert {f"score/{task}" for task in TASKS} | {"success/mw-button-press", "eval_success", "episodes"} <= names
    assert "success/mujoco-reacher" not in names  # it defines none
    episodes = [row["values"]["episodes"] for row in rows if "episodes" in row["values"]]
    assert episodes == sorted(episodes)
    assert episodes[-1] == sum(task["episodes"] for task in finished["progress"]["tasks"].values())
    steps = [row["env_steps"] for row in rows if row["source"] == "trainer"]
    assert steps == sorted(steps)


def test_checkpoints_come_home(stack: LearnerStack, finished: dict[str, Any], tmp_path: Path) -> None:
    listed = stack.get(f"/runs/{finished['id']}/checkpoints")["checkpoints"]
    assert "0" in [checkpoint["name"] for checkpoint in listed]
    means = stack.get(f"/runs/{finished['id']}/results")["mean_score"]
    scores = {checkpoint["name"]: checkpoint["score"] for checkpoint in listed}
    assert (scores["0"], scores[listed[-1]["name"]]) == (means["pretrained"], means["final"])
    (best,) = (checkpoint for checkpoint in listed if checkpoint["best"])
    assert best["score"] == max(score for score in scores.values() if score is not None)
    reply = stack.http.get(f"/runs/{finished['id']}/checkpoints/best")
    assert f"{finished['id']}-{best['name']}.safetensors" in reply.headers["content-disposition"]
    reply = stack.http.get(f"/runs/{finished['id']}/checkpoints/newest")
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(reply.content)
    checkpoint = load_checkpoint(path)
    assert checkpoint.table.names == tuple(TASKS)
    assert RunSpec.model_validate(checkpoint.info["spec"]) == RunSpec.model_validate(finished["spec"])
    assert checkpoint.updater().updates == PRETRAIN + finished["progress"]["updates"]


def test_checkpoints_can_be_evaluated(stack: LearnerStack, finished: dict[str, Any]) -> None:
    def evaluate(**request: Any) -> dict[str, Any]:
        reply = stack.http.post(f"/runs/{finished['id']}/evaluate", json=request)
        assert reply.status_code == 202, reply.text
        path = f"/evaluations/{reply.json()['id']}"
        job: dict[str, Any] = reply.json()
        while job["state"] == "running":
            job = stack.get(path)
        assert job["state"] == "succeeded", job["error"]
        return job

    request = {"tasks": ["mujoco-reacher"], "episodes": 2, "mode": "planner", "checkpoint": "0", "videos": True}
    first, again = evaluate(**request), evaluate(**request)
    assert set(first["result"]["tasks"]) == {"mujoco-reacher"}
    assert first["result"]["tasks"]["mujoco-reacher"]["episodes"] == 2
    assert first["result"]["tasks"] == again["result"]["tasks"]
    video = stack.http.get(f"/evaluations/{first['id']}/videos/{first['videos']['mujoco-reacher']}")
    assert video.content[4:8] == b"ftyp"
    foreign = stack.http.post(f"/runs/{finished['id']}/evaluate", json={"tasks": ["no-task"]})
    assert (foreign.status_code, foreign.json()["fields"][0]["field"]) == (422, "tasks")


def test_a_run_survives_the_death_of_everybody(stack: LearnerStack) -> None:
    """`kill -9` at random moments of training: each process of the run and of the stack, and the run's all at once."""
    chance_seed = random.SystemRandom().randrange(2**32)
    print(f"moments from seed {chance_seed}")  # shown if the test fails
    chance = random.Random(chance_seed)
    moments = iter(sorted(chance.sample(range(5, 90), 5)))
    run_id = stack.submit(_with({"seed": 2}))
    seen: list[dict[str, Any]] = []

    def look(run: dict[str, Any]) -> bool:
        seen.append(run["progress"])
        return False

    def next_moment() -> None:
        updates = next(moments)
        run = stack.follow(run_id, lambda run: look(run) or run["progress"]["updates"] >= updates)
        assert run["state"] in ("training", "evaluating"), run["error"]
        time.sleep(chance.random())

    def kill_and_wait(role: str, restarts: int) -> None:
        stack.kill_child(run_id, role)
        # The keeper has to see this death before the next one, or it cannot count it.
        stack.follow(run_id, lambda run: look(run) or run["progress"]["restarts"] >= restarts)

    next_moment()
    kill_and_wait("collector", 1)
    next_moment()
    kill_and_wait("trainer", 2)
    next_moment()
    stack.kill("sim")
    stack.start("sim")
    stack.restart_learner()
    next_moment()
    stack.kill_everything(run_id)
    next_moment()
    stack.restart_redis()
    run = stack.follow(run_id, look)
    assert run["state"] == "succeeded", run["error"]
    assert run["progress"]["restarts"] == 2
    assert run["attempt"] == 3
    for counter in ("env_steps", "weights_version"):
        values = [progress[counter] for progress in seen]
        assert values == sorted(values), counter
    updates = [progress["pretrain_updates"] + progress["updates"] for progress in seen]
    falls = [before - now for before, now in itertools.pairwise(updates) if now < before]
    assert all(fall <= TINY["schedule"]["checkpoint_every_updates"] for fall in falls), falls
    assert run["progress"]["updates"] == run["progress"]["total_updates"]
    # A replay service that starts anew knows what is in Redis: all that the collectors ever reported, once.
    stack.kill("replay")
    stack.start("replay")
    _check_episodes(stack, run_id)
    with ReplayClient(stack.replay_address) as replay:
        stored = {task.task: (task.episodes, task.env_steps) for task in replay.get_buffer(run_id).tasks}
    for task in TASKS:
        told = [(tasks[task]["episodes"], tasks[task]["env_steps"]) for tasks in (p["tasks"] for p in seen) if tasks]
        assert told == sorted(told)
        final = run["progress"]["tasks"][task]
        assert (final["episodes"], final["env_steps"]) == stored[task]
    kinds = [evaluation["kind"] for evaluation in stack.get(f"/runs/{run_id}/results")["evaluations"]]
    assert kinds == ["random", "pretrained", "final"]


def test_a_cancelled_run_resumes_where_it_was(stack: LearnerStack) -> None:
    run_id = stack.submit(_with({"seed": 3, "schedule": {"checkpoint_every_updates": 10_000}}))
    stack.follow(run_id, lambda run: run["progress"]["updates"] >= 10)
    stack.http.post(f"/runs/{run_id}/cancel")
    lock = Path(stack.get(f"/runs/{run_id}")["directory"])
    assert stack.get(f"/runs/{run_id}")["state"] == "cancelled"
    reply = stack.http.post(f"/runs/{run_id}/resume")
    assert reply.json()["state"] == "queued"
    run = stack.follow(run_id, lambda run: False)
    assert run["state"] == "succeeded", run["error"]
    # The checkpoint that SIGTERM caused is what the run went on from: pretraining was not repeated.
    names = [checkpoint["name"] for checkpoint in stack.get(f"/runs/{run_id}/checkpoints")["checkpoints"]]
    assert len(names) >= 3, names
    log = (lock / "logs" / "trainer.log").read_text()
    assert '"event": "resumed"' in log
    _check_episodes(stack, run_id)


def test_a_run_goes_on_from_a_backup(stack: LearnerStack, tmp_path: Path) -> None:
    """Of a stack at work into another one, which has never seen the run."""
    schedule = {"pretrain_updates": 10, "checkpoint_every_updates": 20}
    run_id = stack.submit(_with({"seed": 6, "schedule": schedule, "evaluation": {"episodes_per_task": 0}}))
    before = stack.follow(run_id, lambda run: run["progress"]["updates"] >= 30)
    assert before["state"] == "training", before["error"]
    making.make(tmp_path / "backup", [stack.redis.url], stack.home / "data")
    stack.http.post(f"/runs/{run_id}/cancel")
    (tmp_path / "home").mkdir()
    redis = redis_server.start(tmp_path / "home" / "redis")
    restoring.restore(tmp_path / "backup", [redis.url], tmp_path / "home" / "data")
    redis.stop()
    other = LearnerStack(tmp_path / "home", ("replay", "planner"), {"SIMS": stack.settings["learner"]["SIMS"]})
    try:
        run = other.follow(run_id, lambda run: False)
        assert run["state"] == "succeeded", run["error"]
        folder = tmp_path / "home" / "data" / "runs" / run_id
        assert Path(run["directory"]) == folder
        lives = (folder / "logs" / "trainer.log").read_text().split('"event": "resumed"')
        assert len(lives) == 2  # from the checkpoint
        assert run["attempt"] == before["attempt"] + 1
        assert run["progress"]["updates"] == run["progress"]["total_updates"]
        assert run["progress"]["weights_version"] > before["progress"]["weights_version"]
        _check_episodes(other, run_id)
        listed = other.get("/runs")["runs"]
        assert {entry["id"] for entry in listed} == {entry["id"] for entry in stack.get("/runs")["runs"]}
        assert [entry["state"] for entry in listed if entry["id"] != run_id].count("training") == 0
    finally:
        other.stop()


def test_a_diverging_run_stops_with_the_cause(stack: LearnerStack) -> None:
    run_id = stack.submit(_with({"train": {"lr": 1e30, "warmup_updates": 0}}) | {"seed": 4})
    run = stack.follow(run_id, lambda run: False)
    assert run["state"] == "failed"
    assert "NaN or infinite at update" in run["error"]


def test_a_run_at_the_bounds_of_its_settings_starts(stack: LearnerStack) -> None:
    request = _with(
        {
            "tasks": ["mujoco-reacher"],
            "name": "-" + 63 * "9",
            "seed": 2**63 - 1,
            "schedule": {"total_env_steps": 2**53, "keep_checkpoints": 2**53, "publish_every_s": 1e-300},
            "replay": {"capacity_rows": 2**48, "max_lead_updates": 2**53},
            "plan": {"constraint_start": 2**63 - 1, "max_std": 1000, "temperature": 1e6},
            "train": {"warmup_updates": 2**63 - 1, "adam_eps": 1e-20, "lr": 1.0},
            "collect": {"lead_limit_steps": 2**53},
            "evaluation": {"episodes_per_task": 0},
        }
    )
    run_id = stack.submit(request)
    run = stack.follow(run_id, lambda run: run["progress"]["updates"] > PRETRAIN)
    assert run["state"] == "training", run["error"]
    assert run["progress"]["env_steps"] > SEED_STEPS
    assert stack.http.post(f"/runs/{run_id}/cancel").status_code == 200
