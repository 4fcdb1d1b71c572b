"""The planner service put together: device, models, queue, runner, subscription, server."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from newt.wire.server import Server
from newt.wire.v1 import planner_pb2_grpc
from services.planner import metrics, model
from services.planner.device import choose_device
from services.planner.folder import ModelFolder
from services.planner.runner import PlanQueue, Runner
from services.planner.servicer import PlannerServicer
from services.planner.settings import PlannerSettings
from services.planner.store import ModelStore
from services.planner.subscriber import Subscriber

SERVICE = "newt.v1.PlannerService"

T = TypeVar("T")

log = structlog.get_logger(__name__)


class PlannerService:
    """Everything of one planner process except its signals and its metrics endpoint.

        service = PlannerService(PlannerSettings())
        service.server.start()
        service.start()
        ...
        service.drain()
        service.server.stop(grace_s=5)
        service.close()

    Ready means: subscribed to the hub, or at least one model loaded. A hub that restarts therefore does not make
    planners unready which can still plan.

    Args:
        settings: Settings of the service.

    Raises:
        ValueError: The device cannot be used.
        PortInUseError: The address cannot be bound.
    """

    def __init__(self, settings: PlannerSettings) -> None:
        device = choose_device(settings)
        computing = device.computing()
        log.info("device_chosen", device=computing.device, precision=computing.precision, max_rows=device.max_rows)
        if computing.warning:
            log.warning("gpu_unused", advice=computing.warning)
        # Replicas come and go with the load; clients learn of new ones when they connect anew.
        self.server = Server(
            SERVICE,
            settings.host,
            settings.port,
            settings.max_threads,
            env_prefix="NEWT_PLANNER_",
            max_connection_age_s=60,
        )
        self._queue = PlanQueue(device.max_rows, settings.max_wait_ms / 1000, settings.max_queued_rows)
        metrics.QUEUED_ROWS.set_function(lambda: self._queue.queued_rows)
        self._store = ModelStore(settings.max_models, on_missed=lambda: self._subscriber.resync())
        self._subscriber = Subscriber(
            settings.hub,
            settings.name,
            self._store,
            lambda weights: apart(lambda: model.load(weights, device)),
            settings.max_model_bytes,
            self._update_ready,
        )
        self._folder = (
            ModelFolder(
                Path(settings.models_dir),
                self._store,
                lambda model_id, version, path: apart(lambda: model.load_file(model_id, version, path, device)),
                self._update_ready,
            )
            if settings.models_dir
            else None
        )
        self._runner = Runner(self._queue, self._store.get, device)
        planner_pb2_grpc.add_PlannerServiceServicer_to_server(
            PlannerServicer(self._store, self._queue, settings.max_queued_rows, computing), self.server.grpc
        )

    def start(self) -> None:
        """Starts computing and listening to the hub."""
        self._runner.start()
        if self._folder is not None:
            self._folder.start()
        self._subscriber.start()

    def drain(self) -> None:
        """Fails the requests that still wait, so that their callers can ask another replica at once."""
        self._queue.close()

    def close(self, timeout_s: float = 10.0) -> None:
        """Ends the threads; at most one batch and one load are waited for. Call `drain` first."""
        self._subscriber.stop(timeout_s)
        if self._folder is not None:
            self._folder.stop(timeout_s)
        self._runner.join(timeout_s)

    def _update_ready(self) -> None:
        self.server.set_ready(self._subscriber.connected or bool(self._store.all()))


def apart(call: Callable[[], T]) -> T:
    """What a call returns that computes in a thread which ends with it.

    OpenMP keeps threads for every thread of ours that ever computed in several, and with more of them than cores it no
    longer has those of plans wait actively for each other.
    """
    with ThreadPoolExecutor(1, "load") as executor:
        return executor.submit(call).result()
