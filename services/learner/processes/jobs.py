"""The one life of a job: records become processes, which are watched, restarted, stopped, and cleared up after.

Runs stand on JobKeeper itself; kinds of work with simpler records on StoredJobKeeper (processes/stored_jobs.py).
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import structlog

from newt.errors import NewtError, UnavailableError
from newt.processes import RestartBudget
from services.learner.processes.child import Child, end
from services.learner.settings import LearnerSettings
from services.learner.waiting import EXIT_DONE

# An exit, or a change through the API, wakes the keeper at once; this finds what nobody told.
TICK_S = 5.0
RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
# All records are read now and then, so that a broken one that nobody asks for is seen.
AUDIT_EVERY_S = 60.0

log = structlog.get_logger(__name__)


class Phase(Enum):
    """What a job's record wants."""

    QUEUED = "queued"  # processes, when there is room
    ACTIVE = "active"  # processes
    ENDED = "ended"  # none


@dataclass
class _Held:
    """A job that has processes."""

    attempt: int
    request_id: str | None
    children: dict[str, Child]
    budget: RestartBudget
    done: set[str] = field(default_factory=set)
    crashed: set[str] = field(default_factory=set)
    stopping_since: float | None = None


@dataclass
class _Delay:
    """A job with which something does not work, for now."""

    until: float
    pause_s: float
    reason: str


class JobKeeper(ABC):
    """Keeps processes and records of one kind of job in agreement, from one thread.

    At every look: active jobs without processes get some (a restarted learner finds its jobs so), queued ones as far
    as there is room; a crashed process starts again as often as its budget allows, then the job fails with the cause;
    processes of ended jobs are stopped, and when the last is gone, `settle` clears up. What does not work for one job
    (a full disk, a record that cannot be read) is tried again under a growing delay and keeps no other from its turn.

    Attributes:
        kind: What a job of this kind is called.
        roles: Its processes, unless `roles_of` says otherwise.

    Args:
        settings: Settings of the learner; the children inherit them.
        limit: Jobs that may have processes at once.
        grace_s: Time that processes have to stop before they are killed.
        restarts: Restarts of crashed processes of a job within `window_s`.
        window_s: Length of that window.
    """

    kind: str
    roles: tuple[str, ...]

    def __init__(
        self,
        settings: LearnerSettings,
        *,
        limit: int,
        grace_s: float,
        restarts: int = 0,
        window_s: float = 300.0,
    ) -> None:
        self._settings = settings
        self._limit, self._grace_s, self._restarts, self._window_s = limit, grace_s, restarts, window_s
        self._held: dict[str, _Held] = {}
        self._unsettled: set[str] = set()
        self._delays: dict[str, _Delay] = {}
        self._waiting: set[str] = set()  # their turn has come, but something is not there yet
        self._changed = threading.Condition()
        self._woken = self._stopping = self._repaired = False
        self._begun = self._finished = 0  # looks
        self._audited = -AUDIT_EVERY_S
        self._thread = threading.Thread(target=self._loop, name=f"{self.kind}-keeper", daemon=True)

    # ---- for others

    def start(self) -> None:
        """Begins, with the jobs that an earlier learner left."""
        self._thread.start()

    def wake(self) -> None:
        """Looks at the records now; call after changing one."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Stops all processes. The records stay as they are, for the next learner."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        end([child for held in self._held.values() for child in held.children.values()], self._grace_s)
        self._held.clear()

    def pids(self, job_id: str) -> dict[str, int]:
        """Process ids of a job by role."""
        held = self._held.get(job_id)
        return {role: child.pid for role, child in list(held.children.items())} if held else {}

    def await_end(self, job_id: str, timeout_s: float) -> bool:
        """Waits until an ended job has no process any more and is cleared up; False if that takes longer."""
        if not self._thread.is_alive():
            return True
        with self._changed:
            look = self._begun + 1
            self._woken = True
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: self._finished >= look and job_id not in self._held and job_id not in self._unsettled, timeout_s
            )

    # ---- what a kind of job says

    @abstractmethod
    def open_jobs(self) -> dict[str, Phase]:
        """Phases of the jobs for which something is left to do, oldest first; broken records are left out."""

    @abstractmethod
    def phase(self, job_id: str) -> Phase:
        """The present phase of one job."""

    @abstractmethod
    def begin(self, job_id: str) -> int | None:
        """Claims a job for new processes: its attempt from now on; None if it is not to be started."""

    def roles_of(self, job_id: str) -> tuple[str, ...]:
        """The processes of one job."""
        return self.roles

    @abstractmethod
    def request_id(self, job_id: str) -> str | None:
        """The request that asked for a job, for the logs."""

    @abstractmethod
    def log_path(self, job_id: str, role: str) -> Path:
        """Where a process's stderr goes."""

    @abstractmethod
    def command(self, job_id: str, attempt: int, role: str) -> list[str]:
        """Module and arguments of a process."""

    @abstractmethod
    def fail(self, job_id: str, attempt: int, error: str) -> None:
        """Ends a job in its record."""

    @abstractmethod
    def blocked(self, job_id: str, reason: str) -> None:
        """Says in the record of an open job why it is not going on; empty: it is."""

    @abstractmethod
    def repair(self) -> None:
        """Finds the open jobs in the records of an older learner."""

    @abstractmethod
    def audit(self) -> None:
        """Reads all records, so that those are known that cannot be read."""

    def waits_for(self, job_id: str, role: str) -> str | None:
        """What must be there before a process of a job starts, and is not; the job keeps its place meanwhile."""
        return None

    def settle(self, job_id: str) -> None:  # noqa: B027 - nothing to do for many
        """Clears up after an ended job without processes; is repeated until it succeeds."""

    def restarted(self, job_id: str, role: str, cause: str) -> None:  # noqa: B027 - likewise
        """A crashed process of the job is being restarted."""

    def looked(self, *, woken: bool) -> None:  # noqa: B027 - likewise
        """A look is over; `woken`: something may have changed."""

    # ---- the loop

    def _loop(self) -> None:
        said, pause_s = "", 0.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._woken or self._stopping, pause_s)
                if self._stopping:
                    return
                woken, self._woken = self._woken or not self._begun, False
                self._begun += 1
            try:
                self._look()
                self.looked(woken=woken)
            except Exception as error:  # this thread must outlive any surprise: without it no job starts or stops
                if str(error) != said:
                    log.warning("keeper_waits", kind=self.kind, error=str(error), exc_info=not _expected(error))
                said = str(error)
                with self._changed:
                    self._woken = True
                    self._changed.wait_for(lambda: self._stopping, RETRY_S)
            else:
                said, pause_s = "", self._pause_s()
                with self._changed:
                    self._finished = self._begun
                    self._changed.notify_all()

    def _look(self) -> None:
        if not self._repaired:
            self.repair()
            self._repaired = True
        phases = self.open_jobs()
        self._waiting &= {job_id for job_id, phase in phases.items() if phase is not Phase.ENDED}
        for job_id, held in list(self._held.items()):
            with self._alone(job_id, phases):
                if phases.get(job_id) is Phase.ACTIVE and held.stopping_since is None:
                    self._check(job_id, held)
                else:
                    self._wind_down(job_id, held)
        # Jobs that were active before come first: their work is under way.
        for wanted in (Phase.ACTIVE, Phase.QUEUED):
            for job_id, phase in phases.items():
                room = len(self._held) + len(self._waiting - {job_id}) < self._limit
                if room and phase is wanted and job_id not in self._held and self._due(job_id):
                    with self._alone(job_id, phases):
                        self._launch(job_id)
        ended = {job_id for job_id, phase in phases.items() if phase is Phase.ENDED}
        for job_id in (ended | self._unsettled) - self._held.keys():
            if self._due(job_id):
                with self._alone(job_id, phases):
                    self.settle(job_id)
                    self._unsettled.discard(job_id)
                    self._delays.pop(job_id, None)
        for job_id in self._delays.keys() - phases.keys() - self._held.keys() - self._unsettled:
            del self._delays[job_id]
        if time.monotonic() - self._audited > AUDIT_EVERY_S:
            self.audit()
            self._audited = time.monotonic()

    @contextlib.contextmanager
    def _alone(self, job_id: str, phases: dict[str, Phase]) -> Iterator[None]:
        """Whatever goes wrong with a job is its own affair."""
        try:
            yield
        except Exception as error:  # any surprise
            delay = self._delays.get(job_id)
            away = isinstance(error, UnavailableError)
            pause_s = RETRY_S if away or delay is None else min(2 * delay.pause_s, LONGEST_RETRY_S)
            reason = f"cannot go on: {error}" if _expected(error) else f"cannot go on: {error!r}"
            if delay is None or delay.reason != reason:
                self._log(job_id).warning("job_waits", reason=reason, exc_info=not _expected(error))
                if phases.get(job_id, Phase.ENDED) is not Phase.ENDED:
                    with contextlib.suppress(Exception):
                        self.blocked(job_id, reason)
            self._delays[job_id] = _Delay(time.monotonic() + pause_s, pause_s, reason)

    def _log(self, job_id: str) -> Any:
        """The log, with the job under the name of its kind."""
        return log.bind(**{self.kind: job_id})

    def _due(self, job_id: str) -> bool:
        delay = self._delays.get(job_id)
        return delay is None or time.monotonic() >= delay.until

    def _pause_s(self) -> float:
        """Until something is to be done that nobody will tell."""
        moment = time.monotonic()
        ends = [held.stopping_since + self._grace_s for held in self._held.values() if held.stopping_since is not None]
        times = [*ends, *(delay.until for delay in self._delays.values())]
        return min([TICK_S, *(at - moment for at in times if at > moment)])

    def _launch(self, job_id: str) -> None:
        roles = self.roles_of(job_id)
        for role in roles:  # a folder that cannot be written is told before anything is claimed
            path = self.log_path(job_id, role)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
        if self._must_wait(job_id, roles):
            self._waiting.add(job_id)
            return
        self._waiting.discard(job_id)
        request_id = self.request_id(job_id)
        attempt = self.begin(job_id)
        if attempt is None:
            self._again()
            return
        children: dict[str, Child] = {}
        try:
            for role in roles:
                children[role] = self._spawn(job_id, attempt, role)
        except BaseException:
            end(children.values(), self._grace_s)
            raise
        budget = RestartBudget(self._restarts, self._window_s)
        self._held[job_id] = _Held(attempt, request_id, children, budget)
        self._delays.pop(job_id, None)
        self._log(job_id).info("job_started", attempt=attempt, request_id=request_id)

    def _must_wait(self, job_id: str, roles: Iterable[str]) -> bool:
        """Whether something is not there yet; says so in the record."""
        reasons = (self.waits_for(job_id, role) for role in roles)
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is None:
            return False
        before = self._delays.get(job_id)
        if before is None or before.reason != reason:
            self._log(job_id).info("job_waits", reason=reason)
            self.blocked(job_id, reason)
        self._delays[job_id] = _Delay(time.monotonic() + RETRY_S, RETRY_S, reason)
        return True

    def _spawn(self, job_id: str, attempt: int, role: str) -> Child:
        module, *arguments = self.command(job_id, attempt, role)
        return Child(module, arguments, self._settings, self.log_path(job_id, role), self.wake)

    def _check(self, job_id: str, held: _Held) -> None:
        """Sees to the processes of an active job that have ended."""
        for role, child in held.children.items():
            status = child.exit_status()
            if status is None or role in held.done or role in held.crashed:
                continue
            if status == EXIT_DONE:
                held.done.add(role)
                continue
            if self.phase(job_id) is Phase.ENDED:
                self._again()
                return
            cause = f"the {role} {child.how_it_ended()}"
            if not held.budget.spend():
                if self._restarts:
                    cause += f"\n({self._restarts + 1} crashes in {self._window_s:g} s; not restarted any more)"
                self.fail(job_id, held.attempt, cause)
                self._again()
                return
            held.crashed.add(role)
            crash = {"role": role, "status": status, "request_id": held.request_id}
            self._log(job_id).warning("process_crashed", **crash)
            self.restarted(job_id, role, cause)
        if held.done == set(held.children) and self.phase(job_id) is not Phase.ENDED:
            self.fail(job_id, held.attempt, f"the {' and the '.join(held.children)} ended without a result")
            self._again()
        for role in sorted(held.crashed):
            if self._due(job_id) and not self._must_wait(job_id, [role]):
                held.children[role] = self._spawn(job_id, held.attempt, role)
                held.crashed.discard(role)
                if self._delays.pop(job_id, None) is not None:
                    self.blocked(job_id, "")

    def _wind_down(self, job_id: str, held: _Held) -> None:
        """Stops the processes of an ended job."""
        moment = time.monotonic()
        if held.stopping_since is None:
            held.stopping_since = moment
            for child in held.children.values():
                child.terminate()
        if moment - held.stopping_since >= self._grace_s:
            for child in held.children.values():
                child.kill()
        if all(child.exit_status() is not None for child in held.children.values()):
            self._unsettled.add(job_id)
            del self._held[job_id]
            self._delays.pop(job_id, None)
            seconds = round(moment - held.stopping_since, 1)
            self._log(job_id).info("job_stopped", seconds=seconds, request_id=held.request_id)

    def _again(self) -> None:
        """Looks once more after this look: a record has been changed."""
        with self._changed:
            self._woken = True


def _expected(error: Exception) -> bool:
    return isinstance(error, NewtError | OSError)
