"""The health probe against a real server, as the containers run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from newt.wire.server import LIVENESS, Server

SERVICE = "newt.v1.SimService"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(SERVICE, "127.0.0.1", 0, max_threads=4)
    running.start()
    yield running
    running.stop(grace_s=0)


def probe(target: str, service: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "newt.wire.probe", target, service, "--timeout-s", "10"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_server_is_alive_before_it_is_ready(server: Server) -> None:
    assert probe(server.address, LIVENESS).returncode == 0
    early = probe(server.address, SERVICE)
    assert early.returncode == 1
    assert early.stderr == f"{SERVICE} at {server.address}: NOT_SERVING\n"
    server.set_ready(True)
    ready = probe(server.address, SERVICE)
    assert (ready.returncode, ready.stderr) == (0, "")


def test_says_what_is_wrong(server: Server) -> None:
    assert "NOT_FOUND" in probe(server.address, "newt.v1.PlannerService").stderr
    server.stop(grace_s=0)
    gone = probe(server.address, SERVICE)
    assert gone.returncode == 1
    assert "UNAVAILABLE" in gone.stderr
