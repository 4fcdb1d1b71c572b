"""Client channels: the same limits and keepalive as the servers, straight to the peer."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import grpc

from newt.wire import tls
from newt.wire.addresses import check_address
from newt.wire.limits import MAX_MESSAGE_BYTES
from newt.wire.tracing import TraceInterceptor

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # What ends a connection whose peer hangs, be it stopped or cut off; by itself the time-out above does not.
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Proxies in the environment lead to the internet; our services are never there.
    ("grpc.enable_http_proxy", 0),
    # A peer that comes back after a restart is found within a second, not after minutes of back-off.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]

_ALL_REPLICAS: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
# One replica, any of them, for as long as it lives.
_ONE_REPLICA: dict[str, Any] = {"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": True}}]}


def connect(target: str, options: Sequence[tuple[str, Any]] = (), *, one_replica: bool = False) -> grpc.Channel:
    """A channel to `host:port` (or any gRPC target). Connecting happens in the background; calls carry newt.trace.

    Every call needs a deadline (`timeout=`), or it is refused here. A proxy that the environment names is not used.

    Args:
        target: Address of the service; IPv6 hosts in brackets. A name with several addresses (a headless service in
            Kubernetes) stands for replicas.
        options: More channel options.
        one_replica: Send all calls to one replica, chosen at random, because it remembers something between them.
            Otherwise calls go round all replicas in turn.

    Raises:
        InvalidInputError: Not an address.
        SecurityError: TLS is on (NEWT_TLS_DIR), and its certificates are not fit for use.
    """
    check_address(target)
    config = _ONE_REPLICA if one_replica else _ALL_REPLICAS
    # Channels share connections unless told otherwise, and with them the choice of the replica.
    own = [("grpc.use_local_subchannel_pool", 1)] if one_replica else []
    every = [*CHANNEL_OPTIONS, ("grpc.service_config", json.dumps(config)), *own, *options]
    credentials = tls.channel_credentials()
    if credentials is None:
        channel = grpc.insecure_channel(target, options=every)
    else:
        channel = grpc.secure_channel(target, credentials, options=every)
    return grpc.intercept_channel(channel, TraceInterceptor())


class Channels:
    """One channel to each target, for questions that are asked again and again.

    A channel that is opened and closed costs about 250 bytes for good, here and at the peer (grpcio 1.85).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, grpc.Channel] = {}

    def to(self, target: str) -> grpc.Channel:
        """The channel to a target, which stays open. Raises as `connect` does."""
        with self._lock:
            if target not in self._open:
                self._open[target] = connect(target)
            return self._open[target]
