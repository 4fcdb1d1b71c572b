"""The simulator service's own metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from newt.wire.metrics import LATENCY_BUCKETS, from_zero

SESSIONS = Gauge("newt_sim_sessions", "Open sessions.")
INSTANCES = Gauge("newt_sim_instances", "Instances in use, all sessions together.")
STEPS = Counter("newt_sim_env_steps_total", "Agent steps of single instances.", ["domain"])
STEP_SECONDS = Histogram("newt_sim_step_seconds", "Duration of one step of a whole session.", buckets=LATENCY_BUCKETS)
ENV_ERRORS = Counter("newt_sim_env_errors_total", "Episodes lost to a crash.", ["domain"])
# By task: each is somebody's to mend, and few have any.
NOT_FINITE = Counter(
    "newt_sim_not_finite_episodes_total",
    "Episodes that ended, or could not begin, because an observation, a reward or a score was not finite.",
    ["task"],
)
WORKER_RESTARTS = from_zero(
    Counter("newt_sim_worker_restarts_total", "Worker processes replaced.", ["reason"]), ("hung", "signal", "exit")
)
LEASES_EXPIRED = Counter("newt_sim_leases_expired_total", "Sessions ended because nobody called.")


def show_domains(domains: Iterable[str]) -> None:
    """Shows the series of the domains that this service hosts, before anything has happened in them."""
    for counter in (STEPS, ENV_ERRORS):
        from_zero(counter, domains)
