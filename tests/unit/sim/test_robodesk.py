"""RoboDesk: recorded trajectories, quirks that are kept, what is seen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sim_building import build

from newt.tasks.registry import get_task
from services.sim.domains.robodesk import _observe

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("robodesk_recorded.json").read_text())


@pytest.mark.parametrize("task", RECORDED)
def test_recorded_trajectories(task: str) -> None:
    # The inverse kinematics of the library amplify the last digits of linear algebra, which differ between kinds of
    # processors; the rewards hardly notice.
    record, env = RECORDED[task], build(task)
    env.reset(0)
    np.testing.assert_allclose(_put_into(env, **record["start"]), record["first_obs"], atol=1e-5)
    results = [env.step(np.array(action, np.float32)) for action in record["action"]]
    np.testing.assert_allclose([result.reward for result in results], record["reward"], atol=5e-3)
    assert [result.success for result in results] == record["success"]
    assert results[-1].score == record["success"][-1]
    np.testing.assert_allclose(results[-1].obs[:3], record["obs"][:3], atol=2e-3)
    np.testing.assert_allclose(results[-1].obs[29:38], record["obs"][29:38], atol=1e-2)
    env.close()


def _put_into(env: Any, qpos: list[float], qvel: list[float]) -> npt.NDArray[np.float32]:
    desk = env._env
    desk.physics.reset()
    desk.physics.data.qpos[:], desk.physics.data.qvel[:] = qpos, qvel
    desk.physics.forward()
    desk.physics_copy.data.qpos[:] = qpos
    return _observe(desk._get_obs())


def test_an_episode() -> None:
    env: Any = build("rd-open-drawer")
    obs = env.reset(2)
    began = env._env.physics.data.time
    rng = np.random.default_rng(2)
    # No positions of objects: their velocities stand there, too.
    np.testing.assert_array_equal(obs[3:29], obs[38:64])
    for step in range(1, 101):
        result = env.step(rng.uniform(-1, 1, 5).astype(np.float32))
        assert 0 <= result.reward <= 10
        assert result.truncated == (step == 100)
        assert not result.terminated
        assert result.score == result.success
    assert get_task("rd-open-drawer").steps_per_s == pytest.approx(100 / (env._env.physics.data.time - began))
    env.close()


def test_the_global_generator_is_left_alone() -> None:
    env = build("rd-push-blue")
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    env.reset(1)
    np.testing.assert_array_equal(np.random.random(3), expected)


@pytest.mark.usefixtures("graphics")
def test_the_picture() -> None:
    env = build("rd-push-green")
    env.reset(0)
    frame = env.render().astype(int)
    # Red, green and blue button from left to right on the front edge of the desk, which is below the middle.
    places = []
    for channel in range(3):
        others = np.delete(frame, channel, axis=2).max(axis=2)
        rows, columns = np.nonzero((frame[:, :, channel] > 140) & (others < 0.35 * frame[:, :, channel]))
        low = rows > 115
        assert low.any()
        places.append(float(np.median(columns[low])))
    assert places == sorted(places)
    assert places[2] < 150
