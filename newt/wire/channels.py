"""Client channels: the same limits and keepalive as the servers, and retries where they are harmless."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import grpc

from newt.wire import tls
from newt.wire.tracing import TraceInterceptor

# Larger than any message we send (a 512-row RGB step is 77 MB), finite on both ends.
MAX_MESSAGE_BYTES = 128 * 1024 * 1024

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A peer that comes back after a restart is found within a second, not after minutes of back-off.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

# Every unary method of ours is idempotent by design (sequence numbers, episode ids) except Open, whose unused
# sessions end with their lease. Plan waits for weights in the caller, which knows how long.
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [
                {"service": "newt.v1.SimService", "method": "Describe"},
                {"service": "newt.v1.SimService", "method": "Step"},
                {"service": "newt.v1.ReplayService", "method": "Append"},
                {"service": "newt.v1.ReplayService", "method": "GetBuffer"},
                {"service": "newt.v1.PlannerService", "method": "ListModels"},
            ],
            "retryPolicy": _RETRY,
        }
    ],
}
# One replica, any of them, for as long as it lives.
_ONE_REPLICA = {**_SERVICE_CONFIG, "loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}]}


def connect(target: str, options: Sequence[tuple[str, Any]] = (), *, one_replica: bool = False) -> grpc.Channel:
    """A channel to `host:port` (or any gRPC target). Connecting happens in the background; calls carry newt.trace.

    Every call needs a deadline (`timeout=`); to wait for a server to appear, pass `wait_for_ready=True` with one.

    Args:
        target: Where to. A name with several addresses (a headless service in Kubernetes) stands for replicas.
        options: More channel options.
        one_replica: Send all calls to one replica, chosen at random, because it remembers something between them.
            Otherwise calls go round all replicas in turn.

    Raises:
        SecurityError: TLS is on (NEWT_TLS_DIR), and its certificates are not fit for use.
    """
    config = _ONE_REPLICA if one_replica else _SERVICE_CONFIG
    # Channels share connections unless told otherwise, and with them the choice of the replica.
    own = [("grpc.use_local_subchannel_pool", 1)] if one_replica else []
    every = [*CHANNEL_OPTIONS, ("grpc.service_config", json.dumps(config)), *own, *options]
    credentials = tls.channel_credentials()
    if credentials is None:
        channel = grpc.insecure_channel(target, options=every)
    else:
        channel = grpc.secure_channel(target, credentials, options=every)
    return grpc.intercept_channel(channel, TraceInterceptor())
