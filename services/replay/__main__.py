"""Starts the replay service: `python -m services.replay`."""

from __future__ import annotations

import sys

from newt import logs
from newt.wire.server import PortInUseError, run_until_signal
from services.replay.service import ReplayService
from services.replay.settings import ReplaySettings


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = ReplaySettings()
    except ValueError as error:
        print(f"replay: bad settings: {error}", file=sys.stderr)
        return 2
    logs.configure("replay", settings.log_level)
    try:
        service = ReplayService(settings)
    except (PortInUseError, ValueError) as error:  # ValueError: redis_url is no address.
        print(f"replay: cannot start: {error}", file=sys.stderr)
        return 1
    service.start()
    run_until_signal(
        "replay",
        service.server,
        settings.metrics_host,
        settings.metrics_port,
        on_stop=service.close,
        grace_s=settings.stop_grace_s,
        on_drain=service.drain,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
