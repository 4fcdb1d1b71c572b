from __future__ import annotations

import numpy as np
import pytest

from newt.acting.stage import EpisodeStage
from newt.tasks.registry import get_task
from newt.wire.episodes import Behaviour, Episode

LENGTHS = (3, 6)


def _obs(row: int, episode: int, step: int) -> np.ndarray:
    return np.full(128, 100 * row + 10 * episode + step, np.float32)


def test_episodes_of_different_lengths_do_not_mix() -> None:
    """Two instances with T=3 and T=6, stepped 12 times: rows 0..T in order, each with its own first observation."""
    stage = EpisodeStage([get_task("mw-reach"), get_task("walker-walk")])
    episode, step, stored = [0, 0], [0, 0], []
    for row in range(2):
        stage.begin(row, _obs(row, 0, 0), seed=row)
    for _ in range(12):
        for row in range(2):
            step[row] += 1
            action = np.full(16, 0.01 * step[row], np.float32)
            stage.step(row, action, step[row], _obs(row, episode[row], step[row]), Behaviour.PLANNER, 7)
            if step[row] == LENGTHS[row]:
                stored.append((row, stage.finish(row, f"{row}/{episode[row]}", terminated=False, success=0, score=0)))
                episode[row], step[row] = episode[row] + 1, 0
                stage.begin(row, _obs(row, episode[row], 0), seed=row)
    assert [row for row, _ in stored] == [0, 0, 1, 0, 0, 1]
    for row, stored_episode in stored:
        T, number = LENGTHS[row], int(stored_episode.episode_id.split("/")[1])
        np.testing.assert_array_equal(stored_episode.obs[:, 0], [100 * row + 10 * number + t for t in range(T + 1)])
        np.testing.assert_allclose(stored_episode.action[:, 0], [0.01 * t for t in range(1, T + 1)], rtol=1e-6)
        np.testing.assert_array_equal(stored_episode.reward, range(1, T + 1))


def _one_step(behaviours: list[int], versions: list[int]) -> Episode:
    stage = EpisodeStage([get_task("mw-reach")])
    obs = np.zeros(128, np.float32)
    stage.begin(0, obs, seed=2**64 - 1)
    for behaviour, version in zip(behaviours, versions, strict=True):
        stage.step(0, np.zeros(16, np.float32), 1.5, obs, behaviour, version)
    return stage.finish(0, "x", terminated=True, success=1.0, score=0.5)


def test_only_valid_columns_are_kept() -> None:
    episode = _one_step([Behaviour.RANDOM], [0])
    task = get_task("mw-reach")
    assert episode.obs.shape == (2, task.obs_dim)
    assert episode.action.shape == (1, task.action_dim)
    assert (episode.terminated, episode.success, episode.score, episode.seed) == (True, 1.0, 0.5, 2**64 - 1)


def test_an_episode_tells_who_acted_with_which_weights() -> None:
    random = _one_step([Behaviour.RANDOM], [0])
    mixed = _one_step([Behaviour.POLICY, Behaviour.PLANNER], [4, 9])
    assert (random.behaviour, random.weights_versions) == (Behaviour.RANDOM, (0, 0))
    assert (mixed.behaviour, mixed.weights_versions) == (Behaviour.MIXED, (4, 9))


def test_a_step_needs_an_episode() -> None:
    stage = EpisodeStage([get_task("mw-reach")])
    with pytest.raises(RuntimeError, match="begin one first"):
        stage.step(0, np.zeros(16, np.float32), 0, np.zeros(128, np.float32), Behaviour.RANDOM)
