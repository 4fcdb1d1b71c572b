"""A gRPC server with what all our services share: health, reflection, status mapping, metrics, orderly shutdown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent import futures
from types import FrameType

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from newt.wire import metrics, tls
from newt.wire.channels import CHANNEL_OPTIONS
from newt.wire.status import StatusInterceptor

LIVENESS = "liveness"

log = structlog.get_logger(__name__)


class PortInUseError(OSError):
    """The address cannot be bound."""


class Server:
    """One gRPC server of one service.

        server = Server("newt.v1.SimService", host="127.0.0.1", port=0)
        sim_pb2_grpc.add_SimServiceServicer_to_server(servicer, server.grpc)
        server.start()
        server.set_ready(True)
        server.stop(grace_s=5)

    Health: `liveness` is SERVING from start to stop; the service's full name and the empty name are SERVING while
    the service says that it is ready.

    Args:
        service: Full name of the gRPC service.
        host: Address to bind.
        port: Port to bind; 0 picks a free one (see `port`).
        max_threads: Handlers that can run at once. Each open stream holds one.
        max_connection_age_s: Ask clients to connect anew after this time, running calls undisturbed: that is when
            they look up the addresses of all replicas again. None: never.

    Raises:
        PortInUseError: The address cannot be bound; the message names it.
        SecurityError: TLS is on (NEWT_TLS_DIR), and its certificates are not fit for use.
    """

    def __init__(
        self, service: str, host: str, port: int, max_threads: int = 64, max_connection_age_s: float | None = None
    ) -> None:
        self._service = service
        credentials = tls.server_credentials()
        self._tls = credentials is not None
        self._health = health.HealthServicer()
        ages = [("grpc.max_connection_age_ms", int(1000 * max_connection_age_s))] if max_connection_age_s else []
        self.grpc = grpc.server(
            futures.ThreadPoolExecutor(max_threads, thread_name_prefix="rpc"),
            interceptors=[StatusInterceptor()],
            options=[
                *CHANNEL_OPTIONS,
                ("grpc.so_reuseport", 0),  # Two servers on one port must be an error, not a lottery.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                *ages,
            ],
            maximum_concurrent_rpcs=max_threads * 4,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection([service, health.SERVICE_NAME, reflection.SERVICE_NAME], self.grpc)
        for name in ("", service, LIVENESS):
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            if credentials is None:
                self.port = self.grpc.add_insecure_port(f"{host}:{port}")
            else:
                self.port = self.grpc.add_secure_port(f"{host}:{port}", credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise PortInUseError(
                f"{service}: cannot bind {host}:{port}; another process has the port, or the host is not ours. "
                "Stop that process or choose another port."
            )
        self.address = f"{host}:{self.port}"

    def start(self) -> None:
        """Starts answering; the service is alive but not yet ready."""
        self.grpc.start()
        self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        log.info("server_started", service=self._service, address=self.address, tls=self._tls)

    def set_ready(self, ready: bool) -> None:
        """Publishes whether the service can do its work now."""
        state = health_pb2.HealthCheckResponse
        for name in ("", self._service):
            self._health.set(name, state.SERVING if ready else state.NOT_SERVING)

    def stop(self, grace_s: float) -> None:
        """Refuses new calls, lets running ones finish for `grace_s` seconds, then cancels them."""
        self._health.enter_graceful_shutdown()
        self.grpc.stop(grace_s).wait()
        log.info("server_stopped", service=self._service)


def run_until_signal(
    service_name: str,
    server: Server,
    metrics_host: str,
    metrics_port: int,
    on_stop: Callable[[], None],
    grace_s: float = 5.0,
    on_drain: Callable[[], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; call from the main thread of a service's process.

    Args:
        service_name: Short name for the metrics endpoint.
        server: Built, with its servicers added, not started. The caller marks it ready.
        metrics_host: Address of the metrics endpoint.
        metrics_port: Port of the metrics endpoint; 0 picks one.
        on_stop: Closes what the service holds, after the last call has ended.
        grace_s: Time for running calls to finish.
        on_drain: Ends what would keep calls running for the whole grace: queues, long streams.
    """
    stopped = threading.Event()

    def handle(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    metrics.serve(service_name, metrics_host, metrics_port)
    server.start()
    stopped.wait()
    if on_drain is not None:
        on_drain()
    server.stop(grace_s)
    on_stop()
