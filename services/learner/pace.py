"""Shared state of a collector's groups: how far each is, who must wait for whom, and when all must pause or end."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from newt.client.episodes import Episode
from newt.runs.record import TaskProgress
from newt.wire.v1 import replay_pb2
from services.learner.child import StopFlag

RATE_WINDOW_S = 10.0
POLL_S = 0.1


class CollectionOver(Exception):  # noqa: N818 - not an error
    """All env steps have been collected, or another group has failed."""


class Pace:
    """Counters and gates of a run's collection; safe to use from all groups at once.

    Args:
        env_steps: Transitions that replay has already.
        total_env_steps: Transitions after which collection is over.
        lead_limit_steps: Steps that a group may be ahead of the slowest one.
        tasks: Progress by task so far.
        stop: Of the process.
    """

    def __init__(
        self,
        env_steps: int,
        total_env_steps: int,
        lead_limit_steps: int,
        tasks: dict[str, TaskProgress],
        stop: StopFlag,
    ) -> None:
        self.env_steps = env_steps
        self.tasks = tasks
        self._total = total_env_steps
        self._lead_limit = lead_limit_steps
        self._stop = stop
        self._changed = threading.Condition()
        self._steps: dict[int, int] = {}
        self._parked: set[int] = set()
        self._pauses = 0
        self._failure: BaseException | None = None
        self._taken = 0
        self._window = deque([(time.monotonic(), 0)])
        self._finished: list[tuple[str, float, float, int]] = []

    # ---- for the groups

    def join(self, group: int) -> None:
        """A group begins."""
        with self._changed:
            # One that starts late does not hold the others back.
            self._steps[group] = max(self._steps.get(group, 0), min(self._steps.values(), default=0))

    def leave(self, group: int, error: BaseException | None = None) -> None:
        """A group ends; an error ends the others as well."""
        with self._changed:
            self._steps.pop(group, None)
            self._failure = self._failure or error
            self._changed.notify_all()

    def wait_for_turn(self, group: int) -> None:
        """Returns when the group may take a step.

        Raises:
            CollectionOver: There is nothing more to collect.
            Stopped: The process must stop.
        """
        with self._changed:
            while True:
                self._stop.check()
                if self.is_over():
                    raise CollectionOver
                ahead = self._steps[group] - min(self._steps.values()) >= self._lead_limit
                if not ahead and not self._pauses:
                    self._parked.discard(group)
                    return
                if self._pauses and group not in self._parked:
                    self._parked.add(group)
                    self._changed.notify_all()
                # Only news wake the others: if every waiter woke all, many of them would keep a core busy.
                self._changed.wait(POLL_S)

    @contextmanager
    def parked(self, group: int) -> Iterator[None]:
        """While a group waits for somebody else, nobody has to wait for the group; `wait_for_turn` must follow."""
        with self._changed:
            self._parked.add(group)
            self._changed.notify_all()
        yield

    def stepped(self, group: int, transitions: int) -> None:
        """A group has taken a step of all its instances."""
        with self._changed:
            slowest = min(self._steps.values())
            self._steps[group] += 1
            self._taken += transitions
            if min(self._steps.values()) > slowest:
                self._changed.notify_all()

    def stored(self, episode: Episode, reply: replay_pb2.AppendResponse) -> None:
        """An episode has been acknowledged by replay."""
        score, length = float(episode.score), len(episode.reward)
        total_reward = float(episode.reward.sum())
        with self._changed:
            self.env_steps = max(self.env_steps, reply.env_steps)
            task = self.tasks[episode.task]
            task.env_steps = max(task.env_steps, reply.task_env_steps)
            task.episodes = max(task.episodes, reply.task_episodes)
            task.last_return, task.last_score = total_reward, score
            task.last_success = None if episode.success != episode.success else float(episode.success)
            self._finished.append((episode.task, total_reward, score, length))
            self._changed.notify_all()

    # ---- for the collector

    def is_over(self) -> bool:
        """Whether everything has been collected, or a group has failed."""
        return self.env_steps >= self._total or self._failure is not None

    def raise_failure(self) -> None:
        """Raises the error of the first group that failed."""
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Holds all groups between two steps."""
        with self._changed:
            self._pauses += 1
            while not (self.is_over() or set(self._steps) <= self._parked):
                self._stop.check()
                self._changed.wait(POLL_S)
        try:
            yield
        finally:
            with self._changed:
                self._pauses -= 1
                self._parked.clear()
                self._changed.notify_all()

    def rate(self) -> float:
        """Env steps taken per second, lately."""
        now = time.monotonic()
        with self._changed:
            self._window.append((now, self._taken))
            while len(self._window) > 2 and self._window[0][0] < now - RATE_WINDOW_S:
                self._window.popleft()
            (start, first), (end, last) = self._window[0], self._window[-1]
        return (last - first) / max(end - start, 1e-9)

    def take_finished(self) -> dict[str, float]:
        """Means over the episodes stored since the last call: `return/TASK`, `score/TASK`, `length/TASK`."""
        with self._changed:
            finished, self._finished = self._finished, []
        values: dict[str, float] = {}
        for task in dict.fromkeys(row[0] for row in finished):
            rows = [row for row in finished if row[0] == task]
            for i, name in enumerate(("return", "score", "length"), start=1):
                values[f"{name}/{task}"] = sum(float(row[i]) for row in rows) / len(rows)
        return values

    def snapshot(self) -> dict[str, TaskProgress]:
        """Progress by task, copied."""
        with self._changed:
            return {name: task.model_copy() for name, task in self.tasks.items()}
