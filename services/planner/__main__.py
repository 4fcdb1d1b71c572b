"""Runs the planner service: `python -m services.planner`."""

from __future__ import annotations

import os
import sys
import threading

from newt.wire.server import serve
from services.planner import compiling
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings

if __name__ == "__main__":
    status = serve("planner", PlannerSettings, PlannerService)
    sys.stdout.flush()
    if any(thread.name == compiling.THREAD for thread in threading.enumerate()):
        os._exit(status)  # the compiler cannot be stopped, and would abort the process where Python ends below it
    sys.exit(status)
