"""Services in processes of their own, as they are deployed, for the duration of a benchmark."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from newt.local import ports
from newt.local.health import is_ready
from newt.local.stack import ServiceSpec, environment
from newt.local.state import StackState
from newt.wire.server import Server
from newt.wire.v1 import weights_pb2_grpc
from services.learner.weights.hub import WeightsHub

_START_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True)
class RunningService:
    """A service's process.

    Attributes:
        address: host:port.
        pid: Process id.
    """

    address: str
    pid: int


@contextmanager
def running(
    module: str, health: str, env: Mapping[str, str] | None = None, threads: int = 1
) -> Iterator[RunningService]:
    """Runs `python -m MODULE` until the block ends.

    Args:
        module: Such as `services.sim`.
        health: Full name of its gRPC service.
        env: Settings without the service's prefix.
        threads: OpenMP threads of the process.

    Yields:
        The process, ready.

    Raises:
        RuntimeError: It ended, or is not ready in time; with its last lines.
    """
    name = module.rpartition(".")[2]
    port = ports.free_port()
    values = {"PORT": str(port), "LOG_LEVEL": "WARNING", **(env or {})}
    prefixed = {f"NEWT_{name.upper()}_{key}": value for key, value in values.items()}
    spec = ServiceSpec(
        name, [sys.executable, "-m", module], port, health, {"OMP_NUM_THREADS": str(threads), **prefixed}
    )
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            spec.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(spec), start_new_session=True
        )
        try:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while not is_ready(spec):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    tail = log.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"{module} is not ready (exit status {process.poll()}): {tail}")
                time.sleep(0.1)
            yield RunningService(spec.address, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def service(module: str, health: str, env: Mapping[str, str] | None = None, threads: int = 1) -> Iterator[str]:
    """As `running`, for callers who only need its host:port."""
    with running(module, health, env, threads) as process:
        yield process.address


@contextmanager
def weights_hub() -> Iterator[str]:
    """A weights hub in this process; yields its host:port."""
    hub = WeightsHub()
    server = Server("newt.v1.WeightsService", ports.HOST, 0)
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(hub, server.grpc)
    server.start()
    try:
        yield server.address
    finally:
        hub.close()
        server.stop(grace_s=1.0)


@contextmanager
def planner(hub: str, threads: int, device: str = "cpu", *, graphs: bool = False) -> Iterator[str]:
    """A planner service that listens to `hub`; yields its host:port."""
    env = {"HUB": hub, "TORCH_THREADS": str(threads), "DEVICE": device, "GRAPHS": str(graphs)}
    with service("services.planner", "newt.v1.PlannerService", env, threads) as address:
        yield address


def stack_processes(state: StackState) -> Iterator[tuple[str, psutil.Process]]:
    """All long-lived processes of a local stack, each with what it is in a few words."""
    for service in state.services:
        try:
            parent = psutil.Process(service["pid"])
            for process in (parent, *parent.children(recursive=True)):
                command = process.cmdline()
                if "multiprocessing" not in " ".join(command):
                    yield _role(command, service["name"]), process
        except psutil.NoSuchProcess:
            continue


def _role(command: list[str], service: str) -> str:
    module = next((part for part in command if part.startswith("services.")), "")
    last = module.rpartition(".")[2]
    return service if last in ("", service.partition("-")[0]) else f"{service}: {last}"
