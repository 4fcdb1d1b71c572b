"""What is known of a local stack: its home folder, its state file, and the lock that its supervisor holds."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from newt.errors import NewtError, UnavailableError
from newt.local.processes import start_time

# In the stack's home; its supervisor writes it, the commands read it.
STATE_FILE = "stack.json"
# Held by whoever starts a stack and then by its supervisor, for as long as it lives. It is never removed.
LOCK_FILE = "stack.lock"
# `newt down` tries the lock for an instant; that is no stack.
_LOCK_PATIENCE_S = 1.0


class StackError(NewtError):
    """The local stack did not do what it was told; the message says why and what to do."""


class HomeError(StackError):
    """The folder of the stack cannot be used."""

    exit_status = 2

    def __init__(self, home: Path, error: OSError) -> None:
        super().__init__(
            f"cannot keep a stack in {home}: {error.strerror or error}; "
            "name a folder that can be written with --home or $NEWT_HOME"
        )


class StackState(BaseModel):
    """Contents of the state file.

    Attributes:
        state: "starting", "running", "failed" or "stopped".
        error: Why it failed.
        pid: Process id of the supervisor.
        started: When that process started; see `start_time`.
        services: One record per service: name, state, pid, started, address, metrics, restarts.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    state: Literal["starting", "running", "failed", "stopped"]
    error: str | None
    pid: int = Field(gt=1, lt=2**31)
    started: int = 0  # Files of earlier versions do not have it; no process started at 0.
    services: list[dict[str, Any]]

    @property
    def active(self) -> bool:
        """Whether its supervisor was at work when it wrote this."""
        return self.state in ("starting", "running")

    @property
    def supervised(self) -> bool:
        """Whether the supervisor that wrote this lives. After a crash its id may be another process's."""
        return start_time(self.pid) == self.started

    @property
    def rest_url(self) -> str:
        """Base URL of the learner's REST API."""
        for service in self.services:
            if service["name"] == "learner":
                return f"http://{service['address']}"
        raise UnavailableError("the stack has no learner")


class _Service(BaseModel):
    """What every record of a service must have."""

    model_config = ConfigDict(strict=True)

    name: str
    state: str
    pid: int = Field(gt=1, lt=2**31)
    address: str
    metrics: int | None
    restarts: int


def default_home() -> Path:
    """Where `newt up` keeps its stack: $NEWT_HOME, or ~/.newt."""
    try:
        return Path(os.environ.get("NEWT_HOME") or Path.home() / ".newt")
    except RuntimeError as error:
        raise HomeError(Path("~/.newt"), OSError(str(error))) from error


def command(name: str, home: Path | None) -> str:
    """How a person calls a command for the stack of a home folder."""
    return f"newt {name}" + ("" if home in (None, default_home()) else f" --home {shlex.quote(str(home))}")


def last(home: Path) -> StackState | None:
    """What the state file of a home folder says; None if there is none, or no supervisor has written what it holds.

    Raises:
        HomeError: It cannot be read.
    """
    try:
        content = (home / STATE_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HomeError(home, error) from error
    try:
        state = StackState.model_validate_json(content)
        for service in state.services:
            _Service.model_validate(service)
    except (ValidationError, RecursionError):
        return None
    return state


def read(home: Path) -> StackState | None:
    """The stack of a home folder; None if none runs there (or the last one is gone without a trace).

    Raises:
        HomeError: The state file cannot be read.
    """
    state = last(home)
    return None if state is None or (state.active and not state.supervised) else state


def write(home: Path, record: Mapping[str, Any], *, replace: bool = True) -> None:
    """Writes the state file, whole or not at all.

    Args:
        home: Folder of the stack.
        record: The fields of `StackState`.
        replace: False leaves a file alone that is there already.

    Raises:
        OSError: The disk is full, or the folder gone.
    """
    path = home / STATE_FILE
    temporary = home / f".{STATE_FILE}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(record, indent=1))
        if replace:
            temporary.replace(path)
        elif not path.exists():
            os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(home: Path) -> Iterator[int]:
    """Holds the lock of a home folder, which is made if it is missing; a child that inherits it holds it as well.

    Yields:
        The lock's descriptor.

    Raises:
        HomeError: The folder cannot be written.
        StackError: A stack starts or runs there.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise HomeError(home, error) from error
    try:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while not _take(lock):
            if time.monotonic() > deadline:
                raise StackError(f"a stack runs already in {home}; stop it with `{command('down', home)}`")
            time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def is_locked(home: Path) -> bool:
    """Whether a stack starts or runs in a home folder, whatever its state file says."""
    try:
        lock = os.open(home / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _take(lock)
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
