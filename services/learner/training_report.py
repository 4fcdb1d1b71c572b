"""What a trainer tells about itself, once a second, also while it waits."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

from torch import Tensor

from services.learner.child import Context, loosely
from services.learner.progress import TrainerProgress
from services.learner.store import SupersededError

REPORT_EVERY_S = 1.0
RATE_WINDOW_S = 10.0


class TrainingReport:
    """Writes progress and metrics from a thread of its own.

    Attributes:
        stage: What the trainer is doing, in words.
        waiting_on: What it waits for, or None.
        pretrained: The pretraining phase is over and its weights are published.
        finished: All updates are done and the final weights are published.
        diverged: A loss became NaN or infinite.

    Args:
        context: Of the process.
        updates: Updates so far.
        env_steps: Env steps so far.
        silent: Write nothing, as all but the first of several training processes.
    """

    def __init__(self, context: Context, updates: int, env_steps: int, *, silent: bool = False) -> None:
        self.stage = "starting"
        self.waiting_on: str | None = None
        self.pretrained = False
        self.finished = False
        self.diverged = False
        self._context, self._silent = context, silent
        self._updates, self._env_steps = updates, env_steps
        self._written = updates
        self._blocked_s = 0.0
        self._metrics: dict[str, Tensor] = {}
        self._losses: dict[str, float] = {}
        self._window = deque([(time.monotonic(), updates)])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="report", daemon=True)

    def updated(self, updates: int, env_steps: int, blocked_s: float, metrics: dict[str, Tensor]) -> None:
        """Notes an update; the tensors are read when they are reported."""
        self.waiting_on = None
        self._updates, self._env_steps, self._metrics = updates, env_steps, metrics
        self._blocked_s += blocked_s

    def __enter__(self) -> Self:
        if not self._silent:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._silent:
            return
        self._over.set()
        self._thread.join()
        with contextlib.suppress(SupersededError):  # then nobody reads it any more
            self._report()

    def _loop(self) -> None:
        while not self._over.wait(REPORT_EVERY_S):
            try:
                self._report()
            except SupersededError:
                self._context.stop.set()
                return

    def _rate(self) -> float:
        now = time.monotonic()
        self._window.append((now, self._updates))
        while len(self._window) > 2 and self._window[0][0] < now - RATE_WINDOW_S:
            self._window.popleft()
        (start, first), (end, last) = self._window[0], self._window[-1]
        return (last - first) / max(end - start, 1e-9)

    def _report(self) -> None:
        spec, writer = self._context.run.spec, self._context.writer
        rate, updates, metrics = self._rate(), self._updates, self._metrics
        if updates > self._written:
            self._written = updates
            self._losses = {name: x for name, value in metrics.items() if math.isfinite(x := float(value))}
            blocked_s, self._blocked_s = self._blocked_s, 0.0
            values = {**self._losses, "updates_per_s": rate, "blocked_s": blocked_s}
            loosely(lambda: writer.metrics("trainer", self._env_steps, updates, values))
        progress = TrainerProgress(
            attempt=writer.attempt,
            stage=self.stage,
            waiting_on=self.waiting_on,
            pretrain_updates=min(updates, spec.pretrain_updates()),
            updates=max(0, updates - spec.pretrain_updates()),
            updates_per_s=round(rate, 2),
            losses={name: round(value, 5) for name, value in self._losses.items()},
            pretrained=self.pretrained,
            finished=self.finished,
            diverged=self.diverged,
        )
        loosely(lambda: writer.progress("trainer", progress))
