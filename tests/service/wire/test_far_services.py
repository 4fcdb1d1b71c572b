"""Addresses where nobody answers, and networks with proxies: every client, over real sockets."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from newt.client import RemoteVectorEnv, SimClient
from newt.client.planner import PlannerClient
from newt.client.replay import ReplayClient
from newt.client.weights import publish, retire
from newt.errors import UnavailableError
from newt.wire import probe
from newt.wire.channels import connect
from newt.wire.server import Server
from newt.wire.v1 import replay_pb2, replay_pb2_grpc

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 0.5
NO_ROWS = (np.zeros((1, 128), np.float32), np.zeros(1, np.int32), np.zeros(1, np.uint64))

CALLS: dict[str, Callable[[str], object]] = {
    "RemoteVectorEnv": lambda address: RemoteVectorEnv("noop", 2, address=address, timeout_s=TIMEOUT_S),
    "describe": lambda address: SimClient(address, TIMEOUT_S).describe(),
    "plan": lambda address: PlannerClient(address).plan("run", *NO_ROWS, explore=False, timeout_s=TIMEOUT_S),
    "models": lambda address: PlannerClient(address).models(timeout_s=TIMEOUT_S),
    "get_buffer": lambda address: ReplayClient(address).get_buffer("run", timeout_s=TIMEOUT_S),
    "read_episodes": lambda address: list(ReplayClient(address).read_episodes(buffer_id="a", timeout_s=TIMEOUT_S)),
    "publish": lambda address: publish(address, "run", 1, b"weights", "{}", timeout_s=TIMEOUT_S),
    "retire": lambda address: retire(address, "run", timeout_s=TIMEOUT_S),
}


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and never says a word, as behind a broken network."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "silent"])
def test_where_nobody_answers_a_call_ends_in_time_and_names_the_address(
    call: str, address: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("silent") if address == "silent" else address
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=re.escape(address)) as caught:
        CALLS[call](address)
    assert time.monotonic() - started < TIMEOUT_S + 2.0
    assert "address" in str(caught.value)  # What to do about it.


def test_a_call_without_a_deadline_is_refused() -> None:
    with connect("127.0.0.1:1") as channel:
        stub = replay_pb2_grpc.ReplayServiceStub(channel)
        with pytest.raises(ValueError, match="without a deadline"):
            stub.GetBuffer(replay_pb2.GetBufferRequest())
        with pytest.raises(ValueError, match="without a deadline"):
            next(stub.ReadEpisodes(replay_pb2.ReadEpisodesRequest()))


def test_all_channels_come_from_the_helper_that_refuses_them() -> None:
    makers = [
        path
        for folder in ("newt", "services", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"grpc\.(aio\.)?(in)?secure_channel", path.read_text())
    ]
    assert makers == [ROOT / "newt/wire/channels.py"]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_proxies_of_the_environment_are_not_for_our_services(host: str) -> None:
    server = Server("newt.v1.ReplayService", host, 0)
    server.start()
    server.set_ready(True)
    dead = "http://127.0.0.1:9"
    names = ("http_proxy", "https_proxy", "grpc_proxy")
    proxies = {name: dead for lower in names for name in (lower, lower.upper())}
    socks = dict.fromkeys(("all_proxy", "ALL_PROXY"), "socks5://127.0.0.1:9")
    inherited = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    address = f"{host}:{server.port}"
    try:
        asked = subprocess.run(
            [sys.executable, "-m", probe.__name__, address, "newt.v1.ReplayService"],
            env={**inherited, **proxies, **socks, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
        )
    finally:
        server.stop(0)
    assert asked.returncode == 0, asked.stderr
