"""A vector of simulators behind the service beside gymnasium's AsyncVectorEnv of the same."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.measure import Candidate, Effort, interleaved

Floats = npt.NDArray[np.float32]


def random_actions(steps: int, count: int, action_dim: int) -> Floats:
    """float32[T, N, A], the same in every call."""
    return np.random.default_rng(0).uniform(-1, 1, (steps, count, action_dim)).astype(np.float32)


def play(envs: Any, actions: Floats) -> None:
    """Steps a vector by float32[T, N, A]."""
    for action in actions:
        envs.step(action)


def seconds_of_both(ours: Any, plain: Any, actions: Floats, effort: Effort) -> dict[str, list[float]]:
    """Seconds that `ours` and `plain` take for the actions, from fresh episodes, by turns."""
    ours.reset(seed=1)
    plain.reset(seed=1)
    candidates = {"ours": Candidate(partial(play, ours, actions)), "plain": Candidate(partial(play, plain, actions))}
    return interleaved(candidates, effort.repetitions)
