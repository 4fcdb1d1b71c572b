"""Runs the planner service: `python -m services.planner`."""

from __future__ import annotations

from newt.agent.code_maker import leave
from newt.wire.server import serve
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings

if __name__ == "__main__":
    leave(serve("planner", PlannerSettings, PlannerService))
