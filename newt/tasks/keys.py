"""Which keys play a task by hand: those of its game, or a pair of keys for each of up to four action columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from newt.miniarcade import GAMES, make_game
from newt.tasks.registry import Task

_PAIRS = (("left", "right"), ("down", "up"), ("a", "d"), ("s", "w"))
MAX_COLUMNS = len(_PAIRS)


@dataclass(frozen=True)
class TaskKeys:
    """How keys make an action.

    Attributes:
        keys: By the name of a key, the action of A entries that it stands for; keys held together add up, and the sum
            is cut to [-1, 1].
        idle: The action while no key is held, of A entries.
    """

    keys: Mapping[str, list[float]]
    idle: list[float]


def keys_of(task: Task) -> TaskKeys | None:
    """The keys of a task; None for one with more columns than a person can move."""
    A = task.action_dim
    if task.name in GAMES and task.domain == "miniarcade":
        game = make_game(task.name)
        keys = {name: [float(part) for part in action] for name, action in game.KEYS.items()}
        return TaskKeys(keys, [float(part) for part in game.IDLE] or [0.0] * A)
    if A > MAX_COLUMNS:
        return None
    columns = {
        key: [sign if index == column else 0.0 for index in range(A)]
        for column, pair in enumerate(_PAIRS[:A])
        for key, sign in zip(pair, (-1.0, 1.0), strict=True)
    }
    return TaskKeys(columns, [0.0] * A)
