"""A gRPC server with what all our services share: health, reflection, status mapping, metrics, orderly shutdown."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol, TypeVar

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from newt import logs, spans
from newt.errors import NewtError
from newt.memory import return_large_blocks
from newt.security import SecuritySettings
from newt.settings import GrpcServiceSettings
from newt.wire import metrics, tls
from newt.wire.addresses import bare_host, host_port
from newt.wire.callers import Doorkeeper
from newt.wire.channels import CHANNEL_OPTIONS
from newt.wire.lanes import Lanes
from newt.wire.status import StatusInterceptor

LIVENESS = "liveness"
# For cancelled calls to end.
_CANCEL_S = 2.0

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
        host: Address to bind; an IPv6 address with or without brackets.
        port: Port to bind; 0 picks a free one (see `port`).
        max_threads: Calls of one request and one reply that are answered at once.
        max_streams: Streams that may be open at once; surplus ones are refused.
        env_prefix: Prefix of the settings max_threads and max_streams, for messages.
        max_connection_age_s: Ask clients to connect anew after this time, running calls undisturbed: that is when
            they look up the addresses of all replicas again. None: never.

    Raises:
        PortInUseError: The address cannot be bound; the message names it.
        SecurityError: TLS is on (NEWT_TLS_DIR), and its certificates are not fit for use.
    """

    def __init__(
        self,
        service: str,
        host: str,
        port: int,
        max_threads: int = 64,
        max_streams: int = 64,
        env_prefix: str = "",
        max_connection_age_s: float | None = None,
    ) -> None:
        self._service = service
        self._failed = threading.Event()
        self._told_to_stop = threading.Event()
        lanes = Lanes(service, max_threads, max_streams, env_prefix)
        credentials = tls.server_credentials()
        self._tls = credentials is not None
        security = SecuritySettings()
        doorkeeper = Doorkeeper() if self._tls and security.tls_callers == "named" else None
        # Its other way to answer Watch, without a thread, can lock up with a client that goes at the same moment.
        self._health = health.HealthServicer(experimental_non_blocking=False)
        ages = [("grpc.max_connection_age_ms", int(1000 * max_connection_age_s))] if max_connection_age_s else []
        self.grpc = grpc.server(
            lanes.calls,
            interceptors=[StatusInterceptor(lanes, doorkeeper)],
            options=[
                *CHANNEL_OPTIONS,
                ("grpc.so_reuseport", 0),  # Two servers on one port must be an error, not a lottery.
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
                *ages,
            ],
            maximum_concurrent_rpcs=lanes.limit,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        if security.reflects:
            reflection.enable_server_reflection([service, health.SERVICE_NAME, reflection.SERVICE_NAME], self.grpc)
        for name in ("", service, LIVENESS):
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        address = host_port(host, port)
        try:
            if credentials is None:
                self.port = self.grpc.add_insecure_port(address)
            else:
                self.port = self.grpc.add_secure_port(address, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise PortInUseError(f"{service}: cannot bind {address}: {why_not_bound(host, port)}")
        self.address = host_port(host, self.port)

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

    def stop(self, grace_s: float) -> bool:
        """Refuses new calls, lets running ones finish for `grace_s` seconds, then cancels them.

        Returns:
            Whether all calls have ended. Those that do not even end when they are cancelled are left behind.
        """
        self._health.enter_graceful_shutdown()
        ended = self.grpc.stop(grace_s).wait(grace_s + _CANCEL_S)
        log.info("server_stopped", service=self._service, all_calls_ended=ended)
        return ended

    def give_up(self) -> None:
        """Ends `serve` with exit status 1, from any thread: the service cannot do its work."""
        self._failed.set()
        self._told_to_stop.set()

    def wait_for_signal(self) -> bool:
        """Waits for SIGTERM or SIGINT, from the process's main thread. Returns False if the service gave up."""

        def handle(signum: int, frame: FrameType | None) -> None:
            self._told_to_stop.set()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)
        self._told_to_stop.wait()
        return not self._failed.is_set()


def why_not_bound(host: str, port: int) -> str:
    """Why an address cannot be bound, which gRPC does not tell."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(
            bare_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen()
    except socket.gaierror as error:
        return f"{host!r} is neither an address nor a known name of a machine ({error.strerror})"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another process has the port; stop that process or choose another port"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; choose one that is, 127.0.0.1 or 0.0.0.0 for example"
        return f"{error.strerror}; choose another address or port"
    return "gRPC does not say why; NEWT_TLS_DIR may hold a certificate that it cannot use, or try again"


class Service(Protocol):
    """One gRPC service put together, as `serve` runs it."""

    server: Server

    def start(self) -> None:
        """Begins what goes on beside the calls; the server answers already."""

    def drain(self) -> None:
        """Ends what would keep calls running for the whole grace: queues, long streams."""

    def close(self) -> None:
        """Lets go of everything; the last call has ended."""


S = TypeVar("S", bound=GrpcServiceSettings)


def serve(name: str, settings_type: type[S], make: Callable[[S], Service]) -> int:
    """Runs a service until SIGTERM or SIGINT; the main function of its process.

    Args:
        name: Short name, for logs and metrics.
        settings_type: Read from the environment.
        make: Builds the service.

    Returns:
        The exit status: 0, 1 if the service cannot start or gives up, 2 for bad settings.
    """
    try:
        settings = settings_type()
    except ValueError as error:
        print(f"{name}: bad settings: {error}", file=sys.stderr)
        return 2
    logs.configure(name, settings.log_level)
    spans.export(name)
    return_large_blocks()
    try:
        # Ports first, here and in `make`: who finds one taken has started nothing.
        metrics.serve(name, settings.metrics_host, settings.metrics_port)
        service = make(settings)
    except (NewtError, OSError, ValueError) as error:
        print(f"{name}: cannot start: {error}", file=sys.stderr)
        return 1
    service.server.start()
    service.start()
    well = service.server.wait_for_signal()
    service.drain()
    ended = service.server.stop(settings.stop_grace_s)
    service.close()
    if not ended:
        # Python waits for all threads before it exits; one that is stuck in a call must not keep the process.
        sys.stderr.flush()
        os._exit(0 if well else 1)
    return 0 if well else 1
