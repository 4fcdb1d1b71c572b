"""Metrics of the planner service. Model ids are unbounded, so no metric carries one."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from newt.wire.metrics import LATENCY_BUCKETS, ROW_BUCKETS, from_zero

REQUESTS = Counter("newt_planner_requests_total", "Requests that were planned.")
ROWS = Counter("newt_planner_rows_total", "Rows that were planned, padding not counted.")
EXECUTIONS = Counter("newt_planner_executions_total", "Device batches that were computed.")
FAILURES = from_zero(
    Counter("newt_planner_failures_total", "Requests that were not planned.", ["reason"]),
    ("invalid", "unavailable", "refused", "queue_full", "cancelled", "internal"),
)
BATCH_ROWS = Histogram("newt_planner_batch_rows", "Rows of a device batch, padding not counted.", buckets=ROW_BUCKETS)
QUEUE_SECONDS = Histogram("newt_planner_queue_seconds", "Time a request waited.", buckets=LATENCY_BUCKETS)
COMPUTE_SECONDS = Histogram("newt_planner_compute_seconds", "Time of a device batch.", buckets=LATENCY_BUCKETS)
QUEUED_ROWS = Gauge("newt_planner_queued_rows", "Rows waiting now.")

MODELS = Gauge("newt_planner_models", "Models that can be served now.")
REFUSED_MODELS = Gauge(
    "newt_planner_refused_models", "Models whose newest version is not used; ListModels and the log have the reasons."
)
HUB_CONNECTED = Gauge("newt_planner_hub_connected", "1 while subscribed to the weights hub.")
WEIGHTS_VERSION = Gauge("newt_planner_weights_version", "Version that was swapped in last, of whatever model.")
WEIGHTS_CREATED = Gauge(
    "newt_planner_weights_created_seconds", "When the weights that were swapped in last were made, in Unix time."
)
SWAPS = Counter("newt_planner_swaps_total", "Weights put to use.")
SWAP_SECONDS = Histogram(
    "newt_planner_swap_seconds", "Time from the last byte of new weights to their use.", buckets=LATENCY_BUCKETS
)
PUBLISH_SECONDS = Histogram(
    "newt_planner_publish_to_use_seconds",
    "Time from the creation of new weights to their use.",
    buckets=LATENCY_BUCKETS,
)
WEIGHTS_REFUSED = Counter("newt_planner_weights_refused_total", "Received weights that were not put to use.")
