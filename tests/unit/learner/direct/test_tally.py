"""Counting what a fleet plays."""

import numpy as np

from newt.tasks.registry import get_task
from services.learner.direct.fleet import FleetStep
from services.learner.direct.tally import Tally

TASKS = [get_task("mujoco-reacher"), get_task("mujoco-reacher"), get_task("walker-walk")]


def step(reward: list[float], truncated: list[bool], valid: list[bool] | None = None) -> FleetStep:
    obs, no = np.zeros((3, 128), np.float32), np.zeros(3, bool)
    score = np.array([0.5, 0.7, 0.9], np.float32)
    success = np.array([np.nan, np.nan, 1.0], np.float32)
    ok = np.ones(3, bool) if valid is None else np.array(valid)
    return FleetStep(obs, obs, np.array(reward, np.float32), no, np.array(truncated), ok, success, score)


def test_episodes_are_counted_when_they_end() -> None:
    tally = Tally(TASKS)
    tally.stepped(step([1, 2, 4], [False, False, False]))
    assert tally.take_finished() == {}
    tally.stepped(step([1, 2, 4], [True, True, False]))
    found = tally.take_finished()
    assert found["return/mujoco-reacher"] == 3.0  # of 2 and 4
    assert found["length/mujoco-reacher"] == 2
    assert abs(found["score/mujoco-reacher"] - 0.6) < 1e-6
    assert "return/walker-walk" not in found
    assert found["episodes"] == 2
    assert tally.env_steps == 6
    reacher = tally.snapshot()["mujoco-reacher"]
    assert (reacher.env_steps, reacher.episodes, reacher.last_return, reacher.last_success) == (4, 2, 4.0, None)


def test_an_episode_whose_simulator_broke_does_not_count() -> None:
    tally = Tally(TASKS)
    tally.stepped(step([1, 2, 4], [False, False, False]))
    tally.stepped(step([1, np.nan, 4], [False, False, False], [True, False, True]))
    tally.stepped(step([1, 2, 4], [True, True, True]))
    found = tally.take_finished()
    assert found["return/mujoco-reacher"] == (3 + 2) / 2
    assert tally.snapshot()["walker-walk"].last_success == 1.0
    assert found["success/walker-walk"] == 1.0
    assert "success/mujoco-reacher" not in found  # it defines none


def test_counts_go_on_where_they_were() -> None:
    tally = Tally(TASKS)
    tally.stepped(step([1, 2, 4], [True, False, False]))
    again = Tally(TASKS, tally.counts())
    assert again.env_steps == 3
    again.stepped(step([1, 2, 4], [True, False, False]))
    assert again.counts() == {"mujoco-reacher": [4, 2], "walker-walk": [2, 0]}
