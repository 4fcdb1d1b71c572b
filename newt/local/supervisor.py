"""The process that owns a local stack: starts its services in order, restarts those that die, stops all with itself."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog

from newt import logs
from newt.local import health, redis_server, stack, state
from newt.local.processes import start_time
from newt.local.stack import STOP_GRACE_S
from newt.processes import RestartBudget, how_it_ended, last_words
from newt.security import SecurityError

# A service that dies more often than this within the window stays down, and the stack says so.
MAX_RESTARTS = 5
RESTART_WINDOW_S = 300.0
START_TIMEOUT_S = 120.0
WATCH_EVERY_S = 0.5
# One that was ready is asked less often: each question costs a connection here and there. Its end is seen at once.
ASK_READY_EVERY_S = 4.0
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger(__name__)


@dataclass
class _Child:
    spec: stack.ServiceSpec
    process: subprocess.Popen[bytes]
    log_start: int
    restarts: RestartBudget = field(default_factory=lambda: RestartBudget(MAX_RESTARTS, RESTART_WINDOW_S))
    state: str = "starting"
    asked_at: float = 0.0


class Supervisor:
    """Runs a stack until it is told to stop. Must run in the main thread: a child dies with the thread that made it."""

    def __init__(self, config: stack.StackConfig) -> None:
        self._config = config
        self._children: list[_Child] = []
        self._stopping = False
        self._unwritten = False

    def run(self) -> int:
        """Starts everything, watches, and returns the process's exit status after a stop."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            (self._config.home / "logs").mkdir(parents=True, exist_ok=True)
            specs = stack.build(self._config)
        except (OSError, SecurityError) as error:
            self._write_state("failed", str(error))
            return 1
        problem = self._start_all(specs)
        if problem and not self._ends():
            self._stop_all()
            self._write_state("failed", problem)
            return 1
        while not self._ends():
            self._write_state("running")
            self._watch()
            time.sleep(WATCH_EVERY_S)
        self._stop_all()
        self._write_state("stopped")
        return 0

    def _ends(self) -> bool:
        owner = self._config.owner_pid
        return self._stopping or (owner != 0 and not Path(f"/proc/{owner}").exists())

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _start_all(self, specs: list[stack.ServiceSpec]) -> str | None:
        """Starts the services; returns what went wrong, if anything did.

        All but Redis start at once (each waits for its neighbours by itself): imports take most of the time.
        """
        for spec in specs:
            if self._ends():
                return None
            try:
                self._children.append(_Child(spec, *self._spawn(spec)))
            except OSError as error:
                return f"{spec.name} cannot be started: {error}"
            if spec.health == "redis" and (problem := self._await_ready(self._children[-1])):
                return problem
        for child in self._children:
            if problem := self._await_ready(child):
                return problem
        return None

    def _await_ready(self, child: _Child) -> str | None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ends():
            self._write_state("starting")
            if child.process.poll() is not None:
                words = self._last_words(child)
                advice = self._advice(child.spec, words)
                return f"{child.spec.name} {how_it_ended(child.process.returncode)} while starting: {words}{advice}"
            if health.is_ready(child.spec):
                child.state = "ready"
                return None
            if time.monotonic() > deadline:
                log_path = self._log_path(child.spec)
                return f"{child.spec.name} was not ready after {START_TIMEOUT_S:.0f} s; its log is {log_path}"
            time.sleep(0.1)
        return None

    def _spawn(self, spec: stack.ServiceSpec) -> tuple[subprocess.Popen[bytes], int]:
        """Starts a service; returns it and where its own words begin in its log."""
        # The parent's death must reach the child even when it comes by SIGKILL.
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        with self._log_path(spec).open("ab") as out:
            process = subprocess.Popen(
                list(spec.argv),
                env=stack.environment(spec),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # The caller's folder may be deleted, and whatever lies there could be imported.
                cwd=self._config.home,
                # Ctrl-C in a terminal reaches the supervisor only; it stops the services in order.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            return process, out.tell()

    def _watch(self) -> None:
        for child in self._children:
            if child.process.poll() is None:
                if child.state != "ready" or time.monotonic() - child.asked_at > ASK_READY_EVERY_S:
                    child.state = "ready" if health.is_ready(child.spec) else "not ready"
                    child.asked_at = time.monotonic()
                continue
            how = how_it_ended(child.process.returncode)
            if not child.restarts.spend():
                child.state = f"down: {how} {MAX_RESTARTS + 1} times: {self._last_words(child)}"
                continue
            log.error("service_died", name=child.spec.name, how=how, restarts=child.restarts.used)
            try:
                child.process, child.log_start = self._spawn(child.spec)
                child.state = "restarting"
            except OSError as error:
                child.state = f"cannot be restarted yet: {error}"

    def _advice(self, spec: stack.ServiceSpec, words: str) -> str:
        return redis_server.advice(self._config.home / spec.name, words) if spec.health == "redis" else ""

    def _stop_all(self) -> None:
        # The learner first: it checkpoints while replay and Redis are still there. Redis last: all write to it.
        def order(child: _Child) -> int:
            return 2 if child.spec.health == "redis" else 0 if child.spec.name == "learner" else 1

        for _, group in itertools.groupby(sorted(self._children, key=order), order):
            children = list(group)
            for child in children:
                child.process.terminate()
            deadline = time.monotonic() + STOP_GRACE_S
            for child in children:
                _wait(child.process, deadline)
                child.state = "stopped"

    def _log_path(self, spec: stack.ServiceSpec) -> Path:
        return self._config.home / "logs" / f"{spec.name}.log"

    def _last_words(self, child: _Child) -> str:
        return " / ".join(last_words(self._log_path(child.spec), child.log_start, 3)) or "(empty log)"

    def _write_state(self, now: str, error: str | None = None) -> None:
        """Tells the commands how things stand. A full disk stops nothing: what is told is older then."""
        record = {
            "state": now,
            "error": error,
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "home": str(self._config.home),
            "services": [
                {
                    "name": child.spec.name,
                    "state": child.state,
                    "pid": child.process.pid,
                    "started": start_time(child.process.pid),
                    "address": child.spec.address,
                    "metrics": child.spec.metrics_port,
                    "restarts": child.restarts.used,
                }
                for child in self._children
            ],
        }
        try:
            state.write(self._config.home, record)
        except OSError as problem:
            if not self._unwritten:
                log.error("state_not_written", error=str(problem))
            self._unwritten = True
        else:
            if self._unwritten:
                log.info("state_written_again")
            self._unwritten = False


def _wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Entry point: `python -m newt.local.supervisor CONFIG_JSON`."""
    logs.configure("local")
    return Supervisor(stack.StackConfig.from_json(sys.argv[1])).run()


if __name__ == "__main__":
    sys.exit(main())
