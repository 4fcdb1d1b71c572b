"""All sessions of a server: the instance limit, and leases that end when nobody calls."""

from __future__ import annotations

import collections
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from newt.errors import ExhaustedError, NotFoundError, PreconditionError, UnavailableError
from services.sim import metrics
from services.sim.session import Session

log = structlog.get_logger(__name__)

_REMEMBERED = 1000


@dataclass
class _Lease:
    session: Session
    seconds: float
    opened_at: float
    expires_at: float
    callers: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """Finds sessions by id and ends those that nobody uses.

    Args:
        max_instances: Over all sessions.
        clock: Monotonic seconds.
        age_s: How long a session may last before whoever steps it is asked to open another; 0: for ever.

    Attributes:
        draining: No new sessions are taken.
    """

    def __init__(self, max_instances: int, clock: Callable[[], float] = time.monotonic, *, age_s: float = 0.0) -> None:
        self.max_instances = max_instances
        self._age_s = age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[str, _Lease] = {}
        self._expired: collections.OrderedDict[str, float] = collections.OrderedDict()
        self._used = 0
        self._stepped = 0
        self._changed = threading.Condition(self._lock)
        self.draining = False

    @property
    def used_instances(self) -> int:
        """Instances of all open sessions."""
        return self._used

    def open(self, instances: int, lease_s: float, make: Callable[[], Session]) -> str:
        """Makes room, builds a session and starts its lease.

        Args:
            instances: How many the session will have.
            lease_s: Seconds without a call after which it ends.
            make: Builds it; may take long.

        Returns:
            The new session's id.

        Raises:
            ExhaustedError: The limit; names it.
            UnavailableError: The server drains.
        """
        with self._lock:
            if self.draining:
                raise UnavailableError(
                    "this simulator is being stopped and takes no new sessions; another replica does, or its successor"
                )
            if self._used + instances > self.max_instances:
                raise ExhaustedError(
                    f"the server's limit is {self.max_instances} instances (NEWT_SIM_MAX_INSTANCES), "
                    f"{self._used} are in use, {instances} more were asked for: close sessions or use another server"
                )
            self._use(instances)
        try:
            session = make()
        except BaseException:
            with self._lock:
                self._use(-instances)
            raise
        session_id = uuid.uuid4().hex
        with self._lock:
            opened_at = self._clock()
            self._leases[session_id] = _Lease(session, lease_s, opened_at, opened_at + lease_s)
            metrics.SESSIONS.set(len(self._leases))
        return session_id

    @contextlib.contextmanager
    def stepped(self) -> Iterator[None]:
        """While a client is connected to step a session: draining waits for it."""
        with self._lock:
            self._stepped += 1
        try:
            yield
        finally:
            with self._lock:
                self._stepped -= 1
                self._changed.notify_all()

    def sends_away(self, session_id: str) -> bool:
        """Whether who steps a session shall go on in another one when its episodes have ended."""
        if self.draining or not self._age_s:
            return self.draining
        with self._lock:
            lease = self._leases.get(session_id)
            return lease is not None and self._clock() - lease.opened_at >= self._age_s

    def drain(self, timeout_s: float) -> bool:
        """Refuses new sessions and waits until nobody steps one any more; False if somebody still does."""
        with self._lock:
            self.draining = True
            return self._changed.wait_for(lambda: not self._stepped, timeout_s)

    @contextlib.contextmanager
    def use(self, session_id: str) -> Iterator[Session]:
        """Exclusive use of a session; renews its lease at the end.

        Raises:
            NotFoundError: No such session.
            PreconditionError: Its lease has expired.
        """
        with self._lock:
            lease = self._leases.get(session_id)
            if lease is not None and not lease.callers and lease.expires_at <= self._clock():
                self._expire(session_id, lease)
                lease = None
            if lease is None:
                if session_id in self._expired:
                    raise PreconditionError(
                        f"the session's lease has expired after {self._expired[session_id]:g} s without a call; "
                        "Open a new one, and Renew during long pauses"
                    )
                raise NotFoundError(f"no session {session_id!r}: it was closed, or the server was restarted; Open one")
            lease.callers += 1
        try:
            with lease.lock:
                if session_id not in self._leases:
                    raise NotFoundError(f"session {session_id!r} was closed meanwhile")
                yield lease.session
        finally:
            with self._lock:
                lease.callers -= 1
                lease.expires_at = self._clock() + lease.seconds

    def renew(self, session_id: str) -> float:
        """Starts the lease anew, even while the session is busy; returns its seconds."""
        with self._lock:
            lease = self._leases.get(session_id)
            if lease is not None and lease.callers:
                return lease.seconds
        with self.use(session_id):
            return self._leases[session_id].seconds

    def close(self, session_id: str) -> None:
        """Ends a session, after the call it is in; unknown ids are fine."""
        with contextlib.suppress(NotFoundError, PreconditionError), self.use(session_id) as session:
            with self._lock:
                self._forget(session_id)
            session.close()

    def close_all(self) -> None:
        """Ends all sessions."""
        for session_id in list(self._leases):
            self.close(session_id)

    def expire(self) -> None:
        """Ends the sessions whose lease is over; call now and then."""
        with self._lock:
            now = self._clock()
            for session_id, lease in list(self._leases.items()):
                if not lease.callers and lease.expires_at <= now:
                    self._expire(session_id, lease)

    def _expire(self, session_id: str, lease: _Lease) -> None:
        self._forget(session_id)
        self._expired[session_id] = lease.seconds
        if len(self._expired) > _REMEMBERED:
            self._expired.popitem(last=False)
        lease.session.close()
        metrics.LEASES_EXPIRED.inc()
        log.warning("lease_expired", session=session_id, lease_s=lease.seconds, instances=len(lease.session.tasks))

    def _forget(self, session_id: str) -> None:
        lease = self._leases.pop(session_id)
        self._use(-len(lease.session.tasks))
        metrics.SESSIONS.set(len(self._leases))

    def _use(self, instances: int) -> None:
        self._used += instances
        metrics.INSTANCES.set(self._used)
