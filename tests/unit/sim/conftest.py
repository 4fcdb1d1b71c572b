import json
from pathlib import Path
from typing import Any

import pytest
from sim_building import build

from services.sim.domains.base import RenderingError


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """Short trajectories recorded from the original environments: start state, actions, what followed."""
    result: dict[str, Any] = json.loads(Path(__file__).with_name("recorded.json").read_text())
    return result


@pytest.fixture(scope="session")
def graphics() -> None:
    try:
        build("pendulum-swingup", rendering=True).close()
    except RenderingError as error:
        pytest.skip(str(error))
