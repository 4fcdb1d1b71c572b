"""Simulators on demand: containers that wait, stopped, until a run needs their domain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import docker
import structlog
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from newt.errors import NewtError
from newt.tasks.domains import DOMAINS
from services.learner.processes.needed_sims import needed_domains
from services.learner.records.store import Records
from services.learner.settings import LearnerSettings

# Only containers with this label are touched: those that somebody has set aside for it.
ON_DEMAND = "newt.on-demand"
TICK_S = 1.0
ENGINE_TIMEOUT_S = 30.0
STOP_GRACE_S = 10

log = structlog.get_logger(__name__)


def needed_services(records: Records) -> set[str]:
    """Simulator services of all active runs and of the evaluations under way."""
    unfinished = records.runs.list_unfinished().records
    return {DOMAINS[domain].service for domain in needed_domains(unfinished, records) if domain in DOMAINS}


class SimContainers:
    """Starts the containers of needed simulators and stops them after a while of idleness, from one thread.

    Nothing is remembered: what runs is asked of the engine, so a restarted learner goes on where its predecessor ended.
    Containers are started and stopped, never made or removed, and only asked for by name.

    Args:
        settings: Settings that say where the engine is, and how its containers are called.
        needed: Services that are needed now; may raise NewtError while the answer is not known.
        clock: Monotonic seconds.
    """

    def __init__(
        self, settings: LearnerSettings, needed: Callable[[], set[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._needed, self._clock = settings, needed, clock
        self._client: docker.DockerClient | None = None
        self._idle_since: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sim-containers", daemon=True)

    def start(self) -> None:
        """Begins to look after the containers."""
        self._thread.start()

    def stop(self) -> None:
        """Ends that; the containers stay as they are."""
        self._over.set()
        self._thread.join(ENGINE_TIMEOUT_S)

    def tick(self) -> None:
        """One look at what is needed and what runs."""
        try:
            needed = self._needed()
        except NewtError as error:
            self._tell("runs", str(error))
            return
        for service in sorted({domain.service for domain in DOMAINS.values()}):
            try:
                self._look(service, service in needed)
                self._told.pop(service, None)
            except NotFound:
                if service in needed:
                    files = "-f compose.yaml -f compose.on-demand.yaml"
                    self._tell(
                        service,
                        f"no container to start: make it with `docker compose {files} create {service}`, or start it "
                        f"yourself with `docker compose --profile {service} up -d`",
                    )
            except (DockerException, RequestException) as error:
                self._client = None
                self._tell(service, f"the Docker engine at {self._settings.docker_host} does not do it: {error}")

    def _look(self, service: str, needed: bool) -> None:
        if self._client is None:
            self._client = docker.DockerClient(base_url=self._settings.docker_host, timeout=ENGINE_TIMEOUT_S)
        name = self._settings.docker_container.format(service=service)
        try:
            container = self._client.api.inspect_container(name)
        except APIError as error:
            if error.status_code == 403 and not needed:
                return  # the filter in front of the engine does not let us see it: none of ours
            raise
        if (container["Config"]["Labels"] or {}).get(ON_DEMAND) != "true":
            return
        running = bool(container["State"]["Running"])
        now = self._clock()
        if needed:
            self._idle_since.pop(service, None)
            if not running:
                self._client.api.start(name)
                log.info("simulator_started", container=name)
        elif not running:
            self._idle_since.pop(service, None)
        elif now - self._idle_since.setdefault(service, now) >= self._settings.docker_idle_s:
            self._client.api.stop(name, timeout=STOP_GRACE_S)
            log.info("simulator_stopped", container=name, idle_s=round(now - self._idle_since.pop(service)))

    def _tell(self, about: str, what: str) -> None:
        """Once, not every second."""
        if self._told.get(about) != what:
            self._told[about] = what
            log.warning("simulator_not_started", service_needed=about, reason=what)

    def _loop(self) -> None:
        while not self._over.wait(TICK_S):
            try:
                self.tick()
            except Exception:
                log.exception("sim_containers_failed")  # this thread must outlive any surprise
