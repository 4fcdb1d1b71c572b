"""What holds for every game: facts, seeds, lengths, pictures, scripted players."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from newt.miniarcade import GAMES, Game, make_game
from newt.tasks.registry import get_task, select_tasks

ROOT = Path(__file__).parents[3]
ALL = sorted(GAMES)
Policy = Callable[[Game], Sequence[float]]


def episode(game: Game, seed: int, steps: int, watched: bool = False) -> list[object]:
    """What an episode of random actions brings, to the last bit."""
    history: list[object] = [game.reset(seed).tobytes()]
    for action in np.random.default_rng(seed).uniform(-1, 1, (steps, game.ACTION_DIM)):
        outcome = game.step(action)
        history.append((outcome.obs.tobytes(), outcome.reward, str(outcome.success), outcome.score))
        if watched:
            game.render()
    return history


def test_the_games_are_the_registered_tasks() -> None:
    registered = [task.name for task in select_tasks(["pygame-*"])]
    assert registered == list(GAMES)


@pytest.mark.parametrize("name", ALL)
def test_facts(name: str) -> None:
    game, task = make_game(name), get_task(name)
    assert (task.obs_dim, task.action_dim, task.episode_length) == (game.OBS_DIM, game.ACTION_DIM, game.LENGTH)
    assert game.has_expert == task.has_expert
    obs = game.reset(0)
    assert (obs.shape, obs.dtype) == ((task.obs_dim,), np.float32)
    total = 0.0
    for step in range(1, game.LENGTH + 1):
        outcome = game.step(game.expert_action())
        total += outcome.reward
        assert outcome.obs.shape == (task.obs_dim,)
        assert np.isfinite(outcome.obs).all()
        assert math.isnan(outcome.success) != task.has_success
        assert 0 <= outcome.score <= 1
        assert outcome.truncated == (step == task.episode_length)
    assert game.total == pytest.approx(total)
    with pytest.raises(RuntimeError, match="call reset first"):
        game.step(np.zeros(game.ACTION_DIM))


@pytest.mark.parametrize("name", ALL)
def test_an_episode_is_its_seed_and_actions(name: str) -> None:
    game = make_game(name)
    first = episode(game, 11, 160)
    assert episode(game, 2**64 - 1, 160) != first
    np.random.seed(0)  # Nothing may come from the global generator.
    assert episode(game, 11, 160) == first
    assert episode(make_game(name), 11, 30, watched=True) == first[:31]


@pytest.mark.parametrize("name", ALL)
def test_pictures(name: str) -> None:
    game = make_game(name)
    game.reset(5)
    first = game.render()
    assert (first.shape, first.dtype) == ((224, 224, 3), np.uint8)
    assert first.std() > 10
    for action in np.random.default_rng(0).uniform(-1, 1, (40, game.ACTION_DIM)):
        game.step(action)
    later = game.render()
    assert (later != first).any()
    np.testing.assert_array_equal(game.render(), later)
    game.reset(5)
    np.testing.assert_array_equal(game.render(), first)


@pytest.mark.parametrize(
    ("name", "x", "y", "color"),
    [
        ("pygame-pong", 33, 112, (255, 140, 0)),
        ("pygame-pong", 191, 112, (180, 180, 180)),
        ("pygame-air-hockey", 112, 170, (255, 140, 0)),
        ("pygame-bird-attack", 112, 188, (255, 140, 0)),
        ("pygame-cowboy", 49, 170, (139, 69, 19)),
        ("pygame-rocket-collect", 112, 184, (180, 180, 255)),
    ],
)
def test_pictures_show_things_where_they_are(name: str, x: int, y: int, color: tuple[int, int, int]) -> None:
    game = make_game(name)
    game.reset(0)
    assert tuple(game.render()[y, x].tolist()) == color


def still(game: Game) -> Sequence[float]:
    return [0.0] * game.ACTION_DIM


def full(game: Game) -> Sequence[float]:
    return [1.0] * game.ACTION_DIM


def chaotic(game: Game) -> Sequence[float]:
    # A generator of its own, which forgets nothing over steps: the seed and the step tell the action.
    draws = np.random.default_rng((game.seed + 1000, game.steps))
    return draws.uniform(-1, 1, game.ACTION_DIM).tolist()


# Mean and standard deviation of the return, measured on the original games over 40 to 200 episodes.
ANCHORS: list[tuple[str, Policy, float, float]] = [
    ("pygame-air-hockey", still, -0.90, 1.46),
    ("pygame-air-hockey", full, -0.12, 0.78),
    ("pygame-bird-attack", still, -18.65, 4.25),
    ("pygame-bird-attack", chaotic, -1.85, 4.45),
    ("pygame-bird-attack", full, -4.03, 1.96),
    ("pygame-cartpole-balance", still, 42.1, 9.0),
    ("pygame-cartpole-balance", full, 11.77, 0.54),
    ("pygame-cartpole-balance-sparse", still, 26.3, 9.1),
    ("pygame-cartpole-balance-sparse", full, 5.50, 0.87),
    ("pygame-cartpole-swingup", still, 0.0, 0.0),
    ("pygame-cartpole-swingup-sparse", chaotic, 0.0, 0.0),
    ("pygame-cartpole-tremor", still, 44.2, 10.9),
    ("pygame-chase-evade", still, -44.7, 8.3),
    ("pygame-chase-evade", chaotic, -45.1, 5.8),
    ("pygame-chase-evade", full, -51.9, 3.1),
    ("pygame-coconut-dodge", still, -19.0, 11.0),
    ("pygame-coconut-dodge", full, -11.0, 7.6),
    ("pygame-coinrun", still, 14.1, 6.2),
    ("pygame-coinrun", full, 34.9, 4.7),
    ("pygame-cowboy", still, -458.0, 0.0),
    ("pygame-cowboy", full, 388.0, 17.0),
    ("pygame-highway", still, 2.45, 2.17),
    ("pygame-highway", chaotic, 1.27, 2.46),
    ("pygame-landing", still, -27.4, 68.6),
    ("pygame-landing", chaotic, -42.4, 59.3),
    ("pygame-point-maze-var1", still, 111.0, 28.0),
    ("pygame-point-maze-var2", still, 104.0, 24.0),
    ("pygame-point-maze-var3", still, 108.0, 30.0),
    ("pygame-point-maze-var4", still, 121.0, 24.0),
    ("pygame-pong", still, -3.22, 2.83),
    ("pygame-reacher-easy", still, 0.0, 0.0),
    ("pygame-rocket-collect", still, -8.58, 5.69),
    ("pygame-spaceship", still, -16.0, 13.3),
]


@pytest.mark.parametrize(("name", "policy", "mean", "spread"), ANCHORS)
def test_returns_of_simple_policies(name: str, policy: Policy, mean: float, spread: float) -> None:
    count = 12
    game = make_game(name)
    returns = []
    for seed in range(count):
        game.reset(seed)
        while game.steps < game.LENGTH:
            game.step(policy(game))
        returns.append(game.total)
    # Four standard errors of the difference to a mean of 40 episodes; seeds are fixed, so this is no gamble.
    assert abs(np.mean(returns) - mean) <= 4 * spread * math.sqrt(1 / count + 1 / 40) + 1e-9


# Scores that the scripted players reach or pass on average, a little below what README.md reports.
EXPERT_SCORES = {
    "pygame-air-hockey": 0.25,
    "pygame-bird-attack": 1.0,
    "pygame-cartpole-balance": 0.99,
    "pygame-cartpole-balance-sparse": 0.99,
    "pygame-cartpole-swingup": 0.7,
    "pygame-cartpole-swingup-sparse": 0.7,
    "pygame-cartpole-tremor": 0.95,
    "pygame-chase-evade": 0.55,
    "pygame-coconut-dodge": 0.99,
    "pygame-coinrun": 0.99,
    "pygame-cowboy": 1.0,
    "pygame-highway": 0.75,
    "pygame-landing": 0.8,
    "pygame-point-maze-var1": 1.0,
    "pygame-point-maze-var2": 1.0,
    "pygame-point-maze-var3": 1.0,
    "pygame-point-maze-var4": 1.0,
    "pygame-pong": 0.5,
    "pygame-reacher-easy": 0.85,
    "pygame-reacher-hard": 0.8,
    "pygame-rocket-collect": 0.9,
    "pygame-spaceship": 0.75,
}


@pytest.mark.parametrize(("name", "least"), EXPERT_SCORES.items())
def test_scripted_players(name: str, least: float) -> None:
    game = make_game(name)
    scores = []
    for seed in range(4):
        game.reset(seed)
        while game.steps < game.LENGTH:
            outcome = game.step(game.expert_action())
        scores.append(outcome.score)
    assert np.mean(scores) >= least


@pytest.mark.parametrize("action", [[0.0], [0.0, math.nan], [0.0, math.inf], [0.0, 0.0, 0.0]])
def test_bad_actions_change_nothing(action: list[float]) -> None:
    game = make_game("pygame-highway")
    game.reset(0)
    before = game.observe()
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        game.step(action)
    assert (game.observe(), game.steps) == (before, 0)


def test_large_actions_are_limited() -> None:
    a, b = make_game("pygame-landing"), make_game("pygame-landing")
    a.reset(1)
    b.reset(1)
    assert a.step([7.0, -3.0]).obs.tolist() == b.step([1.0, -1.0]).obs.tolist()


def test_names_and_starts_are_checked() -> None:
    with pytest.raises(ValueError, match="did you mean pygame-highway"):
        make_game("pygame-higway")
    with pytest.raises(RuntimeError, match="call reset first"):
        make_game("pygame-pong").step([0.0])


def test_states_need_no_pygame() -> None:
    code = (
        "import sys\nfrom newt.miniarcade import GAMES, make_game\n"
        "for name in GAMES:\n    game = make_game(name)\n    game.reset(0)\n    game.step(game.expert_action())\n"
        "print([name for name in ('pygame', 'gymnasium', 'torch', 'grpc') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_drawing_opens_no_display_and_says_nothing() -> None:
    code = (
        "from newt.miniarcade import make_game\n"
        "game = make_game('pygame-pong')\ngame.reset(0)\ngame.render()\n"
        "import pygame\nprint(pygame.display.get_init())"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SDL_", "DISPLAY"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "False", done.stderr
