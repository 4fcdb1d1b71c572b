"""Dynamic batching: requests wait in a queue until enough rows, or enough time, have come together."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from newt.errors import ExhaustedError, UnavailableError

K = TypeVar("K", bound="HasModel")
P = TypeVar("P")
R = TypeVar("R")

_MAX_KNOWN_KEYS = 1000
SHUTTING_DOWN = "the planner is shutting down; ask another replica"


class HasModel(Hashable, Protocol):
    """What tickets of one batch have in common."""

    @property
    def model_id(self) -> str:
        """Who plans."""


@dataclass(eq=False)
class Ticket(Generic[K, P, R]):
    """One request in the queue.

    Attributes:
        key: Only tickets of equal keys ride together.
        rows: Number of rows, at least 1.
        payload: What the executor needs.
        deadline: Time on the monotonic clock; afterwards nobody waits for the result.
        future: Gets the result.
        queued_at: When it entered the queue, on the monotonic clock.
    """

    key: K
    rows: int
    payload: P
    deadline: float
    future: Future[R] = field(default_factory=Future)
    queued_at: float = field(default_factory=time.monotonic)


class BatchQueue(Generic[K, P, R]):
    """Tickets in, batches of tickets with one key out.

    A batch is due when its tickets have `max_rows` rows together, when the first of them has waited `max_wait_s`, or
    when all the company is there that was met lately: a caller that is alone waits the first time, and then no more.
    Of several batches that are due, the one whose first ticket is oldest goes first. Order within a key is kept.
    A single ticket of more than `max_rows` rows makes a batch of its own.

    Args:
        max_rows: Rows of one batch.
        max_wait_s: How long the first ticket waits for company.
        max_queued_rows: Rows that may wait in all.
    """

    def __init__(self, max_rows: int, max_wait_s: float, max_queued_rows: int) -> None:
        self._max_rows = max_rows
        self._max_wait_s = max_wait_s
        self._max_queued_rows = max_queued_rows
        self._changed = threading.Condition()
        # Tickets of a key in order of arrival; a dict as an ordered set, so that any can leave early.
        self._waiting: dict[K, OrderedDict[Ticket[K, P, R], None]] = {}
        self._rows: dict[K, int] = {}
        # Tickets without an answer, and the most of them at once since a batch of the key was taken.
        self._under_way: Counter[K] = Counter()
        self._company: dict[K, int] = {}
        self._closed = False

    @property
    def queued_rows(self) -> int:
        """Rows waiting now."""
        with self._changed:
            return sum(self._rows.values())

    def put(self, ticket: Ticket[K, P, R]) -> None:
        """Adds a ticket; its future is resolved by whoever takes the batch, or cancelled by `discard`.

        Raises:
            ExhaustedError: The queue is full.
            UnavailableError: The queue is closed.
        """
        with self._changed:
            if self._closed:
                raise UnavailableError(SHUTTING_DOWN)
            waiting = sum(self._rows.values())
            if waiting + ticket.rows > self._max_queued_rows:
                raise ExhaustedError(
                    f"max_queued_rows: {waiting} of {self._max_queued_rows} rows are waiting, no room for "
                    f"{ticket.rows} more; slow down, or add planner replicas"
                )
            self._waiting.setdefault(ticket.key, OrderedDict())[ticket] = None
            self._rows[ticket.key] = self._rows.get(ticket.key, 0) + ticket.rows
            self._under_way[ticket.key] += 1
            if ticket.key in self._company:
                self._company[ticket.key] = max(self._company[ticket.key], self._under_way[ticket.key])
            self._changed.notify()
        ticket.future.add_done_callback(lambda _: self._answered(ticket.key))

    def discard(self, ticket: Ticket[K, P, R]) -> bool:
        """Cancels a ticket that still waits; its rows are free at once. False if it waits no longer."""
        with self._changed:
            if ticket not in self._waiting.get(ticket.key, ()):
                return False
            self._remove(ticket)
        ticket.future.cancel()
        return True

    @property
    def closed(self) -> bool:
        """Whether the queue was closed."""
        return self._closed

    def take(self, *, wait: bool = True, besides: Collection[str] = ()) -> list[Ticket[K, P, R]] | None:
        """The next batch. One thread takes.

        Args:
            wait: Whether to wait until a batch is due; False: only one that is due now.
            besides: Models that have no turn now.

        Returns:
            The batch; None if none is due now, or once the queue is closed.
        """
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                self._drop_expired(now)
                keys = [key for key in self._waiting if key.model_id not in besides]
                due = [key for key in keys if self._due_at(key) <= now]
                if due:
                    return self._pop(min(due, key=self._first_queued_at))
                if not wait:
                    return None
                next_due = min((self._due_at(key) for key in keys), default=None)
                self._changed.wait(None if next_due is None else next_due - now)
            return None

    def close(self) -> None:
        """Refuses new tickets, fails the waiting ones and ends `take`."""
        with self._changed:
            self._closed = True
            left = [ticket for tickets in self._waiting.values() for ticket in tickets]
            self._waiting.clear()
            self._rows.clear()
            self._changed.notify_all()
        for ticket in left:
            ticket.future.set_exception(UnavailableError(SHUTTING_DOWN))

    def _first_queued_at(self, key: K) -> float:
        return next(iter(self._waiting[key])).queued_at

    def _due_at(self, key: K) -> float:
        complete = len(self._waiting[key]) >= self._company.get(key, self._max_rows)
        return 0.0 if complete or self._rows[key] >= self._max_rows else self._first_queued_at(key) + self._max_wait_s

    def _answered(self, key: K) -> None:
        with self._changed:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]

    def _pop(self, key: K) -> list[Ticket[K, P, R]]:
        batch: list[Ticket[K, P, R]] = []
        rows = 0
        for ticket in list(self._waiting[key]):
            if batch and rows + ticket.rows > self._max_rows:
                break
            batch.append(ticket)
            rows += ticket.rows
        for ticket in batch:
            self._remove(ticket)
        if len(self._company) >= _MAX_KNOWN_KEYS:
            self._company.clear()
        self._company[key] = self._under_way[key]
        return batch

    def _remove(self, ticket: Ticket[K, P, R]) -> None:
        del self._waiting[ticket.key][ticket]
        self._rows[ticket.key] -= ticket.rows
        if not self._waiting[ticket.key]:
            del self._waiting[ticket.key], self._rows[ticket.key]

    def _drop_expired(self, now: float) -> None:
        for tickets in list(self._waiting.values()):
            for ticket in [t for t in tickets if t.deadline <= now]:
                self._remove(ticket)
                ticket.future.cancel()
