"""MiniArcade: small games under one base class, for agents and people. Needs NumPy; pygame only to draw and to play.

game = make_game("pygame-highway")
obs = game.reset(seed=0)
outcome = game.step([0.1, 0.0])
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from newt.miniarcade.base import Game, Outcome

__all__ = ["GAMES", "Game", "Outcome", "make_game"]

GAMES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = MappingProxyType(
    {
        "pygame-cowboy": ("cowboy", "Cowboy", {}),
        "pygame-coinrun": ("coinrun", "Coinrun", {}),
        "pygame-spaceship": ("spaceship", "Spaceship", {}),
        "pygame-pong": ("pong", "Pong", {}),
        "pygame-bird-attack": ("bird_attack", "BirdAttack", {}),
        "pygame-highway": ("highway", "Highway", {}),
        "pygame-landing": ("landing", "Landing", {}),
        "pygame-air-hockey": ("air_hockey", "AirHockey", {}),
        "pygame-rocket-collect": ("rocket_collect", "RocketCollect", {}),
        "pygame-chase-evade": ("chase_evade", "ChaseEvade", {}),
        "pygame-coconut-dodge": ("coconut_dodge", "CoconutDodge", {}),
        "pygame-cartpole-balance": ("cartpole", "Cartpole", {}),
        "pygame-cartpole-swingup": ("cartpole", "Cartpole", {"hanging": True}),
        "pygame-cartpole-balance-sparse": ("cartpole", "Cartpole", {"sparse": True}),
        "pygame-cartpole-swingup-sparse": ("cartpole", "Cartpole", {"hanging": True, "sparse": True}),
        "pygame-cartpole-tremor": ("cartpole", "Cartpole", {"tremor": True}),
        "pygame-point-maze-var1": ("point_maze", "PointMaze", {"layout": 1}),
        "pygame-point-maze-var2": ("point_maze", "PointMaze", {"layout": 2}),
        "pygame-point-maze-var3": ("point_maze", "PointMaze", {"layout": 3}),
        "pygame-point-maze-var4": ("point_maze", "PointMaze", {"layout": 4}),
        "pygame-reacher-easy": ("reacher", "Reacher", {"target_radius": 0.04, "drawn_radius": 15}),
        "pygame-reacher-hard": ("reacher", "Reacher", {"target_radius": 0.025, "drawn_radius": 9}),
    }
)
"""Every game by name: module in `newt.miniarcade.games`, class, arguments."""


def make_game(name: str) -> Game:
    """Builds a game; its module is imported on first use.

    Raises:
        ValueError: No game of this name; names close ones.
    """
    if name not in GAMES:
        close = difflib.get_close_matches(name, GAMES, n=3) or list(GAMES)
        raise ValueError(f"no game {name!r}; did you mean {', '.join(close)}?")
    module, class_name, arguments = GAMES[name]
    games = importlib.import_module(f"newt.miniarcade.games.{module}")
    return cast(Game, getattr(games, class_name)(**arguments))
