"""Episodes that somebody plays through the client: a person, or any function of an observation."""

from __future__ import annotations

import importlib
import inspect
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from newt.client.single_env import RemoteEnv
from newt.errors import InvalidInputError, LostError
from newt.wire.episodes import Behaviour, Episode, Floats


class Stop(Exception):  # noqa: N818  # not an error: the player has had enough
    """Raised by a player: what was played of this episode is thrown away, and none follows."""


class Again(Exception):  # noqa: N818
    """Raised by a player: this episode is thrown away, and the next one begins."""


class Player(Protocol):
    """Who chooses the actions."""

    def begin(self) -> None:
        """Called before each episode."""

    def act(self, env: RemoteEnv, obs: Floats) -> Floats:
        """An action, float32[A] in [-1, 1], for an observation, float32[O]. Raises Stop or Again."""
        ...


class FunctionPlayer:
    """A function `act(obs) -> action` of somebody's module.

    Args:
        name: `module:function`; the module is imported here.

    Raises:
        InvalidInputError: There is no such thing, or it is no function of one argument.
    """

    def __init__(self, name: str) -> None:
        module, _, attribute = name.partition(":")
        self._name = name
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidInputError("--policy", f"got {name!r}, expected MODULE:FUNCTION; {error}") from error
        try:
            inspect.signature(found).bind(None)
        except (TypeError, ValueError) as error:
            raise InvalidInputError("--policy", f"{name} must be a function of an observation: {error}") from error
        self._act: Callable[[Floats], Floats] = found

    def begin(self) -> None:
        """Nothing to prepare: what is to be forgotten between episodes, a function of one observation does not know."""

    def act(self, env: RemoteEnv, obs: Floats) -> Floats:
        """See `Player.act`; its numbers are clipped to [-1, 1]."""
        action = np.asarray(self._act(obs), np.float32).reshape(-1)
        if action.shape != env.action_space.shape or not np.isfinite(action).all():
            raise InvalidInputError(
                "--policy",
                f"{self._name} returned {action[:8].tolist()}, expected {env.task.action_dim} finite numbers",
            )
        return np.clip(action, -1.0, 1.0)


def play(env: RemoteEnv, player: Player, episodes: int, seed: int) -> Iterator[Episode]:
    """Plays until so many episodes are whole, or the player stops.

    Args:
        env: Of the task.
        player: Chooses the actions.
        episodes: How many.
        seed: Seed of the first one; every one that is begun takes the next.

    Raises:
        LostError: The simulator has crashed; the episodes before are whole.
    """
    whole = 0
    while whole < episodes:
        try:
            episode = _episode(env, player, seed)
        except Again:
            episode = None
        except Stop:
            return
        seed += 1
        if episode is not None:
            whole += 1
            yield episode


def _episode(env: RemoteEnv, player: Player, seed: int) -> Episode:
    obs, _ = env.reset(seed=seed)
    player.begin()
    seen, actions, rewards = [obs], [], []
    while True:
        action = player.act(env, obs)
        obs, reward, terminated, truncated, info = env.step(action)
        if info.get("env_error"):
            raise LostError(f"the simulator of {env.task.name} crashed in the episode of seed {seed}; its log says why")
        seen.append(obs)
        actions.append(action)
        rewards.append(reward)
        if terminated or truncated:
            break
    return Episode(
        episode_id=f"played/{env.task.name}/{uuid.uuid4().hex[:16]}",
        task=env.task.name,
        obs=np.stack(seen).astype(np.float32),
        action=np.stack(actions).astype(np.float32),
        reward=np.array(rewards, np.float32),
        terminated=terminated,
        success=float(info["success"]),
        score=float(info["corrected_score"]),
        behaviour=Behaviour.EXPERT,
        seed=seed,
    )
