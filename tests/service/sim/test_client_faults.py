"""What clients meet: Ctrl-C, two threads, environments that are dropped, bad seeds."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sim_running import RunningServer

from newt.client import RemoteVectorEnv
from newt.errors import InvalidInputError, NewtError, PreconditionError
from services.sim.domains.noop import HANG

ROOT = Path(__file__).parents[3]
Start = Callable[..., RunningServer]
STILL = np.zeros((2, 6), np.float32)

INTERRUPTED = """
import sys, time
import numpy as np
from newt.client import RemoteVectorEnv

envs = RemoteVectorEnv("noop", 2, address=sys.argv[1], timeout_s=20)
envs.reset()
for part in range(4):
    try:
        print("steps", flush=True)
        while True:
            envs.step(np.zeros((2, 6), np.float32))
    except KeyboardInterrupt:
        pass
    if part < 3:
        envs.reset(seed=part)
        assert not envs.step(np.zeros((2, 6), np.float32))[3].any()
envs.close()
print("closed", flush=True)
"""


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def client_threads() -> int:
    return sum(thread.name.startswith(("sim-", "stream-")) for thread in threading.enumerate())


def test_ctrl_c_costs_the_step_and_not_the_environment(start: Start) -> None:
    server = start()
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server.address],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        for part in range(4):
            assert program.stdout.readline() == "steps\n"
            time.sleep(0.1 + 0.013 * part)  # At whatever point of a step.
            program.send_signal(signal.SIGINT)
        assert program.stdout.readline() == "closed\n"
        assert program.wait(15) == 0
    assert server.service.sessions.used_instances == 0


def test_an_environment_that_is_dropped_is_given_back(start: Start) -> None:
    server = start()
    process, descriptors = psutil.Process(), []
    rounds = 6
    for _ in range(rounds):
        envs = RemoteVectorEnv("noop", 2, address=server.address)
        envs.reset()
        envs.step(STILL)
        assert client_threads() >= 2
        del envs
        gc.collect()
        until(lambda: server.service.sessions.used_instances == 0, "instances")
        until(lambda: client_threads() == 0, "threads")
        time.sleep(0.2)
        descriptors.append(process.num_fds())
    # gRPC itself may open one more, once; what is not given back is there again in every round.
    assert descriptors[-1] - descriptors[0] < rounds - 1, descriptors


def test_a_second_thread_is_refused_in_words(start: Start) -> None:
    server = start()
    envs = RemoteVectorEnv("noop", 2, address=server.address)
    envs.reset()
    done, errors = [0, 0], list[BaseException]()

    def use(which: int) -> None:
        for _ in range(200):
            try:
                envs.step(STILL)
                done[which] += 1
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=use, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors
    assert {type(error) for error in errors} == {PreconditionError}, errors
    assert all("in use by another thread" in str(error) for error in errors)
    assert sum(done) + len(errors) == 400
    envs.step(STILL)
    envs.close()


def test_closing_ends_the_step_of_another_thread(start: Start) -> None:
    server = start(step_timeout_s=2.0)
    envs = RemoteVectorEnv("noop-faulty", 1, address=server.address)
    envs.reset()
    seen = list[BaseException]()

    def step() -> None:
        try:
            envs.step(np.full((1, 1), HANG, np.float32))
        except NewtError as error:
            seen.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    time.sleep(0.3)
    envs.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("seed", "field"),
    [(-1, "seed"), (1.0, "seed"), (2**64 - 1, "seed"), (10**400, "seed"), ([0, -1], r"seed\[1\]")],
)
def test_seeds_that_cannot_be(all_domains: RunningServer, seed: Any, field: str) -> None:
    envs = RemoteVectorEnv("noop", 2, address=all_domains.address)
    with pytest.raises(InvalidInputError, match=f"^{field}: got .*expected"):
        envs.reset(seed=seed)
    assert envs.reset(seed=2**64 - 2)[1]["episode_seed"].tolist() == [2**64 - 2, 2**64 - 1]
    assert envs.reset(seed=np.int32(3))[1]["episode_seed"].tolist() == [3, 4]
    envs.close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_in_both_spellings(start: Start, host: str) -> None:
    server = start(host=host)
    assert server.address.startswith("[::1]:")
    envs = RemoteVectorEnv("noop", 2, address=server.address, timeout_s=20)
    envs.reset()
    envs.step(STILL)
    envs.close()
