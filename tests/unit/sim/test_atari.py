"""Atari without the service: the stick, points, frames, and that no episode knows of the one before."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sim_building import build

from newt.tasks.registry import get_task, select_tasks
from services.sim.domains.atari import _GAMES


def play(env: Any, actions: npt.NDArray[np.float32]) -> list[Any]:
    history: list[Any] = [env.reset(0).tobytes(), env.render().tobytes()]
    for action in actions:
        result = env.step(action)
        history.append((result.obs.tobytes(), result.reward, result.score))
    return [*history, env.render().tobytes()]


def random_actions(steps: int, seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, 3)).astype(np.float32)


def stick(angle: float, deflection: float = 1.0, fire: float = 0.0) -> npt.NDArray[np.float32]:
    """An action from an angle in degrees, deflection and fire in 0..1."""
    return np.array([2 * deflection - 1, angle / 180, 2 * fire - 1], np.float32)


def test_every_task_has_its_game() -> None:
    assert list(_GAMES) == [task.name for task in select_tasks(["atari"])]
    assert all(game.low < game.high for game in _GAMES.values())


@pytest.mark.parametrize("task", ["atari-assault", "atari-beamrider", "atari-ice-hockey", "atari-yars-revenge"])
def test_games_that_remember_are_made_to_forget(task: str) -> None:
    used, fresh = build(task), build(task)
    play(used, random_actions(150, seed=1))
    actions = random_actions(150, seed=2)
    assert play(used, actions) == play(fresh, actions)


def test_the_stick_in_boxing() -> None:
    # The player's place is in bytes 32 (from the left) and 34 (from the top) of the memory.
    env = build("atari-boxing")

    def moved(action: npt.NDArray[np.float32]) -> tuple[float, float]:
        before = env.reset(0)
        for _ in range(12):
            after = env.step(action).obs
        return float(after[32] - before[32]), float(after[34] - before[34])

    for nothing in (np.zeros(3, np.float32), stick(0, 0.49), stick(45, 0.7), stick(180, 0.49, fire=1)):
        assert moved(nothing) == (0, 0)
    right, right_y = moved(stick(0))
    assert right > 0
    assert right_y == 0
    assert moved(stick(0, 0.51)) == (right, 0)
    down, down_y = moved(stick(-90))
    assert down == 0
    assert down_y > 0
    assert moved(stick(-45, 0.72)) == (right, down_y)


def test_fire_is_a_switch() -> None:
    env = build("atari-space-invaders")
    still = play(env, np.tile(stick(0, 0, fire=0), (40, 1)))
    assert play(env, np.tile(stick(0, 0, fire=0.5), (40, 1))) == still
    fired = play(env, np.tile(stick(0, 0, fire=0.51), (40, 1)))
    assert fired != still
    assert play(env, np.tile(stick(0, 0, fire=1), (40, 1))) == fired


@pytest.mark.parametrize(
    ("task", "idle_points"),
    # Measured once. Nothing is random, so these are exact: what the games do when nobody plays.
    [("atari-pong", -21), ("atari-atlantis", 2000), ("atari-upndown", 490), ("atari-road-runner", 0)],
)
def test_points_of_an_idle_player(task: str, idle_points: float) -> None:
    env, facts, game = build(task), get_task(task), _GAMES[task]
    env.reset(0)
    results = [env.step(np.zeros(3, np.float32)) for _ in range(facts.episode_length)]
    points = np.cumsum([result.reward for result in results])
    assert points[-1] == idle_points
    np.testing.assert_allclose(
        [result.score for result in results], np.clip((points - game.low) / (game.high - game.low), 0, 1)
    )
    assert [result.truncated for result in results].index(True) == 999
    assert not any(result.terminated for result in results)


def test_a_game_that_is_over_stays_as_it_is() -> None:
    env = build("atari-road-runner")
    play(env, random_actions(150, seed=0))  # Over after 100 steps.
    before, frame = env.step(stick(90)).obs, env.render()
    for action in random_actions(50, seed=1):
        result = env.step(action)
        np.testing.assert_array_equal(result.obs, before)
        assert result.reward == 0
    np.testing.assert_array_equal(env.render(), frame)
    assert (env.reset(0) != before).any()


def test_the_picture_is_not_scaled_and_in_the_middle() -> None:
    env: Any = build("atari-boxing")
    env.reset(0)
    frame = env.render()
    np.testing.assert_array_equal(frame[7:217, 32:192], env._env.ale.getScreenRGB())
    frame[7:217, 32:192] = 0
    assert not frame.any()
    # Boxing is played on green.
    assert (np.median(env.render()[60:160, 60:160], (0, 1)).argmax()) == 1
