"""Runs with images on a real simulator, with a tiny image encoder that the test makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from commands import Commands
from image_encoders import TINY_DIM, save_tiny_dinov2
from learner_stack import LearnerStack, wait_until
from play_watcher import Watcher
from tiny_agents import write_agent

from newt.agent.checkpoints import load_checkpoint
from newt.cli.demos import demos_app
from newt.client.replay import ReplayClient
from newt.tasks.registry import get_task
from newt.vision import ImageEncoder

# Drawing and encoding without a GPU is slow where other work shares the cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
RUN_TIMEOUT_S = 300.0

TASK = get_task("mujoco-reacher")
FRAMES = 2
REQUEST: dict[str, Any] = {
    "tasks": [TASK.name],
    "obs": "state+rgb",
    "vision": {"feature_dim": TINY_DIM, "frames": FRAMES},
    "preset": "laptop",
    "model": {"size": "XS", "latent_dim": 32, "encoder_dim": 32, "mlp_dim": 32},
    "plan": {"num_samples": 24, "num_policy_trajectories": 4, "num_elites": 8, "iterations": 2},
    "schedule": {
        "total_env_steps": 300,
        "seed_env_steps": 100,
        "updates_per_env_step": 0.1,
        "checkpoint_every_updates": 10,
        "publish_every_s": 0.5,
    },
    "replay": {"batch_size": 8},
    "demos": {"scripted_episodes": 0},
    "collect": {"envs_per_task": 2},
    "evaluation": {"episodes_per_task": 1, "videos": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[LearnerStack]:
    settings = {"IMAGE_ENCODER": folder}
    stack = LearnerStack(tmp_path_factory.mktemp("stack"), ("sim", "replay", "planner"), settings)
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def finished(stack: LearnerStack) -> dict[str, Any]:
    run = stack.follow(stack.submit(REQUEST), lambda run: False, RUN_TIMEOUT_S)
    assert run["state"] == "succeeded", run["error"]
    return run


def test_replay_keeps_features_beside_states(stack: LearnerStack, finished: dict[str, Any], folder: Path) -> None:
    encoder = ImageEncoder(folder)
    with ReplayClient(stack.replay_address) as replay:
        episodes = list(replay.read_episodes(buffer_id=finished["id"]))
        config = replay.get_buffer(finished["id"]).config
    assert (config.image_dim, config.image_encoder) == (FRAMES * TINY_DIM, encoder.name)
    assert {episode.behaviour for episode in episodes} >= {1, 3}  # random actions, and planned ones
    for episode in episodes:
        assert episode.obs.shape == (TASK.episode_length + 1, TASK.obs_dim)
        assert episode.image is not None
        assert episode.image.shape == (TASK.episode_length + 1, FRAMES * TINY_DIM)
        assert episode.image_encoder == encoder.name
        # Two frames at a time: what is new in one row is old in the next, also at an episode's ends.
        np.testing.assert_array_equal(episode.image[1:, :TINY_DIM], episode.image[:-1, TINY_DIM:])
        np.testing.assert_array_equal(episode.image[0, :TINY_DIM], episode.image[0, TINY_DIM:])
        assert np.ptp(episode.image, axis=0).max() > 0


def test_the_checkpoint_tells_the_encoder(finished: dict[str, Any], folder: Path) -> None:
    newest = max((Path(finished["directory"]) / "checkpoints").glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    checkpoint = load_checkpoint(newest)
    assert checkpoint.model_config.image_dim == FRAMES * TINY_DIM
    assert checkpoint.info["image_encoder"] == ImageEncoder(folder).name
    # The columns of the features have learnt: their moments are not zero.
    moments = checkpoint.state["optim.main.encoder.layers.0.weight.exp_avg_sq"]
    assert float(moments[:, -FRAMES * TINY_DIM :].abs().max()) > 0


def test_evaluations_see_and_show(stack: LearnerStack, finished: dict[str, Any]) -> None:
    results = stack.get(f"/runs/{finished['id']}/results")
    assert results["tasks"][TASK.name]["final"]["episodes"] == 1
    assert list(results["videos"]) == [TASK.name]
    reply = stack.http.post(f"/runs/{finished['id']}/evaluate", json={"episodes": 1})
    assert _evaluated(stack, reply)["state"] == "succeeded"


def test_an_agent_that_sees_makes_demonstrations(stack: LearnerStack, finished: dict[str, Any], folder: Path) -> None:
    request = {"name": "own", "episodes": 1, "mode": "policy"}
    reply = stack.http.post(f"/runs/{finished['id']}/demos", json=request)
    assert reply.status_code == 202, reply.text
    wait_until(lambda: stack.get("/demos/own")["collection"]["state"] != "collecting", "the demonstrations", 300)
    (row,) = stack.get("/demos/own")["tasks"]
    assert (row["image_dim"], row["image_encoder"]) == (FRAMES * TINY_DIM, ImageEncoder(folder).name)


def test_it_is_watched_and_what_was_played_is_learnt_from(
    stack: LearnerStack, finished: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    play = {"task": TASK.name, "checkpoint": finished["id"], "paused": True}
    path = f"/plays/{stack.http.post('/plays', json=play).json()['id']}"
    with stack.http.stream("GET", f"{path}/events") as stream:
        watcher = Watcher(stream.iter_lines())
        assert watcher.next("step")["value"] is not None
        stack.http.post(f"{path}/step").raise_for_status()
        planned = watcher.next("step", lambda facts: facts["step"] == 1)
        assert (planned["actor"], planned["spread"] is not None) == ("planner", True)
        stack.http.post(f"{path}/imagine", json={"steps": 4, "actor": "policy"}).raise_for_status()
        imagined = watcher.next("imagined")
        assert (len(imagined["reward"]), len(imagined["value"])) == (4, 4)
        assert watcher.next("step", lambda facts: facts["step"] == 5)["paused"]  # time to look at it
        stack.http.patch(path, json={"actor": "keys", "action": [1] * TASK.action_dim}).raise_for_status()
        stack.http.post(f"{path}/step").raise_for_status()
        watcher.next("step", lambda facts: facts["step"] == 6)
        (tmp_path / "kept.npz").write_bytes(stack.http.get(f"{path}/recording").content)
        stack.http.delete(path).raise_for_status()
    with np.load(tmp_path / "kept.npz") as kept:
        assert kept["image"].shape == (6, FRAMES * TINY_DIM)
        assert kept["image_encoder"].tolist() == [ImageEncoder(folder).name]

    Commands(demos_app).succeed("import", tmp_path / "kept.npz", "--set", "played", "--replay", stack.replay_address)
    schedule = {**REQUEST["schedule"], "pretrain_updates": 5}
    request = {**REQUEST, "schedule": schedule, "demos": {"sets": ["played"], "scripted_episodes": 0}}

    def pretrained(run: dict[str, Any]) -> bool:
        """And the collector, which counts demonstrations, has told."""
        return run["progress"]["pretrain_updates"] == 5 and bool(run["progress"]["tasks"])

    run = stack.follow(stack.submit(request), pretrained, RUN_TIMEOUT_S)
    assert run["progress"]["pretrain_updates"] == 5, run["error"]
    assert run["progress"]["tasks"][TASK.name]["demo_episodes"] == 1
    stack.http.post(f"/runs/{run['id']}/cancel").raise_for_status()


def test_a_state_agent_learns_to_see(stack: LearnerStack, folder: Path, tmp_path: Path) -> None:
    old = write_agent(tmp_path / "blind", [TASK.name])
    stack.http.put("/checkpoints/blind", content=(tmp_path / "blind").read_bytes())
    schedule = {**REQUEST["schedule"], "total_env_steps": 150, "updates_per_env_step": 0.05}
    request = {**REQUEST, "init_from": "imported/blind", "schedule": schedule}
    del request["model"]
    run = stack.follow(stack.submit({**request, "evaluation": {"videos": False}}), lambda run: False, RUN_TIMEOUT_S)
    assert run["state"] == "succeeded", run["error"]
    newest = max((Path(run["directory"]) / "checkpoints").glob("*.safetensors"), key=lambda p: p.stat().st_mtime)
    new = load_checkpoint(newest)
    assert new.info["image_encoder"] == ImageEncoder(folder).name
    weights, before = (model.encoder.layers[0].weight for model in (new.model(), old.model))
    assert weights.shape[1] == before.shape[1] + FRAMES * TINY_DIM
    assert 0 < float(weights[:, -FRAMES * TINY_DIM :].abs().max()) < 0.1  # from zero, in a few updates


def test_demonstrations_get_features(stack: LearnerStack, folder: Path) -> None:
    """A run with images fills its scripted set with features; the same comes out of POST /demos/features."""
    schedule = {**REQUEST["schedule"], "total_env_steps": 100, "seed_env_steps": 50, "pretrain_updates": 5}
    task, without = TASK, get_task("mujoco-walker")  # short episodes, drawn fast: they are drawn three times
    request = {
        **REQUEST,
        "tasks": [task.name, without.name],
        "schedule": schedule,
        "demos": {"scripted_episodes": 2},
        "collect": {"envs_per_task": 1},
        "evaluation": {"episodes_per_task": 0, "videos": False},
    }
    run = stack.follow(stack.submit(request), lambda run: run["progress"]["pretrain_updates"] == 5, RUN_TIMEOUT_S)
    assert run["progress"]["pretrain_updates"] == 5, run["error"]
    stack.http.post(f"/runs/{run['id']}/cancel")
    (row,) = stack.get(f"/demos/scripted-2-rgb{FRAMES * TINY_DIM}")["tasks"]
    assert (row["task"], row["image_dim"], row["image_encoder"]) == (
        task.name,
        FRAMES * TINY_DIM,
        ImageEncoder(folder).name,
    )
    events = stack.http.get(f"/runs/{run['id']}/events").text
    assert f"{without.name} 0 (none with image features in the run's sets, no scripted expert)" in events

    with ReplayClient(stack.replay_address) as replay:
        plain = list(replay.read_episodes(demo_set="scripted-2"))
        # An episode whose seed is lost cannot be drawn again.
        for episode in (*plain, replace(plain[0], episode_id="unseeded", seed=12345)):
            replay.append(episode, demo_set="plain", timeout_s=10)
    reply = stack.http.post("/demos/features", json={"name": "seen", "source": "plain", "frames": FRAMES})
    assert reply.status_code == 202, reply.text
    wait_until(lambda: stack.get("/demos/seen")["collection"]["state"] != "collecting", "the features", 300)
    seen = stack.get("/demos/seen")
    assert seen["usable"], seen
    kept = seen["collection"]["yields"][task.name]
    assert (kept["wanted"], kept["kept"]) == (len(plain) + 1, len(plain))
    assert "played again, it differs" in kept["missing"]
    with ReplayClient(stack.replay_address) as replay:
        theirs = {e.episode_id: e for e in replay.read_episodes(demo_set="seen")}
        mine = list(replay.read_episodes(demo_set=f"scripted-2-rgb{FRAMES * TINY_DIM}"))
    assert {e.episode_id for e in mine} == set(theirs) == {e.episode_id for e in plain}
    for episode in mine:
        np.testing.assert_allclose(episode.image, theirs[episode.episode_id].image, atol=1e-4)
        assert float(np.ptp(episode.image, axis=0).max()) > 0


def test_features_need_a_set(stack: LearnerStack) -> None:
    reply = stack.http.post("/demos/features", json={"name": "seen-2", "source": "nobodys"})
    assert reply.status_code == 422
    assert "source" in reply.text


def test_another_encoder_is_refused(
    stack: LearnerStack, finished: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    stack.settings["learner"]["IMAGE_ENCODER"] = save_tiny_dinov2(tmp_path, seed=1)
    stack.restart_learner()
    try:
        reply = stack.http.post(f"/runs/{finished['id']}/evaluate", json={"episodes": 1})
        job = _evaluated(stack, reply)
        assert job["state"] == "failed"
        assert "never mixes encoders" in job["error"]
        stack.wait_ready()
        run = stack.follow(stack.submit({**REQUEST, "vision": {"feature_dim": 768}}), lambda run: False, RUN_TIMEOUT_S)
        assert run["state"] == "failed"
        assert f"set vision.feature_dim to {TINY_DIM}" in run["error"]
    finally:
        stack.settings["learner"]["IMAGE_ENCODER"] = folder
        stack.restart_learner()


def _evaluated(stack: LearnerStack, reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code < 300, reply.text
    path = f"/evaluations/{reply.json()['id']}"
    wait_until(lambda: stack.get(path)["state"] != "running", "the evaluation", 300)
    job: dict[str, Any] = stack.get(path)
    return job
