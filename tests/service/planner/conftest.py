from __future__ import annotations

from collections.abc import Iterator

import pytest
from planner_rig import Hub, running_hub, running_planner

from newt.client.planner import PlannerClient
from services.planner.service import PlannerService


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def planner(hub: Hub, request: pytest.FixtureRequest) -> Iterator[PlannerService]:
    with running_planner(hub, **getattr(request, "param", {})) as service:
        yield service


@pytest.fixture
def client(planner: PlannerService) -> Iterator[PlannerClient]:
    with PlannerClient(planner.server.address) as client:
        yield client
