"""Box2D: recorded flights and walks, terrains, what simple policies get, what is seen."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sim_building import build

from newt.tasks.registry import get_task, select_tasks
from services.sim.domains.box2d.lander import Start
from services.sim.domains.box2d.terrain import COLUMNS, GENERATORS, LEVEL, SPACING, Terrain

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("box2d_recorded.json").read_text())


class RecordedDraws:
    """Stands for the episode's generator where it disturbs the engines."""

    def __init__(self, values: list[list[float]]) -> None:
        self._values: Iterator[float] = iter(np.ravel(values).tolist())

    def uniform(self, low: float, high: float) -> float:
        return next(self._values)


def zeros(task: str) -> npt.NDArray[np.float32]:
    return np.zeros(get_task(task).action_dim, np.float32)


def episode(task: str, seed: int, random: bool = False) -> tuple[float, float, Any]:
    """Return, score and environment after a whole episode of zero or of random actions."""
    env: Any = build(task)
    env.reset(seed)
    rng, total = np.random.default_rng(seed), 0.0
    for _ in range(get_task(task).episode_length):
        action = rng.uniform(-1, 1, zeros(task).shape).astype(np.float32) if random else zeros(task)
        result = env.step(action)
        total += result.reward
    assert result.truncated
    return total, result.score, env


@pytest.mark.parametrize("task", RECORDED)
def test_recorded_trajectories(task: str) -> None:
    record = RECORDED[task]
    env: Any = build(task)
    env.reset(0)
    _put_into(env, task, record["start"], record)
    np.testing.assert_allclose(env._observe(), record["first_obs"], atol=1e-6)
    rewards = []
    for action in record["action"]:
        result = env.step(np.array(action, np.float32))
        rewards.append(result.reward)
    np.testing.assert_allclose(rewards, record["reward"], atol=1e-5)
    np.testing.assert_allclose(result.obs, record["obs"], atol=1e-5)


def _put_into(env: Any, task: str, start: dict[str, Any], record: dict[str, Any]) -> None:
    if task.startswith("bipedal"):
        boxes = [[(x, y) for x, y in box] for box in start.get("boxes", [])]
        env._build(Terrain(start["heights"], boxes), start["push"])
    else:
        env._rng = RecordedDraws(record["dispersion"])
        position, push, goal = (tuple(start[key]) for key in ("position", "push", "goal"))
        env._build(Start(np.array(start["heights"]), position, push, goal))
    env._advance(zeros(task))


@pytest.mark.parametrize("name", GENERATORS)
def test_terrains(name: str) -> None:
    one, same, other = (GENERATORS[name](np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert (one == other) == (name == "flat")
    heights = np.array(one.heights)
    assert len(heights) == COLUMNS
    if name == "hills":
        assert np.ptp(heights) > 0.7
        assert (heights < LEVEL + 0.001).all()
    else:
        # The walker starts on flat ground, obstacles or not.
        np.testing.assert_array_equal(heights[:20], LEVEL)
    if name in ("uneven", "rugged"):
        assert heights[21:].std() > 0.05
        assert (heights >= 1).all()
        assert (heights <= 5.5).all()


def test_obstacles_are_stumps_on_the_ground_and_pits_with_walls() -> None:
    seen = set()
    for seed in range(10):
        terrain = GENERATORS["obstacles"](np.random.default_rng(seed))
        assert terrain.boxes[0][0][0] == pytest.approx(20 * SPACING)
        for corners in terrain.boxes:
            (left, bottom), (right, top) = corners[0], corners[2]
            width = round((right - left) / SPACING)
            column = round(left / SPACING)
            if width == 1:  # A wall of a pit, flush with the ground.
                seen.add("pit")
                assert top - bottom == pytest.approx(3 * SPACING)
            else:
                seen.add(f"stump {width}")
                assert top - bottom == pytest.approx(0.75 * width * SPACING)
                below = terrain.heights[column : column + width]
                assert below == pytest.approx([bottom] * len(below))
        walls = [corners[2] for corners in terrain.boxes if round((corners[1][0] - corners[0][0]) / SPACING) == 1]
        for near, far in zip(walls[::2], walls[1::2], strict=True):
            gap = round((far[0] - SPACING - near[0]) / SPACING)
            assert gap in (1, 2)
            if round(far[0] / SPACING) < COLUMNS:
                assert terrain.heights[round(near[0] / SPACING)] == pytest.approx(near[1] - 3 * SPACING)
    assert seen == {"pit", "stump 2", "stump 3"}


def test_the_walker_stands_where_it_always_has() -> None:
    obs = build("bipedal-walker-flat").reset(3)
    assert obs[[4, 6, 9, 11]] == pytest.approx([0.092, 0.860, 0.033, 0.854], abs=0.003)
    assert obs[[8, 13]].tolist() == [1, 1]
    lidar = [0.441, 0.446, 0.461, 0.490, 0.534, 0.602, 0.709, 0.886, 1, 1]
    assert obs[14:] == pytest.approx(lidar, abs=0.005)


@pytest.mark.parametrize(
    ("terrain", "low", "high"), [("flat", -372, -355), ("obstacles", -372, -355), ("hills", -475, -415)]
)
def test_a_walker_that_does_nothing_falls_and_pays_for_the_rest(terrain: str, low: float, high: float) -> None:
    for seed in range(3):
        total, score, env = episode(f"bipedal-walker-{terrain}", seed)
        assert low < total < high
        assert score == 0
        assert env.step(zeros("bipedal-walker-flat")).reward == -2  # Both physics steps.
        env.reset(seed)
        assert env.step(zeros("bipedal-walker-flat")).reward > -2


def test_random_walkers_score_next_to_nothing() -> None:
    for seed in range(3):
        total, score, _ = episode("bipedal-walker-rugged", seed, random=True)
        assert -480 < total < 20
        assert score < 0.05


def test_a_lander_that_does_nothing() -> None:
    landings = [episode("lunarlander-land", seed) for seed in range(6)]
    assert all(score <= 0.33 for _, score, _ in landings)
    # A wreck at rest is paid: the official score knows no difference, the corrected one does.
    assert max(score for _, score, _ in landings) > 0.2
    assert [env.corrected_score for _, _, env in landings] == [0.0] * 6
    for seed in range(3):
        total, score, env = episode("lunarlander-hover", seed)
        assert 20 < total < 250
        assert score == pytest.approx(total / 500)
        assert env.corrected_score is None
        assert episode("lunarlander-takeoff", seed)[:2] == (0.0, 0.0)


def test_random_landers() -> None:
    for seed in range(3):
        assert episode("lunarlander-land", seed, random=True)[1] == 0
        assert episode("lunarlander-takeoff", seed, random=True)[1] < 0.2


def test_a_good_landing_scores_below_a_half_and_far_more_when_corrected() -> None:
    env: Any = build("lunarlander-land")
    for seed in range(2):
        obs = env.reset(seed)
        for _ in range(250):
            result = env.step(_pilot(obs))
            obs = result.obs
        assert obs[6:].tolist() == [1, 1]
        assert 0.2 < result.score < 0.5
        assert env.corrected_score > 0.6


def _pilot(obs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Leans against its drift, and brakes the more the lower it is."""
    x, y, vx, vy, angle, spin, left, right = obs
    if left and right:
        return np.array([-1, 0], np.float32)
    lean = np.clip(2.7 * x + 4.5 * vx, -0.4, 0.4)
    sink = -max(0.6, 2.84 * max(y, 0) ** 0.5)
    return np.clip([sink - vy / 0.1333, 4 * (angle - lean) + 3.75 * spin], -1, 1).astype(np.float32)


def test_takeoff_starts_on_both_legs() -> None:
    env: Any = build("lunarlander-takeoff")
    for seed in range(5):
        obs = env.reset(seed)
        assert obs[6:8].tolist() == [1, 1]
        # Pushed onto the pad, it may still slide, but it does not bounce.
        assert np.abs(obs[2]) < 0.2
        assert np.abs(obs[3:6]).max() < 0.15
        assert env._hull.position.y == pytest.approx(3.66, abs=0.05)
        way = obs[8:10] * 20 / 3
        assert env.goal == pytest.approx(tuple(env._hull.position + way.tolist()), abs=1e-4)


@pytest.mark.parametrize("task", [task.name for task in select_tasks(["box2d"])])
def test_frames_depend_on_the_episode_alone(task: str) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (12, *zeros(task).shape)).astype(np.float32)
    actions[:, 0] = np.abs(actions[:, 0])
    watched, unwatched = build(task, rendering=True), build(task)
    first = {}
    for seed in (4, 5):
        watched.reset(seed)
        first[seed] = watched.render()
        unwatched.reset(seed)
        for action in actions:
            watched.step(action)
            last = watched.render()
            unwatched.step(action)
        np.testing.assert_array_equal(unwatched.render(), last)
        assert (last != first[seed]).any()
    # The corners show sky and ground, whose colours differ between episodes.
    assert (first[4][0, 0] != first[5][0, 0]).any()
    assert (first[4][-1, -1] != first[5][-1, -1]).any()


def test_the_walkers_picture() -> None:
    env = build("bipedal-walker-flat")
    env.reset(1)
    frame = env.render().astype(int)
    # Pale sky at the top, green or brown ground in the lowest fifth, the purple hull in between, at the left.
    assert frame[120, 200].min() > 190
    assert frame[200:, :, 2].max() < 165
    surface = 224 - round(LEVEL * 15)
    assert frame[surface + 3, 100].max() < 215 < frame[surface - 3, 100].max()
    rows, columns = np.nonzero((frame == (127, 51, 229)).all(axis=2))
    assert len(rows) > 100
    assert 20 < columns.mean() < 70
    assert 120 < rows.mean() < surface
    # The first lidar ray that is drawn is number 1, nearly straight down.
    assert (frame == (255, 0, 0)).all(axis=2).any()


def test_the_landers_pictures() -> None:
    env: Any = build("lunarlander-hover")
    env.reset(1)
    frame = env.render().astype(int)
    scale = 224 * 3 / 40
    goal_x, goal_y = (round(value * scale) for value in env.goal)
    # Dark sky, an olive disc where the goal is, pale ground below.
    assert frame[2, 2].max() < 50
    disc = frame[224 - goal_y, goal_x]
    assert disc[:2].min() > 60
    assert disc[2] < 40
    assert frame[220, 112].min() > 170
    # Firing shows: something reddish that was not there before.
    for _ in range(3):
        env.step(np.array([1, 0], np.float32))
    red = env.render().astype(int)
    glow = (red[:, :, 0] > 100) & (red[:, :, 1] < 0.7 * red[:, :, 0]) & (red[:, :, 2] < 0.7 * red[:, :, 0])
    assert glow.any()
    lander = build("lunarlander-land")
    lander.reset(1)
    picture = lander.render().astype(int)
    yellow = (picture[:, :, 0] > 150) & (picture[:, :, 1] > 150) & (picture[:, :, 2] < 80)
    rows, columns = np.nonzero(yellow)
    assert len(rows) > 20  # Two pennants, on either side of the middle.
    assert columns.min() < 112 < columns.max()
    assert 130 < rows.mean() < 168
