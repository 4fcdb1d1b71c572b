"""How long a run's collector waits for planners and simulators, and what it loses: counted there, shown by the learner.

A collector is a process that nobody scrapes. It says its counts with its progress, and the learner adds up what they
have grown by.
"""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field

from newt.runs.base import now
from newt.wire.metrics import LATENCY_BUCKETS

START_BUCKETS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
BUCKETS = {"plan": LATENCY_BUCKETS, "env_step": LATENCY_BUCKETS, "first_session": START_BUCKETS}
TEXTS = {
    "plan": "Time of a plan or of the policy's actions for a group of instances, as collectors see it.",
    "env_step": "Time of a step of a group of simulator instances, as collectors see it.",
    "first_session": "Time from a run's start to its first simulator session, which its first env step follows.",
}
LOSSES = ("session", "instance")
"""A simulator service was restarted, or a lease ended; one instance crashed or hung."""


class Histogram(BaseModel):
    """What a histogram has seen.

    Attributes:
        counts: Observations in each bucket, and above the last.
        sum_s: Seconds of all of them.
    """

    counts: list[int]
    sum_s: float = 0.0


class Measured(BaseModel):
    """What one process has seen since it began.

    Attributes:
        process: Drawn when it began: another one counts from zero.
        tallies: Histograms by name, those of BUCKETS.
        lost: Episodes that were under way and have no end, by reason, those of LOSSES.
    """

    process: str = ""
    tallies: dict[str, Histogram] = Field(default_factory=dict)
    lost: dict[str, int] = Field(default_factory=dict)


class Meter:
    """Counts, for any number of threads.

    with meter.timed("plan"):
        plan = planner.plan(...)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._awaited: datetime | None = None
        self._seen = Measured(
            process=secrets.token_hex(4),
            tallies={name: Histogram(counts=[0] * (len(buckets) + 1)) for name, buckets in BUCKETS.items()},
            lost=dict.fromkeys(LOSSES, 0),
        )

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Observes how long a block takes, unless it fails."""
        start = time.perf_counter()
        yield
        self.observe(name, time.perf_counter() - start)

    def observe(self, name: str, seconds: float) -> None:
        """Adds an observation."""
        with self._lock:
            tally = self._seen.tallies[name]
            tally.counts[bisect_left(BUCKETS[name], seconds)] += 1
            tally.sum_s += seconds

    def await_first_session(self, since: datetime | None) -> None:
        """The next session is a run's first; `since` is the run's start."""
        with self._lock:
            self._awaited = since

    def opened(self) -> None:
        """A simulator session is there."""
        with self._lock:
            since, self._awaited = self._awaited, None
        if since is not None:
            self.observe("first_session", max(0.0, (now() - since).total_seconds()))

    def lost(self, reason: str, episodes: int) -> None:
        """Episodes that were under way have no end."""
        with self._lock:
            self._seen.lost[reason] += episodes

    def measured(self) -> Measured:
        """All so far, copied."""
        with self._lock:
            return self._seen.model_copy(deep=True)


class Totals(Collector):
    """What all collectors have seen since this process began, as metrics `newt_learner_...`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Measured] = {}
        self._total = Meter().measured()

    def begin(self, run_id: str, measured: Measured) -> None:
        """A run gets a collector; `measured` is what one of before has left in the record, which is not added."""
        with self._lock:
            self._known[run_id] = measured

    def add(self, run_id: str, measured: Measured) -> None:
        """Adds what a run's collector has seen since the last time; nothing before `begin` and after `end`."""
        with self._lock:
            before = self._known.get(run_id)
            if before is None:
                return
            if before.process != measured.process:
                before = Measured()
            for name, total in self._total.tallies.items():
                seen, known = measured.tallies.get(name), before.tallies.get(name)
                if seen is None or len(seen.counts) != len(total.counts):  # of another version
                    continue
                earlier = known.counts if known else [0] * len(total.counts)
                grown = zip(total.counts, seen.counts, earlier, strict=True)
                total.counts = [count + new - old for count, new, old in grown]
                total.sum_s += seen.sum_s - (known.sum_s if known else 0.0)
            for reason in LOSSES:
                self._total.lost[reason] += measured.lost.get(reason, 0) - before.lost.get(reason, 0)
            self._known[run_id] = measured

    def end(self, run_id: str) -> None:
        """The run's collector is gone; what it has added stays."""
        with self._lock:
            self._known.pop(run_id, None)

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        with self._lock:
            total = self._total.model_copy(deep=True)
        for name, tally in total.tallies.items():
            bounds = [*map(str, BUCKETS[name]), "+Inf"]
            sums = [sum(tally.counts[: place + 1]) for place in range(len(bounds))]
            yield HistogramMetricFamily(
                f"newt_learner_{name}_seconds", TEXTS[name], list(zip(bounds, sums, strict=True)), tally.sum_s
            )
        lost = CounterMetricFamily(
            "newt_learner_episodes_lost", "Episodes that were under way and have no end, by reason.", labels=["reason"]
        )
        for reason, episodes in total.lost.items():
            lost.add_metric([reason], episodes)
        yield lost
