import json
from pathlib import Path
from typing import Any

import pytest

from newt.tasks.registry import get_task
from services.sim import domains
from services.sim.domains.base import RenderingError, SimEnv


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """Short trajectories recorded from the original environments: start state, actions, what followed."""
    result: dict[str, Any] = json.loads(Path(__file__).with_name("recorded.json").read_text())
    return result


def build(task: str, rendering: bool = False) -> SimEnv:
    domain = "noop" if task.startswith("noop") else get_task(task).domain
    return domains.make(domain, task, rendering)


@pytest.fixture(scope="session")
def graphics() -> None:
    try:
        build("pendulum-swingup", rendering=True).close()
    except RenderingError as error:
        pytest.skip(str(error))
