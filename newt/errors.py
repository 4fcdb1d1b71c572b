"""The few errors of Newt. Each maps to one gRPC status code and one HTTP status (see newt.wire.status).

A message says what was got, what was expected and what to do. Services raise these; the interceptor translates.
"""

from __future__ import annotations


class NewtError(Exception):
    """Base of all errors that are meant for the caller."""


class InvalidInputError(NewtError):
    """A request that can never succeed: wrong dtype, shape, range, NaN, or an unknown option.

    Attributes:
        field: Name of the offending field, as in the proto or the schema.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class NotFoundError(NewtError):
    """An unknown session, task, run, buffer or model."""


class AlreadyExistsError(NewtError):
    """An id that is in use for something else."""


class PreconditionError(NewtError):
    """Somebody has to fix a state first: step before reset, expired lease, other configuration."""


class LaterVersionError(PreconditionError):
    """Something was stored by a later version of Newt in a way that this one would misread: it is left as it is.

    Args:
        what: What was stored, as the subject of a sentence.
        got: Number of its schema.
        known: Highest number that this version reads.
    """

    def __init__(self, what: str, got: int, known: int) -> None:
        super().__init__(
            f"{what} was stored by a later version of Newt (schema {got}, this version reads up to {known}): "
            "update Newt; until then it is left as it is"
        )


class LostError(NewtError):
    """Work was lost and cannot be recovered inside the call: start the episode again."""


class ForbiddenError(NewtError):
    """The caller may not do this; the message says who may."""


class ExhaustedError(NewtError):
    """A limit is reached; the message names the limit and its size."""


class TooLargeError(ExhaustedError):
    """A request is larger than what is taken; the message names the limit."""


class UnavailableError(NewtError):
    """Warming up, draining, or a dependency is down: retry this very call."""


class CorruptDataError(NewtError):
    """Stored or received bytes do not match their checksum or format."""
