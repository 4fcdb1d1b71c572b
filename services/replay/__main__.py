"""Starts the replay service: `python -m services.replay`."""

from __future__ import annotations

from newt import logs
from newt.wire.server import run_until_signal
from services.replay.service import ReplayService
from services.replay.settings import ReplaySettings


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = ReplaySettings()
    logs.configure("replay", settings.log_level)
    service = ReplayService(settings)
    service.start()
    run_until_signal(
        "replay", service.server, settings.metrics_host, settings.metrics_port, service.close, settings.stop_grace_s
    )


if __name__ == "__main__":
    main()
