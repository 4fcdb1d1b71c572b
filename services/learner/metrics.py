"""Prometheus metrics of the learner."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from newt.runs.record import Progress, RunState
from newt.wire.metrics import LATENCY_BUCKETS

RUNS = Gauge("newt_learner_runs", "Runs by state.", ["state"])
RESTARTS = Counter("newt_learner_process_restarts_total", "Crashed processes that were restarted.", ["role"])
REQUESTS = Histogram(
    "newt_learner_http_request_seconds",
    "REST requests by route; of an event stream, the time to its first byte.",
    ["method", "route", "status"],
    buckets=LATENCY_BUCKETS,
)
ENV_STEPS_RATE = Gauge("newt_learner_env_steps_per_second", "Env steps per second, over all active runs.")
UPDATES_RATE = Gauge("newt_learner_updates_per_second", "Updates per second, over all active runs.")


def show_states(states: Iterable[RunState]) -> None:
    """Sets the number of runs in every state."""
    counts = Count(states)
    for state in RunState:
        RUNS.labels(state.value).set(counts[state])


def show_rates(runs: Iterable[Progress]) -> None:
    """Sets the rates from the progress of all active runs."""
    active = list(runs)
    ENV_STEPS_RATE.set(sum(progress.env_steps_per_s for progress in active))
    UPDATES_RATE.set(sum(progress.updates_per_s for progress in active))
