"""Run it with `python -m pytest`. `newt env check` looks at much more."""

from __future__ import annotations

import numpy as np
from env import TASK


def test_the_same_seed_is_the_same_episode() -> None:
    """Everything that is random comes from the seed."""
    env = TASK.make(render_mode="rgb_array")
    first, _ = env.reset(seed=1)
    again, _ = env.reset(seed=1)
    np.testing.assert_array_equal(first, again)


def test_the_expert_is_better_than_doing_nothing() -> None:
    """Demonstrations of it are worth learning from."""

    def play(act) -> float:  # type: ignore[no-untyped-def]
        env = TASK.make()
        observation, _ = env.reset(seed=2)
        total = 0.0
        for _ in range(TASK.episode_length):
            observation, reward, *_ = env.step(act(env, observation))
            total += reward
        return total

    assert TASK.expert is not None
    assert play(TASK.expert) > play(lambda env, observation: np.zeros(2)) + 10
