"""Runs the planner service: `python -m services.planner`."""

from __future__ import annotations

from newt import logs
from newt.wire.server import run_until_signal
from services.planner.service import PlannerService
from services.planner.settings import PlannerSettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = PlannerSettings()
    logs.configure("planner", settings.log_level)
    service = PlannerService(settings)
    service.start()
    run_until_signal(
        "planner",
        service.server,
        settings.metrics_host,
        settings.metrics_port,
        on_drain=service.drain,
        on_stop=service.close,
    )


if __name__ == "__main__":
    main()
