from collections.abc import Callable, Iterator

import pytest

from newt.client import SimClient
from services.sim.service import SimService
from services.sim.settings import SimSettings


class RunningServer:
    """A simulator service on a free port, in this process; its workers are real processes."""

    def __init__(self, **settings: object) -> None:
        self.service = SimService(SimSettings(**{"workers": 2, "domains": ("noop",), "log_level": "ERROR", **settings}))
        self.service.server.start()
        self.service.warm_up()
        self.address = self.service.server.address
        self.pids = self.service.pool.pids

    def close(self) -> None:
        self.service.server.stop(0.5)
        self.service.close()


@pytest.fixture(scope="session")
def all_domains() -> Iterator[RunningServer]:
    server = RunningServer(domains=("dmcontrol", "metaworld", "mujoco", "noop"), max_instances=64)
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
