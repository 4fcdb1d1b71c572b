"""Records that cannot be read: one never keeps the others from being read, is shown with its reason, can be deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog
from pydantic import ValidationError

from newt.errors import LaterVersionError, NotFoundError, PreconditionError, UnavailableError
from newt.runs.base import BrokenRecord
from services.learner import metrics

R = TypeVar("R")

log = structlog.get_logger(__name__)

MAX_REASON = 300
_REMEDIES: dict[str, str] = {
    "run": "DELETE /runs/{id}",
    "evaluation": "DELETE /evaluations/{id}",
    "demonstrations": "DELETE /demos/{id}",
}


class BrokenRecordError(PreconditionError):
    """A stored record cannot be read; somebody must delete it.

    Attributes:
        record: Which, and why.
    """

    def __init__(self, record: BrokenRecord) -> None:
        super().__init__(record.error)
        self.record = record


@dataclass(frozen=True)
class Listing(Generic[R]):
    """All records of one kind.

    Attributes:
        records: Those that can be read, oldest first.
        broken: The others.
    """

    records: list[R] = field(default_factory=list)
    broken: list[BrokenRecord] = field(default_factory=list)


class BrokenRecords:
    """The records that were found broken, by kind: for /readyz and the metrics."""

    def __init__(self) -> None:
        self._found: dict[str, list[BrokenRecord]] = {}

    def show(self, kind: str, found: list[BrokenRecord]) -> None:
        """Replaces what is known of a kind."""
        for record in found:
            if record not in self._found.get(kind, []):
                log.error("record_broken", kind=kind, id=record.id, error=record.error)
        self._found = {**self._found, kind: found}
        metrics.BROKEN_RECORDS.labels(kind).set(len(found))

    def forget(self, kind: str, record_id: str) -> None:
        """One has been deleted."""
        if any(record.id == record_id for record in self._found.get(kind, [])):
            self.show(kind, [record for record in self._found[kind] if record.id != record_id])

    def all(self) -> list[BrokenRecord]:
        """All of them."""
        return [record for found in self._found.values() for record in found]


@contextmanager
def decoding(kind: str, record_id: str) -> Iterator[None]:
    """Makes a BrokenRecordError of whatever stored garbage leads to."""
    try:
        yield
    except (UnavailableError, NotFoundError, BrokenRecordError):
        raise
    except LaterVersionError as error:
        raise BrokenRecordError(
            BrokenRecord(kind=kind, id=record_id, error=f"{kind} {record_id!r}: {error}")
        ) from error
    except Exception as error:
        remedy = f"; {_REMEDIES[kind].format(id=record_id)} removes it" if kind in _REMEDIES else ""
        message = f"the record of {kind} {record_id!r} cannot be read ({reason(error)}){remedy}"
        raise BrokenRecordError(BrokenRecord(kind=kind, id=record_id, error=message)) from error


def reason(error: BaseException) -> str:
    """What is wrong, in few words: garbage is not repeated at length."""
    if isinstance(error, ValidationError):
        place, message = first_problem(error)
        text = f"{place}: {message}" if place else message
    elif isinstance(error, KeyError):
        text = f"{error.args[0]} is missing"
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    text = " ".join(text.split())
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


def first_problem(error: ValidationError) -> tuple[str, str]:
    """The first field that is wrong, and how."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"])[:MAX_REASON], first["msg"].removeprefix("Value error, ")
