"""The people whose tokens the REST API takes: a TOML file with a table for each, read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import ConfigDict, Field, SecretStr, ValidationError

from newt.runs.base import BrokenRecord, Record, problems_of
from newt.runs.people import Quotas, Role
from newt.security import TOKEN_EXPECTED, SecurityError, is_token
from services.learner.records.broken import BrokenRecords

FILE = "NEWT_API_TOKENS_FILE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HOLDS = "the file was changed and cannot be used: what it said before holds; the learner's log has the reason"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Person:
    """Somebody who may ask for something.

    Attributes:
        name: Empty for whoever has the one token that has no name.
        role: What they may do.
        quotas: How much of it.
    """

    name: str
    role: Role
    quotas: Quotas = field(default_factory=Quotas)


ANYBODY = Person("", Role.OPERATOR)


class _Entry(Record):
    """What the file says of somebody."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    role: Role
    token: SecretStr | None = None
    token_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    quotas: Quotas = Quotas()

    def digest(self) -> bytes:
        """SHA-256 of the token. Raises ValueError."""
        if (self.token is None) == (self.token_sha256 is None):
            raise ValueError("give either token or token_sha256")
        if self.token_sha256 is not None:
            return bytes.fromhex(self.token_sha256)
        assert self.token is not None
        if not is_token(self.token):
            raise ValueError(f"token has {len(self.token)} characters; {TOKEN_EXPECTED}")
        return hashlib.sha256(self.token.get_secret_value().encode()).digest()


def read_people(path: Path) -> dict[bytes, Person]:
    """Reads a file of people; the messages of errors repeat no token.

    Returns:
        By SHA-256 of their tokens, which say nothing about tokens that cannot be guessed.

    Raises:
        SecurityError: It cannot be read, or says something that makes no sense.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SecurityError(f"{FILE}: cannot read {path}: {reason}") from None
    except tomllib.TOMLDecodeError as error:
        raise SecurityError(f"{FILE}: {path} is not TOML: {error}") from None
    if not content:
        raise SecurityError(f"{FILE}: {path} names nobody; expected a table for each person, as docs/security.md shows")
    found: dict[bytes, Person] = {}
    for name, table in content.items():
        where = f"{FILE}: {path}: {name[:80]!r}"
        if not isinstance(table, dict):
            raise SecurityError(f"{where} is no table; expected [NAME] with role and token or token_sha256 below it")
        if not _NAME.fullmatch(name):
            raise SecurityError(f"{where}: expected a name of 1 to 64 letters, digits, dots, _, @ and -")
        try:
            entry = _Entry.model_validate(table)
            digest = entry.digest()
        except ValidationError as error:
            raise SecurityError(f"{where}: {problems_of(error)}") from None
        except ValueError as error:
            raise SecurityError(f"{where}: {error}") from None
        if digest in found:
            raise SecurityError(f"{where} has the token of {found[digest].name!r}; each needs one of their own")
        found[digest] = Person(name, entry.role, entry.quotas)
    return found


class People:
    """Those of a file, as it is now; while it cannot be used, as it was when it could last.

    Args:
        path: The file.
        broken: Is told when the file cannot be used any more, and when it can again. Everybody may see it (/readyz), so
            that the reason, which may have names in it, is in the log alone.

    Raises:
        SecurityError: The file cannot be used.
    """

    def __init__(self, path: Path, broken: BrokenRecords) -> None:
        self._path, self._broken = path, broken
        self._mark = _mark(path)
        self._people = read_people(path)

    def refresh(self) -> None:
        """Reads the file again if it has changed."""
        mark = _mark(self._path)
        if mark == self._mark:
            return
        self._mark = mark
        try:
            self._people = read_people(self._path)
        except SecurityError as error:
            log.error("people_not_read", error=str(error))
            self._broken.show("people", [BrokenRecord(kind="people", id=FILE, error=_HOLDS)])
            return
        log.info("people_read", people=len(self._people))
        self._broken.show("people", [])

    def find(self, token: str) -> Person | None:
        """Whose token this is."""
        given, found = hashlib.sha256(token.encode()).digest(), None
        for digest, person in self._people.items():  # all of them, each in constant time
            if hmac.compare_digest(given, digest):
                found = person
        return found


def _mark(path: Path) -> tuple[int, ...]:
    """What changes with a file: also when a link is led to another one, as Kubernetes does."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
