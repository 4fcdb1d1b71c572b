"""The machine's clock jumps by a day, back and forwards, under services at work: waits last what they should."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from newt.client import SimClient
from newt.client.buffers import BufferConfig
from newt.client.replay import ReplayClient
from newt.errors import PreconditionError
from newt.local import ports
from newt.local.redis_server import RedisServer, start
from newt.wire import probe
from newt.wire.v1 import sim_pb2

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), Path("libfaketimeMT.so.1"))
JUMPS = ("-1d", "+0", "+1d")
Launch = Callable[..., str]


class Clock:
    """The time of day as the services see it; their monotonic clock is the kernel's."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump("+0")
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, by: str) -> None:
        self.file.write_text(f"{by}\n")


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def launch(clock: Clock) -> Iterator[Launch]:
    """Starts a service under the clock and returns its address when it is ready."""
    processes: list[subprocess.Popen[bytes]] = []

    def launcher(name: str, health: str, **settings: object) -> str:
        port = ports.free_port()
        values = {"PORT": port, **settings}
        environment = {f"NEWT_{name.upper()}_{key}": str(value) for key, value in values.items()}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", f"services.{name}"], env={**os.environ, **clock.environment, **environment}
            )
        )
        address = f"127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while probe.check(address, health, timeout_s=2) is not None:
            assert processes[-1].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return address

    yield launcher
    for process in processes:  # Not by a signal that it may act on: the library breaks waits under another time.
        process.kill()
        process.wait()


def test_the_library_is_there() -> None:
    assert LIBRARY.is_absolute(), "install libfaketime (scripts/system-packages.sh --dev does)"


def test_leases_last_what_they_should(launch: Launch, clock: Clock) -> None:
    address = launch("sim", "newt.v1.SimService", DOMAINS="noop", WORKERS=1)
    still = np.zeros((2, 16), np.float32)
    with SimClient(address, 10) as client:
        with client.open(["noop"] * 2, [1, 2], lease_s=60) as session:
            session.reset()
            for jump in JUMPS:
                clock.jump(jump)
                for _ in range(3):
                    session.step(still)
                time.sleep(0.55)  # Upkeep looks for leases that are over.
        for jump in ("-1d", "+1d"):
            clock.jump("+0")
            session = client.open(["noop"] * 2, [1, 2], lease_s=3.0)
            session.reset()
            clock.jump(jump)
            time.sleep(0.55)
            session.step(still)
            deadline = time.monotonic() + 15
            while client.stub.Describe(sim_pb2.DescribeRequest(), timeout=5).used_instances:
                assert time.monotonic() < deadline, "the lease has not ended"
                time.sleep(0.2)
            with pytest.raises(PreconditionError, match="expired"):
                session.step(still)


def test_waiting_calls_wait_for_as_long_as_they_may(launch: Launch, clock: Clock, tmp_path: Path) -> None:
    redis: RedisServer = start(tmp_path / "redis")
    try:
        address = launch("replay", "newt.v1.ReplayService", REDIS_URL=redis.url)
        with ReplayClient(address) as client:
            config = BufferConfig({"reach": (3, 2)}, capacity_rows=100, updates_per_env_step=1.0, max_lead_updates=1)
            client.create_buffer("run", config)
            for jump in JUMPS:
                begin = time.monotonic()
                with client.batches("run", batch_size=2, horizon=3, seed=1) as batches:
                    assert batches.take(0.3) is None
                    clock.jump(jump)
                    assert batches.take(0.5) is None  # It waits on, and its stream is not taken for an old one.
                assert client.get_buffer("run").episodes == 0
                assert time.monotonic() - begin < 5
    finally:
        redis.stop()
