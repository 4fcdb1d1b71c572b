"""Runs the learner: `python -m services.learner`."""

from __future__ import annotations

import fcntl
import signal
import socket
import sys
from pathlib import Path
from typing import TextIO

import structlog

from newt import logs, spans
from newt.errors import NewtError
from newt.memory import SMALL_BYTES, return_large_blocks
from newt.security import SecurityError, SecuritySettings, redis_address
from newt.wire import metrics
from newt.wire.addresses import bare_host, host_port
from newt.wire.server import PortInUseError, Server, why_not_bound
from newt.wire.v1 import weights_pb2_grpc
from services.learner.people import People
from services.learner.processes.learner import Learner
from services.learner.processes.sim_containers import SimContainers, needed_services
from services.learner.records.store import Records
from services.learner.rest.app import create_app, server
from services.learner.rest.token import require_token
from services.learner.settings import LearnerSettings
from services.learner.weights.hub import WeightsHub

log = structlog.get_logger(__name__)


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = LearnerSettings()
        redis_url = redis_address(settings.redis_url)
        records = Records.connect(redis_url)
        found = SecuritySettings().tokens_of_learner()
        tokens = People(found, records.broken) if isinstance(found, Path) else found
    except ValueError as error:
        print(f"learner: bad settings: {error}", file=sys.stderr)
        return 2
    logs.configure("learner", settings.log_level)
    spans.export("learner")
    return_large_blocks(SMALL_BYTES, SMALL_BYTES)
    try:
        lock = _lock(settings)
        rest = _bind(settings.host, settings.port)
        metrics.serve("learner", settings.metrics_host, settings.metrics_port)
        hub_server = Server("newt.v1.WeightsService", settings.hub_host, settings.hub_port)
    except (OSError, SecurityError) as error:
        log.error("start_failed", error=str(error))
        return 1
    settings = settings.model_copy(update={"hub_port": hub_server.port, "port": rest.getsockname()[1]})
    hub = WeightsHub(expected=_living_models(records))
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(hub, hub_server.grpc)
    hub_server.start()
    hub_server.set_ready(True)

    # A model that nobody trains any more leaves the planners; evaluations bring their own.
    learner = Learner.build(settings, redis_url, records, retire=hub.retire)
    containers = SimContainers(settings, lambda: needed_services(records)) if settings.docker_host else None
    app = create_app(learner, token=tokens is not None)
    if tokens is not None:
        require_token(app, tokens)
    # uvicorn raises the signal that ended it once more when it is done; ours must not end us before the runs are safe.
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    for keeper in learner.keepers:
        keeper.start()
    if containers is not None:
        containers.start()
    address = host_port(settings.host, settings.port)
    named = isinstance(tokens, People)
    log.info("server_started", service="rest", address=address, token=tokens is not None, names=named)
    try:
        server(app).run(sockets=[rest])
    finally:
        if containers is not None:
            containers.stop()
        for keeper in learner.keepers:
            keeper.stop()
        hub.close()
        hub_server.stop(grace_s=1.0)
        lock.close()
    return 0


def _living_models(records: Records) -> set[str] | None:
    """Models that runs will publish again; None if Redis does not answer. Evaluations start again under new names."""
    try:
        return {run_id for run_id, state in records.runs.states().items() if not state.finished}
    except NewtError as error:
        log.warning("living_models_unknown", error=str(error))
        return None


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((bare_host(host), port))
    except OSError as error:
        bound.close()
        raise PortInUseError(
            f"REST API: cannot bind {host_port(host, port)}: {why_not_bound(host, port)} (NEWT_LEARNER_HOST, "
            "NEWT_LEARNER_PORT)"
        ) from error
    return bound


def _lock(settings: LearnerSettings) -> TextIO:
    """One learner per data folder: two would start every run twice."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    handle = settings.folder.lock.open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise OSError(f"another learner works in {settings.data_dir}; stop it, or set NEWT_LEARNER_DATA_DIR") from error
    return handle


if __name__ == "__main__":
    sys.exit(main())
