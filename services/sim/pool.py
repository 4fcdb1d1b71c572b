"""The worker processes: who carries how much, and what happens when one dies."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

import structlog

from newt.errors import UnavailableError
from newt.processes import RestartBudget
from services.sim import metrics
from services.sim.domains.base import RENDER_BACKEND_VARIABLE
from services.sim.domains.gl_backends import DRAWING_PROCESSES_VARIABLE, VERDICT_VARIABLE
from services.sim.process import Channel, WorkerLostError, WorkerProcess

log = structlog.get_logger(__name__)

_WINDOW_S = 60.0


class WorkerPool:
    """A fixed number of worker processes; dead ones are replaced, within a rate.

    Args:
        workers: How many.
        render_backend: auto, egl or osmesa.
        max_restarts_per_minute: More deaths than that are not a mishap: the pool then stops replacing for a while
            and says so.
        start_timeout_s: Time for a process to come up.
        log_level: Level of the processes' logs.
        environment: More variables of the processes.

    Raises:
        WorkerLostError: A process did not come up.
    """

    def __init__(
        self,
        workers: int,
        render_backend: str,
        max_restarts_per_minute: int,
        start_timeout_s: float,
        log_level: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # A file without a name: one in a folder would stay there when this process is killed.
        self._verdict = os.memfd_create("newt-sim-verdict", os.MFD_CLOEXEC)
        self._environment = {
            # Nothing may touch a graphics library at import; frames choose their own backend (see mujoco_frames).
            "MUJOCO_GL": "disable",
            RENDER_BACKEND_VARIABLE: render_backend,
            DRAWING_PROCESSES_VARIABLE: str(workers),
            VERDICT_VARIABLE: f"/proc/self/fd/{self._verdict}",
            # Parallelism comes from the processes.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **(environment or {}),
        }
        self._start_timeout_s = start_timeout_s
        self._log_level = log_level
        self._lock = threading.Lock()
        self._loads = [0] * workers
        self._restarts = RestartBudget(max_restarts_per_minute, _WINDOW_S)
        self._closed = False
        self._workers = [self._started(index) for index in range(workers)]
        try:
            for worker in self._workers:
                worker.wait_ready(start_timeout_s)
        except WorkerLostError:
            self.close(0.0)
            raise

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids, in worker order."""
        return [worker.pid for worker in self._workers]

    @property
    def healthy(self) -> bool:
        """Whether every worker runs."""
        return all(worker.alive for worker in self._workers)

    def assign(self, count: int, spread: int) -> list[int]:
        """Chooses a worker for each of `count` instances, the least loaded of at most `spread` workers first."""
        chosen = []
        with self._lock:
            among = sorted(range(self.size), key=lambda i: (self._loads[i], i))[:spread]
            for _ in range(count):
                index = min(among, key=lambda i: (self._loads[i], i))
                self._loads[index] += 1
                chosen.append(index)
        return chosen

    def release(self, assigned: list[int]) -> None:
        """Gives back what `assign` chose."""
        with self._lock:
            for index in assigned:
                self._loads[index] -= 1

    def attach(self, index: int, spec: bytes, block_descriptor: int, timeout_s: float) -> Channel:
        """Gives a session to a worker, replacing the worker first if it is dead; see WorkerProcess.attach.

        Raises:
            UnavailableError: It is dead and too many have died lately.
            WorkerLostError: It died just now.
        """
        self._ensure(index)
        return self._workers[index].attach(spec, block_descriptor, timeout_s)

    def replace_dead(self) -> None:
        """Replaces dead workers as far as the rate allows; call now and then, so that none stays dead unseen."""
        for index in range(self.size):
            try:
                self._ensure(index)
            except (UnavailableError, WorkerLostError) as error:
                log.warning("worker_not_replaced", worker=index, error=str(error))

    def close(self, timeout_s: float) -> None:
        """Ends all processes."""
        with self._lock:
            if not self._closed:
                os.close(self._verdict)
            self._closed = True
            for worker in self._workers:
                worker.stop(timeout_s)

    def _started(self, index: int) -> WorkerProcess:
        return WorkerProcess(index, self._environment, self._log_level, [self._verdict])

    def _ensure(self, index: int) -> None:
        with self._lock:
            dead = self._workers[index]
            if dead.alive:
                return
            if self._closed:
                raise UnavailableError("the service is shutting down")
            obituary = dead.obituary()
            if not self._restarts.spend():
                raise UnavailableError(
                    f"{self._restarts.used} workers died within {_WINDOW_S:.0f} s; no more are started for "
                    f"{self._restarts.wait_s:.0f} s, then the same call may work. The last one: "
                    f"{obituary.splitlines()[0]}"
                )
            reason = dead.reason()
            dead.stop(0.0)
            log.error("worker_died", worker=index, reason=reason, obituary=obituary)
            metrics.WORKER_RESTARTS.labels(reason).inc()
            self._workers[index] = self._started(index)
            self._workers[index].wait_ready(self._start_timeout_s)
