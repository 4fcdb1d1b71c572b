"""The whole service: workers, sessions, upkeep and the gRPC server, put together."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import structlog

from newt.errors import NewtError
from newt.memory import available_bytes
from newt.wire.limits import PADDED_ACTION_DIM
from newt.wire.server import Server
from newt.wire.tensors import encode
from newt.wire.v1 import sim_pb2_grpc
from services.sim import metrics
from services.sim.domains import Catalogue
from services.sim.domains.own import SOURCES_VARIABLE
from services.sim.pool import WorkerPool
from services.sim.servicer import SimServicer
from services.sim.session import Session
from services.sim.sessions import Sessions
from services.sim.settings import SimSettings
from services.sim.trail import FOLDER_VARIABLE
from services.sim.worker import MEMORY_VARIABLE

log = structlog.get_logger(__name__)

SERVICE = "newt.v1.SimService"
# Steps of one session wait for each other, and their work is done elsewhere.
_UNARY_THREADS = 64
_UPKEEP_PERIOD_S = 0.5
_WORKER_STOP_TIMEOUT_S = 2.0
_LEAST_OWN_BYTES = 2 << 30


class SimService:
    """Everything that runs in the server process.

        service = SimService(SimSettings())
        service.server.start()
        service.warm_up()  # or start(), which does it beside the server
        ...
        service.server.stop(grace_s=5)
        service.close()

    Args:
        settings: All of them.

    Raises:
        NotFoundError: An enabled domain does not exist.
        PreconditionError: An enabled domain is not installed.
        PortInUseError: The address is taken.
        WorkerLostError: The worker processes do not come up.
    """

    def __init__(self, settings: SimSettings) -> None:
        self._catalogue = Catalogue(settings.domains, settings.sources)
        self._timeout_s, self._drain_s = settings.step_timeout_s, settings.drain_s
        # The port first: a second server on it must not start workers before it learns that it cannot stay.
        self.server = Server(
            SERVICE, settings.host, settings.port, _UNARY_THREADS, settings.max_streams, env_prefix="NEWT_SIM_"
        )
        self.pool = WorkerPool(
            settings.workers,
            settings.render_backend,
            settings.max_restarts_per_minute,
            settings.start_timeout_s,
            settings.log_level,
            {
                SOURCES_VARIABLE: json.dumps(settings.sources),
                FOLDER_VARIABLE: settings.crash_dir,
                MEMORY_VARIABLE: str(_worker_bytes(settings)),
            },
        )
        self.sessions = Sessions(settings.max_instances, age_s=settings.session_age_s)
        sim_pb2_grpc.add_SimServiceServicer_to_server(
            SimServicer(settings, self._catalogue, self.pool, self.sessions), self.server.grpc
        )
        self._warm = threading.Event()
        self._stopping = threading.Event()
        self._upkeep = threading.Thread(target=self._keep_up, name="upkeep", daemon=True)
        self._upkeep.start()

    def start(self) -> None:
        """Warms up in the background, while the server answers Describe and liveness; gives up if that fails."""

        def warm_up() -> None:
            try:
                self.warm_up()
            except NewtError as error:
                log.error("warm_up_failed", error=str(error))
                self.server.give_up()

        threading.Thread(target=warm_up, name="warm-up", daemon=True).start()

    def drain(self) -> None:
        """Takes no new sessions, and lets those that are stepped end their episodes."""
        self.server.set_ready(False)
        begin = time.monotonic()
        ended = self.sessions.drain(self._drain_s)
        log.info("drained", seconds=round(time.monotonic() - begin, 1), given_back=ended)

    def warm_up(self) -> None:
        """Takes one real step in every enabled domain; the service is ready then.

        Raises:
            NewtError: A domain does not work on this machine; the message has the cause.
        """
        first = {task.domain: task for task in reversed(self._catalogue.tasks.values())}
        tasks = [first[domain] for domain in self._catalogue.domains]
        session = Session(
            tasks,
            [0] * len(tasks),
            rgb=False,
            same_step=True,
            with_expert=False,
            pool=self.pool,
            timeout_s=self._timeout_s,
        )
        try:
            session.reset([], [])
            still = np.zeros((len(tasks), PADDED_ACTION_DIM), np.float32)
            session.step(1, encode(still))
        finally:
            session.close()
        metrics.show_domains(self._catalogue.domains)
        self._warm.set()
        self.server.set_ready(not self.sessions.draining)
        log.info("ready", domains=self._catalogue.domains, tasks=len(self._catalogue.tasks), workers=self.pool.size)

    def close(self) -> None:
        """Ends upkeep, sessions and workers; the server must have stopped."""
        self._stopping.set()
        self._upkeep.join()
        self.sessions.close_all()
        self.pool.close(_WORKER_STOP_TIMEOUT_S)

    def _keep_up(self) -> None:
        while not self._stopping.wait(_UPKEEP_PERIOD_S):
            try:
                self.sessions.expire()
                if not self.pool.healthy:
                    self.pool.replace_dead()
                if self._warm.is_set():
                    self.server.set_ready(self.pool.healthy and not self.sessions.draining)
            except Exception:
                log.exception("upkeep_failed")


def _worker_bytes(settings: SimSettings) -> int:
    """Resident bytes beyond which a worker is replaced; 0 is no limit."""
    if settings.max_worker_mb or not settings.sources:
        return settings.max_worker_mb << 20
    return max(_LEAST_OWN_BYTES, available_bytes() // 2 // settings.workers)
