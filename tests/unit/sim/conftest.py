import json
from pathlib import Path
from typing import Any

import pytest
from sim_building import build

from services.sim.domains.base import RenderingError


@pytest.fixture(scope="session")
def recorded() -> dict[str, Any]:
    """Short trajectories recorded from the original environments: start state, actions, what followed."""
    records: dict[str, Any] = {}
    for path in sorted(Path(__file__).parent.glob("recorded*.json")):
        records |= json.loads(path.read_text())
    return records


@pytest.fixture(scope="session")
def graphics() -> None:
    try:
        build("pendulum-swingup", rendering=True).close()
    except RenderingError as error:
        pytest.skip(str(error))
