"""Services that nobody told anything find each other."""

from __future__ import annotations

import os

import pytest

from newt.local import stack
from services.learner.settings import LearnerSettings
from services.planner.settings import PlannerSettings
from services.replay.settings import ReplaySettings
from services.sim.settings import SimSettings


def test_the_defaults_are_the_addresses_at_which_the_others_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NEWT_")]:
        monkeypatch.delenv(name)
    sim, replay, planner, learner = SimSettings(), ReplaySettings(), PlannerSettings(), LearnerSettings()
    assert learner.replay == f"{replay.host}:{replay.port}"
    assert learner.planner == f"{planner.host}:{planner.port}"
    assert planner.hub == learner.hub_address
    assert replay.redis_url == learner.redis_url
    # Those of `newt up`, and of the documents.
    assert {"replay": replay.port, "planner": planner.port, "hub": learner.hub_port}.items() <= stack.PORTS.items()
    assert (learner.port, sim.port) == (stack.REST_PORT, stack.SIM_PORTS["dmcontrol"])
    assert f"127.0.0.1:{sim.port}" in str(LearnerSettings.model_fields["sims"].description)
