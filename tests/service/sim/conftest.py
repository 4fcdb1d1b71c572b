from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sim_running import RunningServer

from newt.client import SimClient
from services.sim.domains import DOMAINS

OWN_TASKS = Path(__file__).parents[2] / "support" / "own_tasks"


@pytest.fixture(scope="session")
def all_domains() -> Iterator[RunningServer]:
    server = RunningServer(domains=tuple(DOMAINS), sources=(str(OWN_TASKS),), max_instances=64)
    yield server
    server.close()


@pytest.fixture
def start() -> Iterator[Callable[..., RunningServer]]:
    """Starts servers with chosen settings, for tests that harm them."""
    servers: list[RunningServer] = []

    def starter(**settings: object) -> RunningServer:
        servers.append(RunningServer(**settings))
        return servers[-1]

    yield starter
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def client(all_domains: RunningServer) -> Iterator[SimClient]:
    with SimClient(all_domains.address, timeout_s=30) as client:
        yield client
