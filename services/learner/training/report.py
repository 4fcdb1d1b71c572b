"""What a trainer tells about itself, once a second, also while it waits."""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor

from newt.agent.update import read_metrics
from newt.runs.record import Computing
from services.learner.records.progress import Pacing, TrainerProgress
from services.learner.waiting import Patience, loosely
from services.learner.worker.main import Context
from services.learner.worker.reporter import REPORT_EVERY_S, every

RATE_WINDOW_S = 10.0


class TrainingReport:
    """Writes progress and metrics.

    Attributes:
        stage: What the trainer is doing, in words.
        waiting_on: What it waits for, if it is not a call; or None.
        computing: What it trains on.
        pretrained: The pretraining phase is over and its weights are published.
        finished: All updates are done and the final weights are published.
        diverged: A loss became NaN or infinite.

    Args:
        context: Context of the process.
        updates: Updates so far.
        env_steps: Env steps so far.
        patience: Knows which service is being waited for.
        computing: What it trains on.
        silent: Write nothing, as all but the first of several training processes.
    """

    def __init__(
        self,
        context: Context,
        updates: int,
        env_steps: int,
        patience: Patience,
        computing: Computing,
        *,
        silent: bool = False,
    ) -> None:
        self.stage = "starting"
        self.waiting_on: str | None = None
        self.computing = computing
        self.pretrained = False
        self.finished = False
        self.diverged = False
        self._context, self._patience, self._silent = context, patience, silent
        self._updates, self._env_steps = updates, env_steps
        self._written = updates
        self._blocked_s = 0.0
        self._metrics: dict[str, Tensor] = {}
        self._pacing = Pacing()
        # A run that was resumed has those of before until it has its own.
        self._losses: dict[str, float] = dict(context.run.progress.losses)
        self._window = deque([(time.monotonic(), updates)])

    def updated(self, updates: int, env_steps: int, blocked_s: float, metrics: dict[str, Tensor]) -> None:
        """Notes an update; the tensors are read when they are reported."""
        self.waiting_on = None
        self._updates, self._env_steps, self._metrics = updates, env_steps, metrics
        self._blocked_s += blocked_s

    def paced(self, pacing: Pacing) -> None:
        """Notes how well an update keeps up with collection."""
        self._pacing = pacing

    def telling(self) -> AbstractContextManager[None]:
        """Tells while a block runs, and once more at its end."""
        if self._silent:
            return nullcontext()
        return every(REPORT_EVERY_S, self._report, self._context.stop)

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
            self._losses = {name: x for name, x in read_metrics(metrics).items() if math.isfinite(x)}
            blocked_s, self._blocked_s = self._blocked_s, 0.0
            pacing = self._pacing.model_dump(exclude_none=True)
            values = {**self._losses, "updates_per_s": rate, "blocked_s": blocked_s, **pacing}
            loosely(lambda: writer.metrics("trainer", self._env_steps, updates, values))
        progress = TrainerProgress(
            attempt=writer.attempt,
            stage=self.stage,
            waiting_on=self.waiting_on or self._patience.waiting_on,
            pretrain_updates=min(updates, spec.pretrain_updates()),
            updates=max(0, updates - spec.pretrain_updates()),
            updates_per_s=round(rate, 2),
            pacing=self._pacing,
            computing=self.computing,
            losses={name: round(value, 5) for name, value in self._losses.items()},
            pretrained=self.pretrained,
            finished=self.finished,
            diverged=self.diverged,
        )
        writer.progress("trainer", progress)
