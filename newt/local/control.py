"""Starting and stopping a local stack: through its supervisor, and past it where that is gone or hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from newt.local import stack
from newt.local.processes import start_time
from newt.local.stack import STOP_GRACE_S, StackConfig
from newt.local.state import (
    STATE_FILE,
    HomeError,
    StackError,
    StackState,
    command,
    default_home,
    is_locked,
    last,
    locked,
    read,
    write,
)

__all__ = ["HomeError", "StackError", "StackState", "default_home", "down", "read", "up"]

_UP_TIMEOUT_S = 240.0
_LOOK_S = 5.0  # for the state file of a stack that is just being started
# The learner, then the other services together, then Redis; each is killed after its grace.
_DOWN_TIMEOUT_S = 3 * STOP_GRACE_S + 10.0


def up(config: StackConfig) -> StackState:
    """Starts a stack in the background and waits until every service is ready.

    Raises:
        HomeError: The folder cannot be written.
        StackError: A stack runs there already, a port is taken, a service does not start, or somebody stopped it.
    """
    home = config.home.absolute()
    config = dataclasses.replace(config, home=home)
    running = read(home)
    if running and running.active:
        raise StackError(f"a stack runs already in {home} (pid {running.pid}); stop it with `{command('down', home)}`")
    with locked(home) as lock:
        try:
            (home / STATE_FILE).unlink(missing_ok=True)
            with (home / "supervisor.log").open("ab") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "newt.local.supervisor", config.to_json()],
                    env=stack.with_absolute_paths(os.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    cwd=home,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        except OSError as error:
            raise HomeError(home, error) from error
        try:
            # Before the supervisor can say anything, `newt down` knows whom to stop.
            started = start_time(process.pid) or 0
            write(
                home,
                StackState(state="starting", error=None, pid=process.pid, started=started, services=[]).model_dump(),
                replace=False,
            )
        except OSError as error:
            _end(process)
            raise HomeError(home, error) from error
    try:
        return _ready(home, process)
    except BaseException:  # Ctrl-C too: what is not up must not come up later.
        _end(process)
        raise


def _ready(home: Path, process: subprocess.Popen[bytes]) -> StackState:
    deadline = time.monotonic() + _UP_TIMEOUT_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        state = last(home)
        if state and state.state == "failed":
            raise StackError(state.error or "the stack failed")
        if (state and state.state == "stopped") or process.returncode == -signal.SIGTERM:
            raise StackError("the stack was stopped while it started")
        if ended:
            raise StackError(f"the supervisor died; see {home / 'supervisor.log'}")
        if state and state.state == "running":
            return state
        time.sleep(0.2)
    raise StackError(f"the stack was not ready after {_UP_TIMEOUT_S:.0f} s; see {home / 'logs'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


def down(home: Path) -> bool:
    """Stops the stack of a home folder and waits for it; False if none ran.

    A supervisor that does not stop in time is killed, and so are services that outlive theirs.

    Raises:
        HomeError: The folder cannot be read.
        StackError: A stack is there, but nothing says which process it is.
    """
    deadline = time.monotonic() + _LOOK_S
    found = last(home)
    while is_locked(home) and (found is None or not found.supervised):  # It is just being started.
        if time.monotonic() > deadline:
            raise StackError(f"a stack runs in {home}, but its {STATE_FILE} does not tell its process")
        time.sleep(0.05)
        found = last(home)
    if found is None:
        return False
    state = found
    ran = state.active and state.supervised
    if ran:
        _signal(os.kill, state.pid, signal.SIGTERM)
        if not _gone(lambda: state.supervised, _DOWN_TIMEOUT_S):
            _signal(os.kill, state.pid, signal.SIGKILL)
    left = [service for service in (last(home) or state).services if _lives(service)]
    for kill in (signal.SIGTERM, signal.SIGKILL):
        for service in left:
            if _lives(service):
                _signal(os.killpg, service["pid"], kill)
        _gone(lambda: any(_lives(service) for service in left), STOP_GRACE_S)
    return ran or bool(left)


def _lives(service: Mapping[str, Any]) -> bool:
    started = service.get("started")
    return started is not None and start_time(service["pid"]) == started


def _signal(send: Callable[[int, int], None], pid: int, kind: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        send(pid, kind)


def _gone(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Waits until `condition` no longer holds; whether that came in time."""
    deadline = time.monotonic() + timeout_s
    while condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
