"""The simulators themselves, without the service: facts, recorded trajectories, seeding, frames."""

from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
import pytest
from sim_building import build

from newt.tasks.registry import get_task
from services.sim.domains.base import SimEnv, flat_float32

ONE_PER_DOMAIN = [
    "quadruped-walk",
    "mujoco-hopper",
    "mw-assembly",
    "pygame-cartpole-tremor",
    "lunarlander-hover",
    "rd-push-red",
    "og-antball",
    "atari-assault",
]


def play(env: SimEnv, seed: int, actions: npt.NDArray[np.float32]) -> list[Any]:
    history: list[Any] = [env.reset(seed).tolist()]
    for action in actions:
        result = env.step(action)
        history.append((result.obs.tolist(), result.reward, str(result.success), result.score))
    return history


def random_actions(task: str, steps: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(7).uniform(-1, 1, (steps, get_task(task).action_dim)).astype(np.float32)


@pytest.mark.parametrize("task", ONE_PER_DOMAIN)
def test_a_new_instance_plays_the_same_episode(task: str) -> None:
    actions = random_actions(task, 5)
    used, fresh = build(task), build(task)
    play(used, 1, actions)
    assert play(used, 2, actions) == play(fresh, 2, actions)


@pytest.mark.parametrize("task", ["mujoco-reacher", "mw-reach", "pendulum-swingup", "pygame-pong"])
def test_length_and_score(task: str) -> None:
    facts, env = get_task(task), build(task)
    env.reset(0)
    total = 0.0
    for step, action in enumerate(random_actions(task, facts.episode_length), start=1):
        result = env.step(action)
        total += result.reward
        assert result.truncated == (step == facts.episode_length)
        assert not result.terminated
    expected = {"dmcontrol": total / 1000, "mujoco": 1 + max(total, -50) / 50, "metaworld": result.success}
    expected["miniarcade"] = (total + 3) / 6
    assert result.score == pytest.approx(expected[facts.domain])


def test_recorded_trajectories(recorded: dict[str, Any]) -> None:
    for task, record in recorded.items():
        env = build(task)
        obs = _put_into(env, task, record["start"])
        assert obs.shape == (get_task(task).obs_dim,)
        for action, reward in zip(record["action"], record["reward"], strict=True):
            result = env.step(np.asarray(action, np.float32))
            assert result.reward == pytest.approx(reward, abs=1e-5), task
        np.testing.assert_allclose(result.obs, record["obs"], rtol=1e-5, atol=1e-5, err_msg=task)
        assert result.score == pytest.approx(record["score"], abs=1e-6), task
        if "success" in record:
            assert result.success == record["success"], task
        env.close()


def _put_into(env: Any, task: str, start: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Puts an environment into a recorded start state; returns the observation there."""
    domain = get_task(task).domain
    if domain == "ogbench":
        env.reset(0)
        mujoco.mj_resetData(env.model, env.data)
        env.data.qpos[:], env.data.qvel[:] = start["qpos"], start["qvel"]
        if task == "og-ant":
            env.direction, env._previous = np.asarray(start["direction"]), env.data.qpos[:2].copy()
        else:
            env._set_goal(np.asarray(start["goal_xy"]))
        mujoco.mj_forward(env.model, env.data)
        return flat_float32([env._observe()])
    library = env._env
    if domain == "metaworld":
        library._freeze_rand_vec, library._last_rand_vec = True, np.asarray(start["rand_vec"])
        obs: npt.NDArray[np.float32] = env.reset(0)
        return obs
    env.reset(0)
    if domain == "mujoco":
        mujoco.mj_resetData(library.model, library.data)
        library.set_state(np.asarray(start["qpos"]), np.asarray(start["qvel"]))
        return flat_float32([library._get_obs()])
    physics = library.physics
    with physics.reset_context():
        for key, value in start.items():
            if key.startswith("model_set/"):
                _, field, name = key.split("/")
                getattr(physics.named.model, field)[name] = value
            else:
                getattr(physics.data, key)[:] = value
    return flat_float32(library.task.get_observation(physics).values())


def test_hopper_that_has_fallen_pays_minus_one_per_substep() -> None:
    env: Any = build("mujoco-hopper")
    env.reset(0)
    rewards = [env.step(np.ones(3, np.float32)).reward for _ in range(100)]
    assert not env._env.is_healthy
    assert rewards[-1] == -2.0
    assert max(rewards) > 0


def test_inverted_pendulum_pays_nothing_after_its_first_failure() -> None:
    env: Any = build("mujoco-inverted-pendulum")
    env.reset(0)
    push = np.ones(1, np.float32)
    rewards = [env.step(push).reward for _ in range(30)]
    assert rewards[0] == 2.0
    first = next(i for i, reward in enumerate(rewards) if reward < 2.0)
    assert all(reward == 0.0 for reward in rewards[first + 1 :])
    env.reset(1)
    assert env.step(push).reward == 2.0


def test_the_quadruped_reaches_its_own_action_bounds() -> None:
    env: Any = build("quadruped-walk")
    env.reset(0)
    spec = env._env.action_spec()
    for sign, bound in ((1, spec.maximum), (-1, spec.minimum)):
        env.step(np.full(12, sign, np.float32))
        np.testing.assert_allclose(env._env.physics.data.ctrl, bound, atol=1e-12)
    assert spec.maximum.max() == 1.1


@pytest.mark.usefixtures("graphics")
@pytest.mark.parametrize("task", ONE_PER_DOMAIN)
def test_frames_show_something_and_change_nothing(task: str) -> None:
    actions = random_actions(task, 3)
    env, undrawn = build(task, rendering=True), build(task)
    env.reset(5)
    frame = env.render()
    assert frame.shape == (224, 224, 3)
    assert frame.dtype == np.uint8
    assert frame.std() > 10
    for action in actions:
        env.step(action)
        env.render()
    after = env.render()
    assert (after != frame).any()
    np.testing.assert_array_equal(env.render(), after)
    assert play(env, 6, actions) == play(undrawn, 6, actions)


@pytest.mark.usefixtures("graphics")
def test_frames_are_upright_and_separate() -> None:
    # The sky is above the floor, the ant's torso in the middle; two tasks in one process do not mix.
    walker, ant, sawyer = build("walker-stand"), build("mujoco-ant"), build("mw-reach")
    for env in (walker, ant, sawyer):
        env.reset(0)
    first = walker.render()
    checker = ant.render()
    # The ant's floor is a black and pale checker, the sky above it plain grey.
    assert checker[150:].std() > 2 * checker[:60].std()
    # Meta-World's table is brown and at the bottom; above is grey.
    table, above = sawyer.render()[180:, :60].mean((0, 1)), sawyer.render()[:20, :60].mean((0, 1))
    assert table[0] > table[2] + 20
    assert np.ptp(above) < 15
    np.testing.assert_array_equal(walker.render(), first)
