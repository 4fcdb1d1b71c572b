"""Runs the planner service: `python -m services.planner`."""

from __future__ import annotations

import sys

from newt.wire.server import serve
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings

if __name__ == "__main__":
    sys.exit(serve("planner", PlannerSettings, PlannerService))
