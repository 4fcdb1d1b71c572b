"""The games of MiniArcade, states only: time per env step of one instance on one core."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt

from bench.figures import Figure, Spread, Value
from bench.measure import Candidate, Effort, interleaved
from newt.miniarcade import GAMES, Game, make_game

MOST_MICROSECONDS = 500.0
"""The goal of at least 2,000 env steps per second and core."""


def run(effort: Effort) -> Iterator[Figure]:
    """Random actions over whole episodes, resets included; the games take turns."""
    episodes = effort.pick(full=4, quick=1, tiny=1)
    games = {name: make_game(name) for name in GAMES}
    draws = np.random.default_rng(0)
    candidates = {
        name: Candidate(partial(_play, game, draws.uniform(-1, 1, (game.LENGTH, game.ACTION_DIM)), episodes))
        for name, game in games.items()
    }
    for name, seconds in interleaved(candidates, effort.repetitions).items():
        steps = episodes * games[name].LENGTH
        time = Spread.of([1e6 * taken / steps for taken in seconds])
        what = f"one step of {name}: {1e6 / time.median:,.0f} steps/s"
        yield Value(f"arcade.{name}", what, "µs", time, at_most=MOST_MICROSECONDS)


def _play(game: Game, actions: npt.NDArray[np.float64], episodes: int) -> None:
    for seed in range(episodes):
        game.reset(seed)
        for action in actions:
            game.step(action)
