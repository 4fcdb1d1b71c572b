"""The simulator service's own metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from newt.wire.metrics import LATENCY_BUCKETS

SESSIONS = Gauge("newt_sim_sessions", "Open sessions.")
INSTANCES = Gauge("newt_sim_instances", "Instances in use, all sessions together.")
STEPS = Counter("newt_sim_env_steps_total", "Agent steps of single instances.", ["domain"])
STEP_SECONDS = Histogram("newt_sim_step_seconds", "Duration of one step of a whole session.", buckets=LATENCY_BUCKETS)
ENV_ERRORS = Counter("newt_sim_env_errors_total", "Episodes lost to a crash.", ["domain"])
WORKER_RESTARTS = Counter("newt_sim_worker_restarts_total", "Worker processes replaced.", ["reason"])
LEASES_EXPIRED = Counter("newt_sim_leases_expired_total", "Sessions ended because nobody called.")
