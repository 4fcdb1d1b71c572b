"""Whom the processes of a run wait for, how long, and what they say meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from newt.client.replay import ReplayClient
from newt.client.sim import SimClient
from newt.errors import NotFoundError, UnavailableError
from newt.wire.peer import Peer
from services.learner.waiting import Patience, RunFailedError, StopFlag, Stopped

PEER = Peer("planner", "there:1", remedy="start it")


def fail() -> None:
    raise UnavailableError("away")


def test_a_service_must_answer_its_first_call_in_time_and_is_waited_for_afterwards() -> None:
    stop = StopFlag()
    patience = Patience(stop).at_first(0.2)
    with pytest.raises(RunFailedError, match=r"planner at there:1 did not answer for 0\.2 s \(away\); start it"):
        patience.call(PEER, fail)

    def refuse() -> None:
        raise NotFoundError("no such model")

    with pytest.raises(NotFoundError):  # An answer, too.
        patience.call(PEER, refuse)
    threading.Timer(0.6, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        patience.call(PEER, fail)
    assert time.monotonic() - started > 0.4


def test_all_waits_are_told_together_with_address_and_reason() -> None:
    stop = StopFlag()
    patience = Patience(stop)
    clients = (
        ReplayClient("127.0.0.1:1", patience=patience.at_first(60)),
        SimClient("127.0.0.1:2", 5.0, name="simulator of mujoco", patience=patience),
    )

    def waits(call: Callable[[], object]) -> None:
        with pytest.raises(Stopped):
            call()

    threads = [
        threading.Thread(target=waits, args=(lambda: clients[0].get_buffer("run"),)),
        threading.Thread(target=waits, args=(clients[1].describe,)),
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while (patience.waiting_on or "").count("cannot be reached (Connection refused)") < 2:
        assert time.monotonic() < deadline, patience.waiting_on
        time.sleep(0.02)
    said = patience.waiting_on or ""
    assert "replay at 127.0.0.1:1" in said
    assert "simulator of mujoco at 127.0.0.1:2" in said
    stop.set()
    for thread in threads:
        thread.join(10)
    assert patience.waiting_on is None
    for client in clients:
        client.close()
