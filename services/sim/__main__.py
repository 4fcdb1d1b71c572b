"""Starts the simulator service: `python -m services.sim`."""

from __future__ import annotations

import os
import signal
import sys
import threading

import structlog
from pydantic import ValidationError

from newt import logs
from newt.errors import NewtError
from newt.wire.server import PortInUseError, run_until_signal
from services.sim.process import WorkerLostError
from services.sim.service import SimService
from services.sim.settings import SimSettings

log = structlog.get_logger(__name__)


def main() -> int:
    """Runs until SIGTERM or SIGINT; returns the exit code."""
    try:
        settings = SimSettings()
    except (ValidationError, ValueError) as error:
        print(f"sim: bad settings: {error}", file=sys.stderr)
        return 2
    logs.configure("sim", settings.log_level)
    try:
        service = SimService(settings)
    except (NewtError, PortInUseError, WorkerLostError) as error:
        print(f"sim: cannot start: {error}", file=sys.stderr)
        return 1
    failure: list[NewtError] = []

    def warm_up() -> None:
        try:
            service.warm_up()
        except NewtError as error:
            failure.append(error)
            log.error("warm_up_failed", error=str(error))
            os.kill(os.getpid(), signal.SIGTERM)

    # Beside the server, which answers Describe and liveness meanwhile.
    threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
    run_until_signal("sim", service.server, settings.metrics_host, settings.metrics_port, service.close)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
