"""Shared state of a collector's groups: how far each is, who must wait for whom, and when all must end.

Two counts of env steps: those *stored* in whole episodes, which decide when collection is over, and those *taken*,
which include unfinished episodes and keep training and collection in step.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque

from newt.client.buffers import Appended
from newt.runs.record import TaskProgress
from newt.wire.episodes import Episode
from services.learner.outcomes import Outcomes
from services.learner.waiting import StopFlag

RATE_WINDOW_S = 10.0
# Crashes of a group without an episode between them, after which nobody waits for it any more. An environment that
# blocks costs the simulator's step timeout each time: the others would go at that pace.
LAME_AFTER = 3


class CollectionOver(Exception):  # noqa: N818 - not an error
    """All env steps have been collected, or another group has failed."""


class Pace:
    """Counters and gates of a run's collection; safe to use from all groups at once.

    Args:
        env_steps: Transitions that replay has already.
        total_env_steps: Transitions after which collection is over.
        lead_limit_steps: Steps that a group may be ahead of the slowest one.
        tasks: Progress by task so far.
        stop: Stop flag of the process.

    Attributes:
        env_steps: Transitions stored.
        tasks: Progress by task.
        acting_version: Newest version of the weights that has acted; 0 for none.
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
        self.acting_version = 0
        self._total = total_env_steps
        self._lead_limit = lead_limit_steps
        self._stop = stop
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # For who asks the limiter: the groups do not wake it at every step, nor does it wake them.
        self._news = threading.Condition(lock)
        stop.wakes(self._changed)
        stop.wakes(self._news)
        self._steps: dict[int, int] = {}
        self._unfinished: dict[int, int] = {}
        self._crashes: dict[int, int] = {}
        self._failure: BaseException | None = None
        self._base = env_steps
        self._taken = 0
        self._given_up = 0
        self._permitted = -1
        self._held_back = False
        self._window = deque([(time.monotonic(), 0)])
        self._outcomes = Outcomes()

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
            self._end(error)

    def fail(self, error: BaseException) -> None:
        """Something that the groups cannot do without has failed."""
        with self._changed:
            self._end(error)

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
                ahead = self._steps[group] - self._slowest(group) >= self._lead_limit
                if not ahead:
                    if self._counted() <= self._permitted:
                        return
                    self._held_back = True
                    self._news.notify_all()
                # Only news wake the others: if every waiter woke all, many of them would keep a core busy.
                self._changed.wait()

    def stepped(self, group: int, transitions: int, weights_version: int = 0) -> None:
        """A group has taken a step of all its instances, which weights of a version have chosen (0: none)."""
        with self._changed:
            slowest = self._slowest(group)
            self._steps[group] += 1
            self._taken += transitions
            self._unfinished[group] = self._unfinished.get(group, 0) + transitions
            self.acting_version = max(self.acting_version, weights_version)
            if self._slowest(group) > slowest:
                self._changed.notify_all()

    def crashed(self, group: int) -> None:
        """An instance of a group has crashed. Nobody waits for a group that does nothing else."""
        with self._changed:
            self._crashes[group] = self._crashes.get(group, 0) + 1
            if self._crashes[group] == LAME_AFTER:
                self._changed.notify_all()

    def lost(self, group: int) -> None:
        """The simulators of a group died at every attempt to bring them back: nobody waits for it until they are."""
        with self._changed:
            # Each attempt may have taken the simulator's step timeout: an environment that blocks in its reset, say.
            self._crashes[group] = max(self._crashes.get(group, 0), LAME_AFTER)
            self._changed.notify_all()

    def gave_up(self, group: int, transitions: int | None = None) -> None:
        """So many steps of a group will never be stored; None: all of its unfinished episodes'."""
        with self._changed:
            lost = self._unfinished.get(group, 0) if transitions is None else transitions
            self._unfinished[group] = self._unfinished.get(group, 0) - lost
            self._given_up += lost

    def stored(self, group: int, episode: Episode, reply: Appended) -> None:
        """An episode of a group has been acknowledged by replay."""
        score, length = float(episode.score), len(episode.reward)
        total_reward = float(episode.reward.sum())
        with self._changed:
            if self._is_lame(group):
                # As one that starts late: it need not catch up before the others go on.
                self._steps[group] = max(self._steps[group], self._slowest(group))
            self._crashes.pop(group, None)
            self._unfinished[group] = self._unfinished.get(group, 0) - length
            self.env_steps = max(self.env_steps, reply.env_steps)
            task = self.tasks[episode.task]
            task.env_steps = max(task.env_steps, reply.task_env_steps)
            task.episodes = max(task.episodes, reply.task_episodes)
            task.last_return, task.last_score = total_reward, score
            task.last_success = None if episode.success != episode.success else float(episode.success)
            self._outcomes.note(
                episode.task, reward=total_reward, score=score, success=float(episode.success), length=length
            )
            self._changed.notify_all()
            if self.is_over():
                self._news.notify_all()

    # ---- for who asks replay's limiter

    def counted(self) -> int:
        """Env steps taken, a little less of them: so that they reach the total when it is stored."""
        with self._changed:
            return self._counted()

    def permit(self, env_steps: int | None) -> None:
        """Lets the groups go on while at most so many steps are taken; None: for ever."""
        with self._changed:
            self._permitted = sys.maxsize if env_steps is None else env_steps
            self._held_back = False
            self._changed.notify_all()

    def wait_for_news(self, reported: int, soon_s: float, late_s: float) -> None:
        """Returns when the limiter is to be asked again: at once if a group waits for it.

        Args:
            reported: Steps that it knows of.
            soon_s: When to return if there are more steps.
            late_s: When to return anyway.
        """
        start = time.monotonic()
        with self._changed:
            while not self._held_back and not self.is_over():
                self._stop.check()
                waited_s = time.monotonic() - start
                if waited_s >= (soon_s if self._counted() != reported else late_s):
                    return
                self._news.wait(soon_s)

    # ---- for the collector

    def is_over(self) -> bool:
        """Whether everything has been collected, or a group has failed."""
        return self.env_steps >= self._total or self._failure is not None

    def raise_failure(self) -> None:
        """Raises the error of the first group that failed."""
        if self._failure is not None:
            raise self._failure

    def wait_until(self, env_steps: int) -> None:
        """Returns when so many transitions are stored, or when collection is over; raises Stopped."""
        with self._changed:
            while self.env_steps < env_steps and not self.is_over():
                self._stop.check()
                self._changed.wait()

    def _slowest(self, group: int) -> int:
        """Steps of the slowest group that is not lame; this group's own, where all are."""
        counts = (s for g, s in self._steps.items() if not self._is_lame(g))
        return min(counts, default=self._steps[group])

    def _is_lame(self, group: int) -> bool:
        return self._crashes.get(group, 0) >= LAME_AFTER

    def _counted(self) -> int:
        # Collection ends when the total is stored; the episodes that are unfinished then are steps beyond it. Stretched
        # over all steps, so that no step is taken when the updates are over.
        taken = self._base + self._taken - self._given_up
        unfinished = sum(self._unfinished.values())
        return min(round(taken * self._total / (self._total + unfinished)), self._total)

    def _end(self, error: BaseException | None) -> None:
        self._failure = self._failure or error
        self._changed.notify_all()
        self._news.notify_all()

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
        """What the episodes stored since the last call came to, as `Outcomes.take` has it."""
        with self._changed:
            return self._outcomes.take(sum(task.episodes for task in self.tasks.values()))

    def snapshot(self) -> dict[str, TaskProgress]:
        """Progress by task, copied."""
        with self._changed:
            return {name: task.model_copy() for name, task in self.tasks.items()}
