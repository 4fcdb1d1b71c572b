"""What is wrong with a Redis, in the words of its users: one reading of its client's errors for all services."""

from __future__ import annotations

from typing import NamedTuple

import redis

# What ends by itself, or by what is done to Redis: a long script, a replica, a user without rights.
_PASSING = ("BUSY", "NOREPLICAS")
_PASSING_ERRORS = (redis.ReadOnlyError, redis.exceptions.NoPermissionError, redis.exceptions.MasterDownError)


class Trouble(NamedTuple):
    """Why Redis did not do something.

    Attributes:
        reason: One word, as a metric's label: full, disk, auth, loading, timeout, unreachable, refused,
            corrupt or other.
        text: What is the matter and what to do.
    """

    reason: str
    text: str


def trouble(error: redis.RedisError, where: str, settings: str) -> Trouble:
    """Reads an error of the client.

    Args:
        error: The error; also one that a script met half-way: Redis then puts its word somewhere into the text, and
            the client knows no class for it.
        where: What Redis is called, for people.
        settings: Prefix of the service's settings: NEWT_REPLAY_, for example.
    """
    text = str(error)
    if isinstance(error, redis.OutOfMemoryError) or "OOM " in text:
        return Trouble("full", f"{where} is full (maxmemory)")
    if "MISCONF" in text:
        return Trouble("disk", f"{where} cannot write to disk: {text}; free space, then retry")
    if isinstance(error, redis.AuthenticationError):
        return Trouble(
            "auth",
            f"{where} refuses our password ({text}); check {settings}REDIS_URL and NEWT_REDIS_PASSWORD_FILE",
        )
    if isinstance(error, redis.BusyLoadingError) or "LOADING" in text:
        return Trouble("loading", f"{where} is loading its data; retry")
    if isinstance(error, redis.TimeoutError):
        return Trouble("timeout", f"{where} does not answer in time ({text}); retry, nothing stored is lost")
    if isinstance(error, redis.ConnectionError):
        return Trouble(
            "unreachable", f"{where} cannot be reached ({text}); start it or check {settings}REDIS_URL, then retry"
        )
    if isinstance(error, _PASSING_ERRORS) or text.startswith(_PASSING):
        return Trouble("refused", f"{where} cannot do it now ({text[:300]}); retry")
    if "WRONGTYPE" in text:
        return Trouble("corrupt", f"{where} holds something else under a key of ours: {text}")
    return Trouble("other", f"{where} answers: {text}")
