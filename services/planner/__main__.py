"""Runs the planner service: `python -m services.planner`."""

from __future__ import annotations

import sys

from newt import logs
from newt.wire.server import PortInUseError, run_until_signal
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    settings = PlannerSettings()
    logs.configure("planner", settings.log_level)
    try:
        service = PlannerService(settings)
    except (PortInUseError, ValueError) as error:
        print(f"planner: cannot start: {error}", file=sys.stderr)
        return 1
    service.start()
    run_until_signal(
        "planner",
        service.server,
        settings.metrics_host,
        settings.metrics_port,
        on_drain=service.drain,
        on_stop=service.close,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
