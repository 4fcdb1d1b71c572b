"""Up, down and status of a local stack, through the supervisor's state file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newt.errors import NewtError, UnavailableError
from newt.local.processes import start_time
from newt.local.stack import STATE_FILE, STOP_GRACE_S, StackConfig

_UP_TIMEOUT_S = 240.0


class StackError(NewtError):
    """The local stack did not do what it was told; the message says why and what to do."""


@dataclass(frozen=True)
class StackState:
    """Contents of the state file.

    Attributes:
        state: "starting", "running", "failed" or "stopped".
        error: Why it failed.
        pid: Process id of the supervisor.
        started: When that process started; see `start_time`.
        services: One record per service: name, state, pid, address, metrics, restarts.
    """

    state: str
    error: str | None
    pid: int
    started: int
    services: list[dict[str, Any]]

    @property
    def rest_url(self) -> str:
        """Base URL of the learner's REST API."""
        for service in self.services:
            if service["name"] == "learner":
                return f"http://{service['address']}"
        raise UnavailableError("the stack has no learner")


def default_home() -> Path:
    """Where `newt up` keeps its stack: $NEWT_HOME, or ~/.newt."""
    return Path(os.environ.get("NEWT_HOME") or Path.home() / ".newt")


def read(home: Path) -> StackState | None:
    """The stack of a home folder; None if none runs there (or the last one is gone without a trace)."""
    try:
        record = json.loads((home / STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    started = record.get("started", 0)  # Files of earlier versions do not have it; no process started at 0.
    state = StackState(record["state"], record["error"], record["pid"], started, record["services"])
    return None if state.state in ("starting", "running") and not _supervised(state) else state


def up(config: StackConfig) -> StackState:
    """Starts a stack in the background and waits until every service is ready.

    Raises:
        StackError: A stack runs there already, a port is taken, or a service does not start.
    """
    running = read(config.home)
    if running and running.state in ("starting", "running"):
        raise StackError(f"a stack runs already in {config.home} (pid {running.pid}); stop it with `newt down`")
    config.home.mkdir(parents=True, exist_ok=True)
    (config.home / STATE_FILE).unlink(missing_ok=True)
    with (config.home / "supervisor.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "newt.local.supervisor", config.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while time.monotonic() < deadline:
        state = read(config.home)
        if state and state.state == "failed":
            process.wait()
            raise StackError(state.error or "the stack failed")
        if state and state.state == "running":
            return state
        if process.poll() is not None:
            raise StackError(f"the supervisor died; see {config.home / 'supervisor.log'}")
        time.sleep(0.2)
    process.terminate()
    process.wait()
    raise StackError(f"the stack was not ready after {_UP_TIMEOUT_S:.0f} s; see {config.home / 'logs'}")


def down(home: Path) -> bool:
    """Stops the stack of a home folder and waits for it; False if none ran.

    Raises:
        StackError: It did not stop in time.
    """
    state = read(home)
    if state is None or state.state not in ("starting", "running"):
        return False
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * STOP_GRACE_S
    while time.monotonic() < deadline:
        if not _supervised(state):
            return True
        time.sleep(0.1)
    raise StackError(f"the supervisor (pid {state.pid}) does not stop; see {home / 'supervisor.log'}")


def _supervised(state: StackState) -> bool:
    """Whether the supervisor that wrote this lives. After a crash its id may be another process's."""
    return start_time(state.pid) == state.started
