"""Who asked for what is being done: known to the thread, or task, that answers a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from services.learner.people import Person


@dataclass
class Act:
    """A request that is being answered.

    Attributes:
        person: Who asked; None while that is unknown, and where nobody has to say.
        subject: Id of what was made for it; empty for none.
    """

    person: Person | None = None
    subject: str = ""


_current: ContextVar[Act | None] = ContextVar("act", default=None)


@contextmanager
def answering(act: Act) -> Iterator[Act]:
    """Answers a request within a block."""
    token = _current.set(act)
    try:
        yield act
    finally:
        _current.reset(token)


def identified(person: Person) -> None:
    """The request's token has told who asks."""
    act = _current.get()
    if act is not None:
        act.person = person


def person() -> Person | None:
    """Who asks; None where nobody has to say."""
    act = _current.get()
    return act.person if act is not None else None


def owner() -> str | None:
    """Whose it will be, what is made here; None without names."""
    asking = person()
    return asking.name or None if asking is not None else None


def about(subject: str) -> None:
    """Says what was made, for the log of changes."""
    act = _current.get()
    if act is not None:
        act.subject = subject
