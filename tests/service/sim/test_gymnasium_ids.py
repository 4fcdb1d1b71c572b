"""Tasks made by Gymnasium's own `make` and `make_vec`, on a real simulator service."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import NormalizeObservation
from sim_running import RunningServer

import newt.client.envs  # noqa: F401  # registers the ids
from newt.client import RemoteEnv, RemoteVectorEnv
from newt.client.addresses import sim_address
from newt.errors import InvalidInputError, NotFoundError
from newt.tasks.pace import DEFAULT_STEPS_PER_S
from newt.tasks.registry import table_tasks
from services.sim.domains.noop import RAISE


@pytest.fixture(autouse=True)
def used_instances(all_domains: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The service is in the environment, and has all instances back at the end."""
    monkeypatch.setenv("NEWT_SIM", all_domains.address)
    before = all_domains.service.sessions.used_instances
    yield
    assert all_domains.service.sessions.used_instances == before


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is.*infinity")
@pytest.mark.parametrize("settings", [{}, {"obs_mode": "rgb"}])
def test_gymnasiums_checker_accepts_a_single_environment(settings: dict[str, Any]) -> None:
    env = gymnasium.make("newt/task-v0", task="noop-short", render_mode="rgb_array", **settings)
    check_env(env.unwrapped)
    env.reset()
    assert env.render().shape == (224, 224, 3)  # type: ignore[union-attr]
    env.close()


def test_a_single_environment_step_by_step() -> None:
    with gymnasium.make("newt/task-v0", task="noop-short") as env:
        assert isinstance(env.unwrapped, RemoteEnv)
        assert env.metadata["render_fps"] == DEFAULT_STEPS_PER_S  # it says none
        first, info = env.reset(seed=3)
        assert info == {"episode_seed": 3}
        for step in range(5):
            obs, reward, terminated, truncated, info = env.step(np.full(2, 0.5, np.float32))
            assert (reward, terminated, truncated) == (0.5, False, step == 4)
        assert set(info) == {"success", "score", "corrected_score"}
        again, _ = env.reset(seed=3)
        np.testing.assert_array_equal(again, first)
        assert env.observation_space.contains(obs)
        assert env.render() is None


def test_a_crash_truncates_a_single_environment() -> None:
    with gymnasium.make("newt/task-v0", task="noop-faulty") as env:
        env.reset()
        *_, truncated, info = env.step(np.array([RAISE], np.float32))
        assert truncated
        assert info["env_error"]
        env.reset()


def test_vectors_restart_in_the_next_step_unless_told_otherwise() -> None:
    envs = gymnasium.make_vec("newt/task-v0", num_envs=3, task="noop-short")
    assert isinstance(envs, RemoteVectorEnv)
    assert (envs.num_envs, envs.metadata["autoreset_mode"]) == (3, AutoresetMode.NEXT_STEP)
    NormalizeObservation(envs).reset()
    envs.close()
    envs = gymnasium.make_vec("newt/walker-walk-v0", num_envs=2, autoreset_mode="SameStep", render_mode="rgb_array")
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    envs.close()
    with pytest.raises(ValueError, match="render_mode"):
        gymnasium.make_vec("newt/walker-walk-v0", render_mode="human")


def test_every_task_has_an_id_and_others_are_found_by_name() -> None:
    assert {f"newt/{name}-v0" for name in table_tasks()} < set(gymnasium.registry)
    with pytest.raises(NotFoundError, match="nobodys-task"):
        gymnasium.make("newt/task-v0", task="nobodys-task")


def test_addresses_by_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_SIM", "dmcontrol=lab1:1, metaworld=lab2:2,my-arm=lab3:3")
    assert sim_address(None, ["walker-walk", "walker-run"]) == "lab1:1"
    assert sim_address(None, ["my-arm"]) == "lab3:3"
    assert sim_address("here:4", ["walker-walk"]) == "here:4"
    for tasks in (["walker-walk", "mw-push"], ["pong"], ["ms-ant-run"]):
        with pytest.raises(InvalidInputError, match="NEWT_SIM: got services for dmcontrol, metaworld, my-arm"):
            sim_address(None, tasks)
    monkeypatch.delenv("NEWT_SIM")
    with pytest.raises(InvalidInputError, match="set NEWT_SIM"):
        RemoteEnv("noop")
