"""Noise on the actions of a scripted expert, so that its episodes show how to come back.

An expert that nothing disturbs stays where all is well, and from its episodes nobody learns what to do elsewhere: a
clone drifts off and is lost. So the expert is disturbed while it is recorded (Laskey et al., "DART: noise injection for
robust imitation learning", arXiv 1703.09327). What is recorded are the actions taken, noise included, for they are what
led to the next observation. The noise of a step is independent of those before it: a clone cannot foresee it from the
observation and learns its mean, which is the expert's own action (except near the bounds, where noise only points
inwards).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from newt.tasks.registry import Task
from services.learner.seeds import generator

_PERIODS = 8  # Of an episode: in each but the last, a burst and then time to recover.
_BURST = 0.25  # Share of a period.
# The smallest amplitude as a share of the largest. Tasks bear very different ones; those of an episode that fails are
# not kept (newt.tasks.demo_rule), so that each task finds its own.
_SMALLEST = 0.1


class Disturbance:
    """The noise of one episode; the same seed brings the same noise.

    Args:
        task: Task of the episode.
        seed: Seed of the episode.
        largest: Largest amplitude, in units of actions, at most 1. The episode's own is drawn between a tenth of it and
            all of it, log-uniformly. 0: no noise.

    Example:
        >>> from newt.tasks.registry import get_task
        >>> Disturbance(get_task("walker-walk"), 7, 1.0).noise().shape
        (6,)
    """

    def __init__(self, task: Task, seed: int, largest: float) -> None:
        self._rng = generator("disturbance", task.name, seed)
        self._amplitude = largest * _SMALLEST ** self._rng.random()
        self._columns, self._length, self._step = task.action_dim, task.episode_length, 0

    def noise(self) -> npt.NDArray[np.float32]:
        """Noise of the next step, float32[A]."""
        period, passed = divmod(self._step * _PERIODS / self._length, 1.0)
        self._step += 1
        if period >= _PERIODS - 1 or passed >= _BURST:
            return np.zeros(self._columns, np.float32)
        return np.asarray(self._amplitude * self._rng.uniform(-1, 1, self._columns), np.float32)
