"""Metrics of the replay service."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from newt.wire.metrics import LATENCY_BUCKETS, from_zero

EPISODES = Gauge("newt_replay_episodes", "Episodes held.", ["kind"])
ROWS = Gauge("newt_replay_rows", "Rows held.", ["kind"])
BYTES = Gauge("newt_replay_bytes", "Redis bytes of the episodes held.", ["kind"])
_KINDS = ("buffer", "demos")
APPENDED = from_zero(Counter("newt_replay_appended_transitions_total", "Transitions stored.", ["kind"]), _KINDS)
APPENDED_EPISODES = from_zero(Counter("newt_replay_appended_episodes_total", "Episodes stored.", ["kind"]), _KINDS)
DUPLICATES = from_zero(
    Counter("newt_replay_duplicate_episodes_total", "Appends of an episode that was stored before.", ["kind"]), _KINDS
)
EVICTED = Counter("newt_replay_evicted_episodes_total", "Online episodes evicted by capacity.")
SAMPLED = from_zero(
    Counter("newt_replay_sampled_sequences_total", "Sequences sampled.", ["origin"]), ("demos", "online")
)
SAMPLE_SECONDS = Histogram(
    "newt_replay_sample_seconds", "Time to draw, gather and encode one batch.", buckets=LATENCY_BUCKETS
)
BLOCKED = from_zero(
    Counter("newt_replay_blocked_seconds_total", "Time that calls were held back, by the side held.", ["side"]),
    ("sample", "insert"),
)
BROKEN = from_zero(
    Gauge("newt_replay_broken_records", "Spaces and episodes in Redis that cannot be read and are left out.", ["what"]),
    ("buffer", "demos", "episode"),
)
REDIS_UP = Gauge("newt_replay_redis_up", "1 while Redis answers.")
REDIS_USED = Gauge("newt_replay_redis_used_bytes", "Memory that Redis uses.")
REDIS_LIMIT = Gauge("newt_replay_redis_limit_bytes", "Memory that Redis may use; 0 for no limit.")
REDIS_AOF_OK = Gauge("newt_replay_redis_aof_ok", "0 while Redis cannot write its append-only file, else 1.")
REDIS_ERRORS = from_zero(
    Counter("newt_replay_redis_errors_total", "Failed Redis commands.", ["reason"]),
    ("full", "disk", "auth", "loading", "timeout", "unreachable", "corrupt", "other"),
)
REBUILD_SECONDS = Gauge("newt_replay_rebuild_seconds", "Duration of the last rebuild of the mirror.")
