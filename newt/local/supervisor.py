"""The process that owns a local stack: starts its services in order, restarts those that die, stops all with itself."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import structlog

from newt import logs
from newt.local import health, stack
from newt.local.processes import start_time
from newt.local.stack import STATE_FILE, STOP_GRACE_S
from newt.security import SecurityError

# A service that dies more often than this within the window stays down, and the stack says so.
MAX_RESTARTS = 5
RESTART_WINDOW_S = 300.0
START_TIMEOUT_S = 120.0
_PR_SET_PDEATHSIG = 1

log = structlog.get_logger(__name__)


@dataclass
class _Child:
    spec: stack.ServiceSpec
    process: subprocess.Popen[bytes]
    restarts: deque[float] = field(default_factory=deque)
    state: str = "starting"


class Supervisor:
    """Runs a stack until it is told to stop. Must run in the main thread: a child dies with the thread that made it."""

    def __init__(self, config: stack.StackConfig) -> None:
        self._config = config
        self._children: list[_Child] = []
        self._stopping = False

    def run(self) -> int:
        """Starts everything, watches, and returns the process's exit status after a stop."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._config.home.mkdir(parents=True, exist_ok=True)
        (self._config.home / "logs").mkdir(exist_ok=True)
        try:
            specs = stack.build(self._config)
        except (OSError, SecurityError) as error:
            self._write_state("failed", str(error))
            return 1
        problem = self._start_all(specs)
        if problem and not self._stopping:
            self._stop_all()
            self._write_state("failed", problem)
            return 1
        while not self._stopping and self._owner_lives():
            self._write_state("running")
            self._watch()
            time.sleep(0.5)
        self._stop_all()
        self._write_state("stopped")
        return 0

    def _owner_lives(self) -> bool:
        owner = self._config.owner_pid
        return not owner or Path(f"/proc/{owner}").exists()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _start_all(self, specs: list[stack.ServiceSpec]) -> str | None:
        """Starts the services; returns what went wrong, if anything did.

        All but Redis start at once (each waits for its neighbours by itself): imports take most of the time.
        """
        for spec in specs:
            self._children.append(_Child(spec, self._spawn(spec)))
            if spec.health == "redis" and (problem := self._await_ready(self._children[-1])):
                return problem
        for child in self._children:
            if problem := self._await_ready(child):
                return problem
        return None

    def _await_ready(self, child: _Child) -> str | None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._stopping:
            self._write_state("starting")
            if child.process.poll() is not None:
                return f"{child.spec.name} {_death(child.process)} while starting: {self._last_words(child.spec)}"
            if health.is_ready(child.spec):
                child.state = "ready"
                return None
            if time.monotonic() > deadline:
                log_path = self._log_path(child.spec)
                return f"{child.spec.name} was not ready after {START_TIMEOUT_S:.0f} s; its log is {log_path}"
            time.sleep(0.1)
        return None

    def _spawn(self, spec: stack.ServiceSpec) -> subprocess.Popen[bytes]:
        # The parent's death must reach the child even when it comes by SIGKILL.
        libc = ctypes.CDLL(None)

        def die_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        with self._log_path(spec).open("ab") as out:
            return subprocess.Popen(
                list(spec.argv),
                env=stack.environment(spec),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                # Ctrl-C in a terminal reaches the supervisor only; it stops the services in order.
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _watch(self) -> None:
        for child in self._children:
            if child.process.poll() is None:
                child.state = "ready" if health.is_ready(child.spec) else "not ready"
                continue
            now = time.monotonic()
            while child.restarts and now - child.restarts[0] > RESTART_WINDOW_S:
                child.restarts.popleft()
            if len(child.restarts) >= MAX_RESTARTS:
                child.state = f"down: {_death(child.process)} {MAX_RESTARTS + 1} times: {self._last_words(child.spec)}"
                continue
            child.restarts.append(now)
            log.error("service_died", name=child.spec.name, how=_death(child.process), restarts=len(child.restarts))
            child.state = "restarting"
            child.process = self._spawn(child.spec)

    def _stop_all(self) -> None:
        # Last started first: the learner checkpoints while replay and Redis are still there.
        order = sorted(self._children, key=lambda child: child.spec.name != "learner")
        for child in order:
            if child.spec.health != "redis":
                child.process.terminate()
                if child.spec.name == "learner":
                    _wait(child.process)
        for child in reversed(self._children):
            child.process.terminate()
            _wait(child.process)
            child.state = "stopped"

    def _log_path(self, spec: stack.ServiceSpec) -> Path:
        return self._config.home / "logs" / f"{spec.name}.log"

    def _last_words(self, spec: stack.ServiceSpec) -> str:
        try:
            text = self._log_path(spec).read_text(errors="replace")
        except OSError:
            return "(no log)"
        return " / ".join(text.splitlines()[-3:]) or "(empty log)"

    def _write_state(self, state: str, error: str | None = None) -> None:
        record = {
            "state": state,
            "error": error,
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "home": str(self._config.home),
            "services": [
                {
                    "name": child.spec.name,
                    "state": child.state,
                    "pid": child.process.pid,
                    "address": child.spec.address,
                    "metrics": child.spec.metrics_port,
                    "restarts": len(child.restarts),
                }
                for child in self._children
            ],
        }
        path = self._config.home / STATE_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(record, indent=1))
        temporary.replace(path)


def _death(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Entry point: `python -m newt.local.supervisor CONFIG_JSON`."""
    logs.configure("local")
    return Supervisor(stack.StackConfig.from_json(sys.argv[1])).run()


if __name__ == "__main__":
    sys.exit(main())
