"""A simulator that is told to stop takes no new sessions, and waits for those that are stepped to be given back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sim_running import RunningServer

from newt.client import SimClient
from newt.errors import UnavailableError
from services.sim.service import SERVICE

pytestmark = pytest.mark.timeout(90)

STILL = np.zeros((1, 16), np.float32)


def draining(server: RunningServer) -> threading.Thread:
    """A thread that drains; it has begun."""
    thread = threading.Thread(target=server.service.drain, daemon=True)
    thread.start()
    while not server.service.sessions.draining:
        time.sleep(0.01)
    return thread


def test_who_steps_ends_the_episode_and_gives_back(start: Callable[..., RunningServer]) -> None:
    server = start(drain_s=60)
    with SimClient(server.address, 20, 0.5) as client:
        session = client.open(["noop-short"], [1])
        session.reset()
        assert not session.step(STILL).draining
        drain = draining(server)
        with pytest.raises(UnavailableError, match="takes no new sessions; another replica does"):
            client.open(["noop-short"], [2])
        step = session.step(STILL)
        while not step.ended[0]:
            assert step.draining
            step = session.step(STILL)
        assert drain.is_alive()
        session.close()
        drain.join(10)
        assert not drain.is_alive()


def test_who_has_stepped_for_long_finds_other_replicas(start: Callable[..., RunningServer]) -> None:
    servers = [start(workers=1, session_age_s=0.3) for _ in range(2)]
    target = "ipv4:" + ",".join(server.address for server in servers)
    opened = [0, 0]
    with SimClient(target, 20) as client:
        for seed in range(12):  # all on one replica: a chance of one in 2,048
            begin = time.monotonic()
            session = client.open(["noop-short"], [seed])
            (place,) = (i for i, server in enumerate(servers) if server.service.sessions.used_instances)
            opened[place] += 1
            session.reset()
            step = session.step(STILL)
            while not (step.draining and step.ended[0]):
                step = session.step(STILL)
            assert time.monotonic() - begin >= 0.3
            session.step(STILL)  # it may also stay
            session.close()
    assert min(opened) >= 1


def test_a_young_session_stays_where_it_is(start: Callable[..., RunningServer]) -> None:
    server = start(workers=1, session_age_s=3600)
    with SimClient(server.address, 20) as client:
        session = client.open(["noop-short"], [1])
        session.reset()
        assert not session.step(STILL).draining


def test_nobody_is_waited_for_who_does_not_step(start: Callable[..., RunningServer]) -> None:
    """Sessions that were opened only, and those whose client is gone."""
    server = start(drain_s=60)
    with SimClient(server.address, 5) as idle, SimClient(server.address, 5) as gone:
        idle.open(["noop"], [1]).reset()
        session = gone.open(["noop"], [2])
        session.reset()
        session.step(STILL)
        gone.close()
        drain = draining(server)
        drain.join(10)
        assert not drain.is_alive()


def test_it_stays_unready_whoever_says_otherwise(start: Callable[..., RunningServer]) -> None:
    server = start(drain_s=60)
    with SimClient(server.address, 20) as client, grpc.insecure_channel(server.address) as channel:
        session = client.open(["noop"], [1])
        session.reset()
        session.step(STILL)
        draining(server)
        server.service.server.set_ready(True)  # upkeep, which had looked just before
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        for state in health.Watch(request, timeout=60):
            if state.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break
        assert session.step(STILL).draining
        session.close()


def test_who_never_gives_back_is_waited_for_so_long(start: Callable[..., RunningServer]) -> None:
    server = start(drain_s=0.5)
    with SimClient(server.address, 5) as client:
        session = client.open(["noop"], [1])
        session.reset()
        session.step(STILL)
        assert not server.service.sessions.drain(0.2)
        draining(server).join(10)
        assert session.step(STILL).draining  # until the server itself stops


def test_another_replica_takes_the_new_sessions(start: Callable[..., RunningServer]) -> None:
    servers = [start(workers=1, drain_s=60) for _ in range(2)]
    with SimClient("ipv4:" + ",".join(server.address for server in servers), 10) as client:
        draining(servers[0])
        sessions = [client.open(["noop"], [seed]) for seed in range(8)]
        assert [server.service.sessions.used_instances for server in servers] == [0, 8]
        for session in sessions:
            session.close()
