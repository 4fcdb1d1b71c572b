"""Runs the learner: `python -m services.learner`."""

from __future__ import annotations

import fcntl
import signal
import socket
import sys
from typing import TextIO

import structlog
import uvicorn

from newt import __version__, logs
from newt.errors import NewtError
from newt.security import SecurityError, SecuritySettings, redis_address
from newt.wire.metrics import BUILD
from newt.wire.server import PortInUseError, Server
from newt.wire.v1 import weights_pb2_grpc
from services.learner.api import create_app
from services.learner.authentication import require_token
from services.learner.containers import SimContainers, needed_services
from services.learner.demo_jobs import DemoJobs
from services.learner.demo_sets import DemoSets
from services.learner.dependencies import Dependencies
from services.learner.hub import WeightsHub
from services.learner.jobs import EvaluationJobs
from services.learner.library import CheckpointLibrary
from services.learner.recovery import Recovery
from services.learner.settings import LearnerSettings
from services.learner.store import RunStore
from services.learner.supervisor import Supervisor

log = structlog.get_logger(__name__)


def main() -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status."""
    try:
        settings = LearnerSettings()
        token, redis_url = SecuritySettings().token(), redis_address(settings.redis_url)
    except ValueError as error:
        print(f"learner: bad settings: {error}", file=sys.stderr)
        return 2
    logs.configure("learner", settings.log_level)
    try:
        lock = _lock(settings)
        rest = _bind(settings.host, settings.port)
        hub_server = Server("newt.v1.WeightsService", settings.hub_host, settings.hub_port)
    except (OSError, SecurityError) as error:
        log.error("start_failed", error=str(error))
        return 1
    settings = settings.model_copy(update={"hub_port": hub_server.port, "port": rest.getsockname()[1]})
    store = RunStore.connect(redis_url)
    hub = WeightsHub(expected=_living_models(store))
    weights_pb2_grpc.add_WeightsServiceServicer_to_server(hub, hub_server.grpc)
    hub_server.start()
    hub_server.set_ready(True)

    # A model that nobody trains any more leaves the planners; evaluations bring their own.
    supervisor = Supervisor(store, settings, on_ended=hub.retire)
    library = CheckpointLibrary(settings.data_dir)
    jobs = EvaluationJobs(store, settings, library)
    dependencies = Dependencies(store, settings)
    demo_sets = DemoSets(settings.replay, store)
    demo_jobs = DemoJobs(store, settings, demo_sets, dependencies, retire=hub.retire)
    recovery = Recovery({"evaluations": jobs.recover, "demonstrations": demo_jobs.recover})
    containers = SimContainers(settings, lambda: needed_services(store)) if settings.docker_host else None
    app = create_app(settings, store, supervisor, jobs, library, demo_sets, demo_jobs, dependencies)
    if token is not None:
        require_token(app, token)
    BUILD.info({"version": __version__, "service": "learner"})
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    # uvicorn raises the signal that ended it once more when it is done; ours must not end us before the runs are safe.
    signal.signal(signal.SIGTERM, lambda signum, frame: None)
    signal.signal(signal.SIGINT, lambda signum, frame: None)
    supervisor.start()
    recovery.start()
    if containers is not None:
        containers.start()
    log.info("server_started", service="rest", address=f"{settings.host}:{settings.port}", token=token is not None)
    try:
        server.run(sockets=[rest])
    finally:
        if containers is not None:
            containers.stop()
        recovery.stop()
        jobs.stop()
        demo_jobs.stop()
        supervisor.stop()
        hub.close()
        hub_server.stop(grace_s=1.0)
        lock.close()
    return 0


def _living_models(store: RunStore) -> set[str] | None:
    """Models that runs will publish again; None if Redis does not answer. Evaluations start again under new names."""
    try:
        return {run_id for run_id, state in store.states().items() if not state.finished}
    except NewtError as error:
        log.warning("living_models_unknown", error=str(error))
        return None


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise PortInUseError(
            f"REST API: cannot bind {host}:{port} ({error.strerror}); stop the process that has the port, or set "
            "NEWT_LEARNER_PORT to another one"
        ) from error
    return bound


def _lock(settings: LearnerSettings) -> TextIO:
    """One learner per data folder: two would start every run twice."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    handle = (settings.data_dir / "learner.lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise OSError(f"another learner works in {settings.data_dir}; stop it, or set NEWT_LEARNER_DATA_DIR") from error
    return handle


if __name__ == "__main__":
    sys.exit(main())
