"""The registered dimensions, lengths and pace against the live simulators of the implemented domains."""

import gymnasium
import numpy as np
import pytest
from dm_control import suite
from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
from metaworld.policies import ENV_POLICY_MAP

from newt.tasks.registry import Task, select_tasks

GYMNASIUM_IDS = {
    "mujoco-ant": "Ant-v4",
    "mujoco-halfcheetah": "HalfCheetah-v4",
    "mujoco-hopper": "Hopper-v4",
    "mujoco-inverted-pendulum": "InvertedPendulum-v4",
    "mujoco-reacher": "Reacher-v4",
    "mujoco-walker": "Walker2d-v4",
}


def by_name(task: Task) -> str:
    return task.name


@pytest.mark.parametrize("task", select_tasks(["dmcontrol"]), ids=by_name)
def test_dmcontrol(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(np, "in1d"):  # dm_control 1.0.34 calls a name that NumPy 2.4 removed
        monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    domain, _, name = task.name.replace("-", "_").partition("_")
    env = suite.load({"cup": "ball_in_cup"}.get(domain, domain), name)
    assert sum(int(np.prod(spec.shape)) for spec in env.observation_spec().values()) == task.obs_dim
    assert env.action_spec().shape == (task.action_dim,)
    assert env._step_limit == task.episode_length * task.action_repeat
    assert 1 / (env.control_timestep() * task.action_repeat) == pytest.approx(task.steps_per_s)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("task", select_tasks(["mujoco"]), ids=by_name)
def test_mujoco(task: Task) -> None:
    env = gymnasium.make(GYMNASIUM_IDS[task.name])
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.action_space.shape == (task.action_dim,)
    assert env.spec is not None
    assert env.spec.max_episode_steps == task.episode_length * task.action_repeat
    assert 1 / (env.unwrapped.dt * task.action_repeat) == pytest.approx(task.steps_per_s)  # type: ignore[attr-defined]
    env.close()


@pytest.mark.parametrize("task", select_tasks(["metaworld"]), ids=by_name)
def test_metaworld(task: Task) -> None:
    env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task.name.removeprefix('mw-')}-v3-goal-observable"](seed=0)
    assert env.observation_space.shape == (task.obs_dim,)
    assert env.action_space.shape == (task.action_dim,)
    # Stays clear of the library's own limit, of which one step is spent on reset.
    assert task.episode_length * task.action_repeat + 1 <= env.max_path_length
    assert 1 / (env.dt * task.action_repeat) == pytest.approx(task.steps_per_s)
    assert task.has_expert == (f"{task.name.removeprefix('mw-')}-v3" in ENV_POLICY_MAP)
