import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sim_building import build

from services.sim.domains import DOMAINS
from services.sim.domains.base import RenderingError


@pytest.fixture(scope="session", autouse=True)
def maniskill_assets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stand-ins for what ManiSkill's tasks download, whatever is on this machine."""
    if DOMAINS["maniskill"].missing_packages():
        yield
        return
    from maniskill_stand_ins import write_all

    folder = tmp_path_factory.mktemp("maniskill")
    write_all(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MS_ASSET_DIR", str(folder))  # Read when ManiSkill is imported.
        yield


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
