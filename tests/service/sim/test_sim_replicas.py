"""Several replicas of one simulator service behind one name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sim_running import RunningServer

from newt.client import SimClient
from newt.errors import NewtError

pytestmark = pytest.mark.timeout(90)


def used(server: RunningServer) -> int:
    """Instances that are leased there."""
    return server.service.sessions.used_instances


def test_sessions_spread_and_stay_on_the_replica_that_opened_them(start: Callable[..., RunningServer]) -> None:
    servers = [start(workers=1) for _ in range(2)]
    target = "ipv4:" + ",".join(server.address for server in servers)
    with SimClient(target, 10) as client:
        sessions = [client.open(["noop"], [seed]) for seed in range(12)]
        for session in sessions:
            session.reset()
            for _ in range(3):
                session.step(np.zeros((1, 16), np.float32))
            assert session.renew() > 0
        # All on one replica: a chance of one in 2,048.
        assert min(used(server) for server in servers) >= 1
        assert sum(used(server) for server in servers) == 12
        for session in sessions:
            session.close()
        assert [used(server) for server in servers] == [0, 0]


def test_a_replica_that_dies_takes_its_sessions_only(start: Callable[..., RunningServer]) -> None:
    servers = [start(workers=1) for _ in range(2)]
    target = "ipv4:" + ",".join(server.address for server in servers)
    with SimClient(target, 10) as client:
        sessions = [client.open(["noop"], [seed]) for seed in range(8)]
        for session in sessions:
            session.reset()
        lost = used(servers[0])
        servers[0].service.server.stop(0)
        answered = 0
        for session in sessions:
            try:
                session.step(np.zeros((1, 16), np.float32))
                answered += 1
            except NewtError:
                pass
        assert answered == 8 - lost
        with client.open(["noop"], [9]) as session:  # finds the one that is left
            session.reset()
