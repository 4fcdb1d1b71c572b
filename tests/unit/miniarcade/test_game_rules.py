"""Each game's rules, step by step: figures taken from the original games, and the rules that have exceptions."""

import math
from typing import Any

import numpy as np
import pytest

from newt.miniarcade import Outcome, make_game
from newt.miniarcade.games.air_hockey import Paddle
from newt.miniarcade.games.bird_attack import Bird
from newt.miniarcade.games.chase_evade import Runner
from newt.miniarcade.games.coconut_dodge import Coconut
from newt.miniarcade.games.highway import Slot
from newt.miniarcade.games.rocket_collect import Asteroid

ROUNDING = 6e-6
"""Half a unit of the last digit that was written down, and float32."""


def begin(name: str, seed: int = 0, **state: Any) -> Any:
    """A game at the start of an episode, with some of its state replaced."""
    game: Any = make_game(name)
    game.reset(seed)
    for key, value in state.items():
        assert hasattr(game, key), key
        setattr(game, key, value)
    return game


def play(game: Any, steps: int, *action: float) -> list[Outcome]:
    return [game.step(action) for _ in range(steps)]


def check(outcome: Outcome, expected: dict[int, float], reward: float | None = None) -> None:
    got = {index: float(outcome.obs[index]) for index in expected}
    assert got == pytest.approx(expected, abs=ROUNDING)
    if reward is not None:
        assert outcome.reward == pytest.approx(reward, abs=1e-6)


def columns(first: int, *values: float) -> dict[int, float]:
    return dict(enumerate(values, start=first))


# ---------------------------------------------------------------- air hockey


def test_air_hockey_hits_the_puck() -> None:
    game = begin("pygame-air-hockey", agent=Paddle((112, 150)), opponent=Paddle((112, 52)), x=115, y=128, vx=1, vy=5)
    outcome = game.step([0.2, -0.8])
    assert (game.agent.x, game.agent.y) == (113.5, 144)
    assert (game.x, game.y) == pytest.approx((117.1567, 127.9103), abs=1e-4)
    assert (game.vx, game.vy) == pytest.approx((4.0086, -11.3107), abs=1e-4)
    assert (game.opponent.vx, game.opponent.vy, outcome.reward) == (0, 0, 0)


def test_air_hockey_goals_are_served_to_the_loser() -> None:
    game = begin("pygame-air-hockey", x=112, y=16, vx=0, vy=-6, opponent=Paddle((60, 60)))
    assert game.step([1, 1]).reward == 1
    assert game.vy < 0
    assert (game.agent.x, game.agent.y, game.agent.vx) == (112, 170, 0)
    game.x, game.y, game.vx, game.vy = 130.0, 206.0, 0.0, 6.0
    assert game.step([0, 0]).reward == -1
    assert game.vy > 0
    assert game.goals == [1, 1]
    # Beside the mouth there is a wall.
    game.x, game.y, game.vx, game.vy = 60.0, 196.0, 0.0, 6.0
    assert game.step([0, 0]).reward == 0
    assert (game.y, game.vy) == (194, pytest.approx(-6 * 0.9 * 0.998))


# ---------------------------------------------------------------- bird attack


def test_bird_attack_reloads_and_clears() -> None:
    game = begin("pygame-bird-attack")
    first = game.step([0, 1])
    check(first, {1: 7 / 5, 2: 1, 20: 112 / 224, 21: 171 / 224})
    assert [len(game.shots) for _ in play(game, 8, 0, 1)][-1] == 2
    game = begin("pygame-bird-attack", birds=[Bird(105, 60, points=1)], shots=[[112.0, 76.0]], rng=NoFire())
    assert game.step([0, 0]).reward == 2  # The bird, and the first step without birds.
    assert game.step([0, 0]).reward == 1
    check(game.step([0, 0]), {2: 0, 19: 20 / 224})


class NoFire:
    def random(self, count: int) -> np.ndarray[Any, Any]:
        return np.ones(count)


def test_bird_attack_a_hit_stuns() -> None:
    game = begin("pygame-bird-attack", bird_shots=[[112.0, 180.0], [114.0, 180.0]], rng=NoFire())
    outcome = game.step([0, 1])
    assert outcome.reward == -4
    check(outcome, {50: 1.6, 1: 3.2})
    assert game.step([1, 0]).obs[0] == pytest.approx((105 + 1.2) / 224)


def test_bird_attack_boss_fires_on_step_305() -> None:
    game = begin("pygame-bird-attack", birds=[])
    outcomes = play(game, 305, 0, 0)
    assert not any(outcome.obs[51:55].any() for outcome in outcomes[:304])
    assert np.linalg.norm(outcomes[304].obs[53:55]) == pytest.approx(1)
    assert outcomes[304].obs[54] > 0


def test_bird_attack_flock_turns() -> None:
    game = begin("pygame-bird-attack", rng=NoFire())
    xs, ys = zip(*((game.step([0, 0]).obs[3] * 224, game.birds[0].y) for _ in range(12)), strict=True)
    assert [round(float(x)) for x in xs] == [41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 50, 49]
    assert ys[9:11] == (40, 44)


# ---------------------------------------------------------------- cartpole


@pytest.mark.parametrize(
    ("shake", "states", "rewards"),
    [
        (
            0.0,
            [(0.095, -0.058923, 0.31, 0.322125), (0.093527, 0.081879, 0.318053, 0.248032)],
            [0.802648, 0.797521],
        ),
        (3.0, [(0.095, -0.063605, 0.31, 0.397125), (0.09341, 0.072558, 0.319928, 0.397998)], [0.802648, 0.796327]),
    ],
)
def test_cartpole_dynamics(shake: float, states: list[tuple[float, ...]], rewards: list[float]) -> None:
    game = begin("pygame-cartpole-tremor", x=0.1, x_speed=-0.2, angle=0.3, angle_speed=0.4, shake=shake)
    game.shake_left, game.pause = (5, 50) if shake else (0, 50)
    for state, reward in zip(states, rewards, strict=True):
        check(game.step([0.5]), columns(0, *state), reward)


def test_cartpole_pays_on_the_track_only() -> None:
    for task, reward in (("pygame-cartpole-balance", 1 - 0.1 / (math.pi / 2)), ("pygame-cartpole-balance-sparse", 1)):
        game = begin(task, x=2.39, x_speed=0, angle=0.1, angle_speed=0)
        assert game.step([0]).reward == pytest.approx(reward)
        game.x = 2.41
        assert game.step([0]).reward == 0
    game = begin("pygame-cartpole-swingup", x=0, x_speed=0, angle=2 * math.pi, angle_speed=0)
    assert game.step([0]).reward == 0  # Upright after a turn is not upright.


def test_tremors_come_and_go() -> None:
    game = begin("pygame-cartpole-tremor")
    assert 40 <= game.pause <= 80
    lengths, pauses = [], []
    for seed in range(5):
        game.reset(seed)
        shaking = []
        for _ in range(500):
            left = game.shake_left
            game.step([0])
            shaking.append(left > 0)
        runs = "".join("s" if s else "." for s in shaking).strip(".").replace(".s", ". s").replace("s.", "s .").split()
        lengths += [len(run) for run in runs[:-1] if run[0] == "s"]
        pauses += [len(run) for run in runs if run[0] == "."]
        assert 1.75 <= abs(game.shake) <= 5
    assert set(lengths) <= set(range(5, 11))
    assert set(pauses) <= set(range(50, 91))


# ---------------------------------------------------------------- chase and evade


def test_chase_evade_trace() -> None:
    game = begin(
        "pygame-chase-evade", evading=True, phase=0.0, direction=1, agent=Runner(60, 100), opponent=Runner(165, 105)
    )
    outcomes = play(game, 3, 0.5, -0.5)
    assert [outcome.reward for outcome in outcomes] == pytest.approx([0.113161, 0.107860, 0.102553], abs=1e-6)
    assert outcomes[0].obs[0] * 224 == pytest.approx(61.6625, abs=1e-4)
    opponents = [tuple(outcome.obs[4:6] * 224) for outcome in outcomes]
    expected = [(163.4727, 101.0110), (160.3608, 99.4089), (157.2423, 97.8199)]
    assert np.array(opponents) == pytest.approx(np.array(expected), abs=1e-4)


def test_a_catch_swaps_roles_after_both_took_their_places() -> None:
    game = begin("pygame-chase-evade", evading=False, phase=0.0, agent=Runner(112, 60), opponent=Runner(112, 45))
    outcome = game.step([0, -1])
    assert game.evading
    assert outcome.reward > 0
    assert outcome.obs[8] == 1
    steps = 0
    while game.changing is not None:
        game.step([1, 1])  # Has no effect.
        steps += 1
    assert steps >= 5
    assert math.hypot(game.opponent.x - 112, game.opponent.y - 118) <= 2
    assert game.agent.x == pytest.approx(112)


# ---------------------------------------------------------------- coconut dodge


def test_coconut_dodge_motion_and_contact() -> None:
    game = begin("pygame-coconut-dodge")
    xs = [(outcome.obs[0] * 200 + 12, outcome.obs[1] * 5) for outcome in play(game, 3, 1)]
    expected = [(112.8245, 0.8245), (114.448765, 1.624265), (116.848802, 2.400037)]
    assert np.array(xs) == pytest.approx(np.array(expected), abs=1e-4)
    game = begin("pygame-coconut-dodge", coconuts=[Coconut(7, 112, 180, 0, 3, 1)])
    outcomes = play(game, 20, 0)
    rewards = [outcome.reward for outcome in outcomes]
    # It costs every step from 16 pixels on, until it breaks on the ground.
    assert rewards == [0.0] + [-1.0] * 7 + [0.0] * 12
    flags = [outcome.obs[4] for outcome in outcomes]
    assert flags == [0.0] + [1.0] * 11 + [0.0] * 8
    assert game.coconuts[0].number > 1


def test_coconut_dodge_gets_harder() -> None:
    game = begin("pygame-coconut-dodge")
    counts = [np.count_nonzero(outcome.obs[6::4]) for outcome in play(game, 500, 0)]
    assert [counts[step - 1] for step in (1, 99, 100, 200, 300, 400, 499, 500)] == [1, 1, 2, 3, 4, 5, 5, 6]


# ---------------------------------------------------------------- coinrun and cowboy


def test_a_full_jump() -> None:
    game = begin("pygame-coinrun")
    outcomes = play(game, 1, 1) + play(game, 22, 0)
    heights = [round(154 + float(outcome.obs[0]) * 224) for outcome in outcomes]
    assert heights[:12] == [143, 133, 124, 116, 109, 103, 98, 94, 91, 89, 88, 88]
    assert heights[-2:] == [143, 154]
    assert outcomes[-1].obs[1] == pytest.approx(1.1)  # Still falling, though on the ground.
    assert game.step([0]).obs[1] == 0
    assert game.step([1 / 12]).obs[0] == 0  # Too weak to leave the ground.


def test_coins_are_boxes() -> None:
    game = begin("pygame-coinrun", coins=[[77.0, 150.0], [60.0, 100.0]])
    first, second, third = play(game, 3, 0)
    assert (first.reward, second.reward, third.reward) == (0, 1, 0)
    assert second.obs[2:4].tolist() == [-1, -1]
    game = begin("pygame-coinrun", coins=[[5.0, 100.0]])
    assert game.step([0]).obs[2] < 0  # Missed ones stay until they are nine pixels out.
    assert 224 + 20 <= game.step([0]).obs[2] * 224 <= 224 + 59


def test_cowboy_runs_into_the_first_cactus() -> None:
    game = begin("pygame-cowboy")
    rewards = [outcome.reward for outcome in play(game, 500, 0)]
    assert rewards == [1.0] * 21 + [-1.0] * 479
    assert game.left == 54
    for seed in range(5):
        game.reset(seed)
        while game.steps < 500:
            game.step([1 if 58 < game.left <= 100 else -1])
        assert game.total == 500


def test_cowboy_stands_on_a_wide_cactus() -> None:
    game = begin("pygame-cowboy", left=44, kind=2, width=40, height=40)
    game.runner.y, game.runner.speed = 111.0, 3.0
    outcome = game.step([0])
    assert (game.runner.y, outcome.reward) == (114, 1)
    assert outcome.obs[:2].tolist() == [pytest.approx(-40 / 224), 0]
    rewards = [outcome.reward for outcome in play(game, 6, 0)]
    assert -1 in rewards  # At the end it drops into the last few pixels.


# ---------------------------------------------------------------- highway


def test_highway_trace() -> None:
    far = [Slot(wait=1000) for _ in range(3)]
    game = begin(
        "pygame-highway", x=40, y=103, vx=0, vy=0, slots=[Slot(wait=0, active=True, kind="blue", lane=2, x=150), *far]
    )
    steps = dict(enumerate(play(game, 16, 0.5, 0.02), start=1))
    check(steps[1], {**columns(0, 0.18002, 0.50006, 0.03087, 0.00123, 0, 0.33783), 10: 0.00069, 12: 0.64286}, 0.007893)
    check(
        steps[10], {**columns(0, 0.24752, 0.50276, 0.24778, 0.00991, 0, 0.02927), 10: 0.03286, 12: 0.40179}, -0.008575
    )
    check(steps[11], {**columns(0, 0.26003, 0.50326, 0.26627, 0.01065, 1, -1), 10: 0.03882, 12: 0.375}, -0.980140)
    check(steps[12], {**columns(0, 0.22768, 0.50379, 0.28383, 0.01135, 1, -1), 10: 0.04518, 12: 0.34821}, 0.019854)
    check(steps[15], {**columns(0, 0.14732, 0.50557, 0.33142, 0.01326, 1, -1), 10: 0.06642, 12: 0.26786}, 0.019831)
    check(steps[16], {**columns(0, 0.12054, 0.50622, 0, 0, 1, -1), 10: 0.07416, 12: -1}, 0.019820)


@pytest.mark.parametrize(("truck_x", "yellow_x", "speed"), [(120.0, 200.0, 6.0), (120.0, 300.0, 7.2)])
def test_yellow_cars_slow_down_behind_others(truck_x: float, yellow_x: float, speed: float) -> None:
    yellow = Slot(wait=0, active=True, kind="yellow", lane=0, x=yellow_x)
    truck = Slot(wait=0, active=True, kind="truck", lane=0, x=truck_x)
    game = begin("pygame-highway", x=20, y=178, slots=[yellow, truck, Slot(wait=1000), Slot(wait=1000)])
    game.step([0, 0])
    assert yellow_x - yellow.x == pytest.approx(speed)


# ---------------------------------------------------------------- landing


def test_landing_trace() -> None:
    game = begin("pygame-landing", x=60, y=140, vx=1.4, vy=0, ship_x=74, direction=1, ship_speed=1.4)
    steps = dict(enumerate(play(game, 60, 0, 0), start=1))
    check(steps[1], {**columns(0, 0.27411, 0.62589, 0.13440, 0.01920, 0.33661, 0.84375, 0.28)}, 0.106951)
    check(steps[15], columns(0, 0.33941, 0.71451, 0.07589, 0.21980, 0.42411), 0.110302)
    check(steps[16], columns(0, 0.34279, 0.72522, 0.09300, 0.23021, 0.43036), -3.648041)
    check(steps[17], columns(0, 0.34695, 0.73639, 0.10450, 0.24020, 0.43661), 0.956884)
    check(steps[18], columns(0, 0.35161, 0.73661, 0.10520, 0, 0.44286), 0.933304)
    check(steps[60], columns(0, 0.60073, 0.73661, 0.14, 0, 0.70536), 0.854018)
    assert game.locked
    assert game.total == pytest.approx(36.5975, abs=1e-4)


# ---------------------------------------------------------------- point maze


def test_point_maze_trace() -> None:
    game = begin("pygame-point-maze-var1", x=75, y=112, goal_x=150, goal_y=80, wind_cell=(2, 2), wind=1)
    steps = dict(enumerate(play(game, 30, 1.0, -0.6), start=1))
    for step, x, y, vx, in_wind, wind, row, column, reward in (
        (1, 80, 109, 1, 0, 0, 0.5, 0.25, 0.588210),
        (3, 90, 103, 1, 0, 0, 0.5, 0.25, 0.650776),
        (5, 102, 100, 1.4, 1, 0.4, 0.5, 0.5, 0.717391),
        (10, 137, 97, 1.4, 0, 0, 0.5, 0.75, 0.883691),
        (20, 187, 67, 1, 0, 0, 0.25, 1, 0.786862),
        (30, 197, 37, 1, 0, 0, 0, 1, 0.653791),
    ):
        expected = columns(0, x / 224, y / 224, 150 / 224, 80 / 224, vx, -0.6)
        check(steps[step], {**expected, 39: in_wind, 40: wind, 41: 0, 42: row, 43: column}, reward)
    cells = steps[30].obs[6:31].reshape(5, 5)
    assert cells.tolist() == [
        [1, 0, 1, 1, 0],
        [0, 0, 1, 0, 0],
        [1, 0, -1, 0, 1],
        [0, 0, 1, 0, 0],
        [0, 1, 1, 0, 1],
    ]
    assert steps[30].obs[31:35].tolist() == [0, 1, 0, 0]


def test_point_maze_success_is_now() -> None:
    game = begin("pygame-point-maze-var4", x=110, y=112, goal_x=120, goal_y=112, wind_cell=(1, 1))
    assert [game.step([0, 0]).success, game.step([-1, 0]).success, game.step([1, 0]).success] == [1, 0, 1]
    assert game.step([0, 0]).score == 1
    assert game.step([-1, 0]).score == 0


@pytest.mark.parametrize(("layout", "free"), [(1, 15), (2, 17), (3, 13), (4, 13)])
def test_point_maze_starts(layout: int, free: int) -> None:
    game = begin(f"pygame-point-maze-var{layout}")
    assert sum(not wall for row in game.walls for wall in row) == free
    for seed in range(20):
        obs = game.reset(seed)
        assert not game._blocked(game.x, game.y)
        assert not game._blocked(game.goal_x, game.goal_y)
        assert 36.8 <= obs[37] * 184 <= 128.81
        assert np.count_nonzero(obs[6:31] == -1) == 1


# ---------------------------------------------------------------- pong


def test_pong_trace() -> None:
    angle = 0.3
    game = begin("pygame-pong", x=112, y=112, vx=8 * math.cos(angle), vy=8 * math.sin(angle), awake=True, delay=0)
    steps = dict(enumerate(play(game, 36, 0.5), start=1))
    check(steps[1], columns(0, 0.53412, 0.51055, 0.95534, 0.29552, 0.42969, 0.38765))
    check(steps[9], columns(0, 0.80707, 0.59499, 0.95534, 0.29552, 0.58147, 0.49178))
    check(steps[10], columns(0, 0.84119, 0.60554, -0.95534, 0.29552, 0.60045, 0.52247))
    check(steps[20], columns(0, 0.5, 0.71109, -0.95534, 0.29552, 0.73214, 0.62744))
    check(steps[30], columns(0, 0.15881, 0.81663, 0.95534, 0.29552, 0.73214, 0.64881))
    check(play(game, 4, 0.5)[-1], columns(0, 0.5, 0.83774, 0.95534, -0.29552))


def test_pong_points() -> None:
    game = begin("pygame-pong", x=24, y=60, vx=-8, vy=0, player=164)
    lost = game.step([0])
    assert lost.reward == -1
    assert lost.score == pytest.approx(2 / 6)
    assert lost.obs[:2].tolist() == [0.5, 0.5]
    game.x, game.y, game.vx, game.vy, game.opponent = 200.0, 150.0, 8.0, 0.0, 20.0
    assert game.step([0]).reward == 1
    assert game.points == [1, 1]


# ---------------------------------------------------------------- reacher


def test_reacher_trace() -> None:
    game = begin("pygame-reacher-easy", angles=[0.0, 0.0], speeds=[0.0, 0.0], target=(0.1, 0.1))
    steps = dict(enumerate(play(game, 20, 1, -0.5), start=1))
    check(steps[1], columns(0, 0.036, -0.036, -0.11993, 0.09604, 1.8, -1.8))
    check(steps[5], columns(0, 0.43051, -0.22144, -0.10757, 0.03126, 6.16541, -2.35936))
    check(steps[20], columns(0, 2.54766, -0.92975, 0.19634, -0.07144, 7.15222, -2.36109))


def test_reacher_targets_and_elbow() -> None:
    for name, radius in (("pygame-reacher-easy", 0.04), ("pygame-reacher-hard", 0.025)):
        game = begin(name, angles=[0.0, 0.0], target=(0.22 - 0.99 * radius, 0.0))
        assert game.step([0, 0]).reward == 1
        game.target = (0.22 - 1.01 * radius, 0.0)
        assert game.step([0, 0]).reward == 0
    play(game, 100, 0, 1)
    assert game.angles[1] == math.radians(160)
    assert game.speeds[1] == 0


# ---------------------------------------------------------------- rocket collect


def test_rocket_collect_trace() -> None:
    game = begin("pygame-rocket-collect", coin_x=130.0, coin_y=150.0, asteroids=[Asteroid(100, -28, 0.5, 1.5)])
    steps = dict(enumerate(play(game, 5, 0.5, -1) + play(game, 23, 0, 0), start=1))
    for step, rocket, way, asteroid, reward in (
        (1, (0.50164, 0.81815, 0.09188, -0.18375), (0.07872, -0.14850), (0.44866, -0.11830), 0.001762),
        (5, (0.52396, 0.77350, 0.44136, -0.88273), (0.05639, -0.10386), (0.45759, -0.09152), 0.001833),
        (6, (0.53169, 0.75806, 0.43254, -0.86507), (0.04867, -0.08841), (0.45982, -0.08482), 0.001857),
    ):
        check(steps[step], {**columns(0, *rocket), **columns(6, *way), **columns(9, *asteroid)}, reward)
    assert steps[7].obs[:2] * 224 == pytest.approx([120.79338, 166.41324], abs=1e-4)
    assert steps[7].reward == pytest.approx(1.001881, abs=1e-6)
    assert (game.asteroids[0].inside, game.asteroids[0].x, game.asteroids[0].y) == (True, 114, 14)


def test_rocket_collect_contact_and_asteroids() -> None:
    game = begin("pygame-rocket-collect", asteroids=[Asteroid(112, 184, 0, 0, True)], coin_y=40.0)
    outcome = game.step([0, 0])
    assert -0.2 < outcome.reward < -0.198
    game.asteroids[0].y = 30.0
    assert [outcome.obs[8], *(o.obs[8] for o in play(game, 5, 0, 0))] == [1, 1, 1, 1, 1, 0]
    counts = [(o.obs[9:].reshape(3, 4) != 0).any(axis=1).sum() for o in play(game, 400, 0, 0)]
    assert [counts[step - 7] for step in (149, 150, 299, 300)] == [1, 2, 2, 3]


# ---------------------------------------------------------------- spaceship


def test_spaceship_trace() -> None:
    game = begin("pygame-spaceship", coins=[[250.0, 110.0], [277.0, 128.0]], asteroid=[300.0, 118.0])
    steps = dict(enumerate(play(game, 5, 0.5, 0.1) + play(game, 12, 0, 0), start=1))
    for step, ship, coins, asteroid, reward in (
        (
            1,
            (0.18002, 0.50029, 0.03087, 0.00618),
            (1.0625, 0.49107, 1.18304, 0.57143, -1, -1, -1, -1),
            (1.28571, 0.52679),
            0,
        ),
        (
            5,
            (0.19894, 0.50407, 0.13969, 0.02794),
            (0.84821, 0.49107, 0.96875, 0.57143, -1, -1, -1, -1),
            (1.07143, 0.52679),
            0,
        ),
        (14, (0.24505, 0.51330, 0.08804, 0.01761), (-1, -1, 0.48661, 0.57143), (0.58929, 0.52679), 1),
        (16, (0.25272, 0.51483, 0.07946, 0.01589), (-1, -1, -1, -1), (0.48214, 0.52679), 1),
        (17, (0.25627, 0.51554, 0.07548, 0.01510), (), (0.42857, 0.52679), -2),
    ):
        check(steps[step], {**columns(0, *ship), **columns(4, *coins), **columns(12, *asteroid)}, reward)
    assert steps[17].obs[4] > 1


def test_spaceship_forgets_its_asteroid() -> None:
    game = begin("pygame-spaceship")
    first = game.reset(3).tolist()
    game.asteroid = [500.0, 60.0]
    assert game.reset(3).tolist() == first
