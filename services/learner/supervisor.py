"""Turns run records into processes: one trainer and one collector per run, restarted, stopped and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from newt.errors import NewtError
from newt.runs.record import RunState
from services.learner import metrics
from services.learner.child import EXIT_DONE
from services.learner.settings import LearnerSettings
from services.learner.store import TRAINERS_LIFE, RunStore

ROLES = ("trainer", "collector")
TICK_S = 0.2
RATES_EVERY_S = 2.0
STDERR_LINES = 12

log = structlog.get_logger(__name__)


class Child:
    """One process of a run. It stops by itself when this process dies, because its stdin closes.

    Args:
        module: Python module to run.
        arguments: Its command line.
        settings: Passed on through the environment.
        log_path: File that its stderr is appended to.
    """

    def __init__(self, module: str, arguments: list[str], settings: LearnerSettings, log_path: Path) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path = log_path
        # The token of the API is the API's alone.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NEWT_API_")}
        with log_path.open("ab") as stderr:
            self._log_start = stderr.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**inherited, **settings.environment()},
                start_new_session=True,  # Ctrl-C reaches the API alone, which then stops its children in order.
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while the process lives; negative: the signal that ended it."""
        return self._process.poll()

    def terminate(self) -> None:
        """Asks the process to stop."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.poll() is None:
            self._process.kill()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the process; False if it still lives."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._process.stdin is not None:
            self._process.stdin.close()
        return True

    def epitaph(self) -> str:
        """How the process ended, with its own last lines on stderr."""
        status = self._process.returncode
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        with self.log_path.open("rb") as stderr:
            stderr.seek(self._log_start)
            lines = stderr.read().decode(errors="replace").splitlines()
        tail = "\n".join(lines[-STDERR_LINES:])
        return f"{how}; its last lines: {tail}" if tail else f"{how} and said nothing"


@dataclass
class _Running:
    attempt: int
    request_id: str | None
    children: dict[str, Child]
    crashes: deque[float] = field(default_factory=deque)
    done: set[str] = field(default_factory=set)
    stopping_since: float | None = None


class Supervisor:
    """Keeps processes and records in agreement, from one thread.

    Queued runs start in order while fewer than `max_concurrent_runs` have processes; runs that are found active
    without processes (the API was restarted) start again; a crashed process starts again, at most `max_restarts` times
    per `restart_window_s`, after which the run fails with the cause; the processes of a finished run are stopped.

    Args:
        store: Run records.
        settings: Of the learner; the children inherit them.
        on_ended: Called with the id of a run that has ended, when its processes are gone.
    """

    def __init__(
        self, store: RunStore, settings: LearnerSettings, on_ended: Callable[[str], None] = lambda run_id: None
    ) -> None:
        self._store = store
        self._settings = settings
        self._on_ended = on_ended
        self._running: dict[str, _Running] = {}
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._shown = 0.0
        self._thread = threading.Thread(target=self._loop, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begins to supervise, with the runs that an earlier process left active."""
        self._thread.start()

    def wake(self) -> None:
        """Looks at the records now; call after changing one."""
        self._wake.set()

    def stop(self) -> None:
        """Stops all processes, with time for their checkpoints. The runs stay active and resume at the next start."""
        self._stop.set()
        self._wake.set()
        self._thread.join()
        children = [child for running in self._running.values() for child in running.children.values()]
        _end(children, self._settings.stop_grace_s)
        self._running.clear()

    def pids(self, run_id: str) -> dict[str, int]:
        """Process ids of a run by role."""
        running = self._running.get(run_id)
        return {role: child.pid for role, child in running.children.items()} if running else {}

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self._tick()
            except NewtError as error:
                log.warning("supervisor_waits", error=str(error))
                self._stop.wait(1.0)
            except Exception:
                # This thread must outlive any surprise: without it no run starts or stops.
                log.exception("supervisor_failed")
                self._stop.wait(1.0)
            self._wake.wait(TICK_S)
            self._wake.clear()

    def _tick(self) -> None:
        states = self._store.states()
        for run_id, running in list(self._running.items()):
            state = states.get(run_id)
            if state is None or not state.active:
                self._wind_down(run_id, running)
            else:
                self._check(run_id, running)
        # Runs that were active before come first: their work is under way.
        for wanted in (lambda state: state.active, lambda state: state is RunState.QUEUED):
            for run_id, state in states.items():
                room = len(self._running) < self._settings.max_concurrent_runs
                if room and wanted(state) and run_id not in self._running:
                    self._start(run_id)
        metrics.show_states(states.values())
        if time.monotonic() - self._shown > RATES_EVERY_S:
            self._shown = time.monotonic()
            last = [self._store.last_evaluation(run_id) for run_id in self._running]
            metrics.show_progress(
                [self._store.get(run_id).progress for run_id in self._running],
                [evaluation for evaluation in last if evaluation is not None],
            )

    def _start(self, run_id: str) -> None:
        attempt = self._store.begin(run_id)
        if attempt is None:
            return
        request_id = self._store.get(run_id).request_id
        children = {role: self._spawn(run_id, attempt, role) for role in ROLES}
        self._running[run_id] = _Running(attempt, request_id, children)
        log.info("run_started", run=run_id, attempt=attempt, request_id=request_id)

    def _spawn(self, run_id: str, attempt: int, role: str) -> Child:
        run = self._store.get(run_id)
        log_path = Path(run.directory) / "logs" / f"{role}.log"
        arguments = ["--run", run_id, "--attempt", str(attempt)]
        processes = run.spec.resources.processes
        if role == "trainer" and processes > 1:
            life = uuid.uuid4().hex
            self._store.write(run_id, {TRAINERS_LIFE: life})
            own = ["--processes", str(processes), "--nodes", str(run.spec.resources.nodes), "--life", life]
            return Child("services.learner.ranks", [*own, *arguments], self._settings, log_path)
        return Child(f"services.learner.{role}", arguments, self._settings, log_path)

    def _check(self, run_id: str, running: _Running) -> None:
        for role, child in list(running.children.items()):
            status = child.exit_status()
            if status is None or role in running.done:
                continue
            child.wait(0)
            if status == EXIT_DONE:
                running.done.add(role)
                continue
            if self._store.get(run_id).state.finished:
                return
            cause = f"the {role} {child.epitaph()}"
            moment = time.monotonic()
            running.crashes.append(moment)
            while running.crashes and running.crashes[0] < moment - self._settings.restart_window_s:
                running.crashes.popleft()
            if len(running.crashes) > self._settings.max_restarts:
                times = f"{len(running.crashes)} crashes in {self._settings.restart_window_s:g} s"
                self._store.fail(run_id, f"{cause}\n({times}; not restarted any more)", attempt=running.attempt)
                return
            log.warning("process_crashed", run=run_id, role=role, status=status, request_id=running.request_id)
            metrics.RESTARTS.labels(role).inc()
            self._store.count_restart(run_id, cause)
            running.children[role] = self._spawn(run_id, running.attempt, role)

    def _wind_down(self, run_id: str, running: _Running) -> None:
        moment = time.monotonic()
        if running.stopping_since is None:
            running.stopping_since = moment
            for child in running.children.values():
                child.terminate()
        if moment - running.stopping_since > self._settings.stop_grace_s:
            for child in running.children.values():
                child.kill()
        if all(child.wait(0) for child in running.children.values()):
            del self._running[run_id]
            if self._store.diverged(run_id):
                metrics.DIVERGED.inc()
            self._on_ended(run_id)
            seconds = round(moment - running.stopping_since, 1)
            log.info("run_stopped", run=run_id, seconds=seconds, request_id=running.request_id)


def _end(children: list[Child], grace_s: float) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + grace_s
    for child in children:
        if not child.wait(max(0.0, deadline - time.monotonic())):
            child.kill()
            child.wait(5.0)
