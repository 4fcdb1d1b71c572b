"""Counting what has been played: env steps, episodes and their outcomes, by task."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from newt.runs.record import TaskProgress
from newt.tasks.registry import Task
from services.learner.direct.fleet import FleetStep
from services.learner.outcomes import Outcomes

RATE_WINDOW_S = 10.0


class Tally:
    """Counters of N instances; read from other threads.

    Args:
        tasks: The task of every instance.
        counts: What was counted before, as `counts` gives it; empty for nothing.
    """

    def __init__(self, tasks: Sequence[Task], counts: Mapping[str, Any] | None = None) -> None:
        self._names = [task.name for task in tasks]
        self.tasks = {name: TaskProgress() for name in dict.fromkeys(self._names)}
        for name, (env_steps, episodes) in (counts or {}).items():
            if name in self.tasks:
                self.tasks[name].env_steps, self.tasks[name].episodes = int(env_steps), int(episodes)
        self.env_steps = sum(task.env_steps for task in self.tasks.values())
        self._returns, self._lengths = np.zeros(len(tasks)), np.zeros(len(tasks), np.int64)
        self._outcomes = Outcomes()
        self._lock = threading.Lock()
        self._window = deque([(time.monotonic(), self.env_steps)])

    def counts(self) -> dict[str, list[int]]:
        """Env steps and episodes by task, to be stored with a checkpoint."""
        return {name: [task.env_steps, task.episodes] for name, task in self.tasks.items()}

    def stepped(self, step: FleetStep) -> None:
        """All instances have taken a step."""
        with self._lock:
            self.env_steps += len(self._names)
            self._returns += np.where(step.valid, step.reward, 0)
            self._lengths += 1
            for name in self._names:
                self.tasks[name].env_steps += 1
            for row in np.flatnonzero(step.ended):
                if step.valid[row]:
                    self._finish(int(row), step)
            self._returns[step.ended], self._lengths[step.ended] = 0, 0

    def _finish(self, row: int, step: FleetStep) -> None:
        name, success = self._names[row], float(step.success[row])
        task = self.tasks[name]
        task.episodes += 1
        task.last_return, task.last_score = float(self._returns[row]), float(step.score[row])
        task.last_success = None if success != success else success
        length = int(self._lengths[row])
        self._outcomes.note(name, reward=task.last_return, score=task.last_score, success=success, length=length)

    def take_finished(self) -> dict[str, float]:
        """What the episodes that ended since the last call came to, as `Outcomes.take` has it."""
        with self._lock:
            return self._outcomes.take(sum(task.episodes for task in self.tasks.values()))

    def rate(self) -> float:
        """Env steps per second, lately."""
        now = time.monotonic()
        with self._lock:
            self._window.append((now, self.env_steps))
            while len(self._window) > 2 and self._window[0][0] < now - RATE_WINDOW_S:
                self._window.popleft()
            (start, first), (end, last) = self._window[0], self._window[-1]
        return (last - first) / max(end - start, 1e-9)

    def snapshot(self) -> dict[str, TaskProgress]:
        """Progress by task, copied."""
        with self._lock:
            return {name: task.model_copy() for name, task in self.tasks.items()}
