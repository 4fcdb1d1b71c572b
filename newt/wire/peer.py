"""A service as its clients see it: a name, an address, and calls that end in time and fail with errors of ours."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import grpc

from newt.errors import LostError, NewtError, UnavailableError
from newt.wire.retry import until_available
from newt.wire.status import from_rpc_error, rpc_code

T = TypeVar("T")

REMEDY = "start it, or correct the address"
# How gRPC says that there was nobody to ask.
_UNREACHABLE = re.compile(
    r"(?:(?:failed to connect to all addresses|connections to all backends failing); last error: (?:\w+: )?"
    r"(?:.*remote host: )?|(?=errors resolving|DNS resolution failed))(.*)",
    re.DOTALL,
)


class Patience(Protocol):
    """How long calls wait for a service that is away, if not until their own deadline."""

    def call(self, peer: Peer, call: Callable[[], T]) -> T:
        """The result of a call that may be repeated."""


class Peer:
    """A service at an address.

    Args:
        name: What people call it.
        address: Its address.
        remedy: What to do when nobody answers there.
        patience: Says for whom it is worth waiting longer than one call may take. None: calls wait until their
            deadline.
    """

    def __init__(self, name: str, address: str, *, remedy: str = REMEDY, patience: Patience | None = None) -> None:
        self.name, self.address, self.remedy = name, address, remedy
        self._text, self._patience = f"{name} at {address}", patience

    def __str__(self) -> str:
        return self._text

    def call(self, method: Any, request: Any, timeout_s: float) -> Any:
        """A unary call that is repeated while the service is away.

        Args:
            method: Method of a stub; harmless to repeat.
            request: Its request.
            timeout_s: Deadline: of each try if there is patience, of all together if not.

        Raises:
            UnavailableError: Nobody answered in time. The message has the address, the reason and what to do.
            NewtError: What the service says.
        """
        if self._patience is not None:
            return self._patience.call(self, lambda: self.once(method, request, timeout_s))
        deadline, last = time.monotonic() + timeout_s, ""

        def hear(error: NewtError) -> None:
            nonlocal last
            last = str(error)

        def once() -> Any:
            try:
                return method(request, timeout=max(0.0, deadline - time.monotonic()))
            except grpc.RpcError as error:
                raise self.error(error, timeout_s, last) from error

        return until_available(once, deadline, heard=hear)

    def once(self, method: Any, request: Any, timeout_s: float) -> Any:
        """A single try of a call; raises as `call`."""
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise self.error(error, timeout_s) from error

    def wait(
        self,
        call: Callable[[], T],
        timeout_s: float,
        on: tuple[type[NewtError], ...] = (UnavailableError, LostError),
    ) -> T:
        """The result of a call, repeated while the service is away or brings back what it has lost.

        Args:
            call: One try, with errors of ours and a deadline of its own.
            timeout_s: How long to go on, without patience.
            on: Errors after which it is repeated, without patience.
        """
        if self._patience is not None:
            return self._patience.call(self, call)
        return until_available(call, time.monotonic() + timeout_s, on=on)

    def error(self, error: grpc.RpcError, timeout_s: float, last: str = "") -> NewtError:
        """What a failed call stands for, with the address where the service itself did not speak.

        Args:
            error: Error of the call.
            timeout_s: Deadline that the call had.
            last: What was heard before.
        """
        if rpc_code(error) is grpc.StatusCode.DEADLINE_EXCEEDED:
            cause = f"the last answer was: {last}" if last else f"it is busy, or it is not there: {self.remedy}"
            return UnavailableError(f"{self} did not answer within {timeout_s:g} s; {cause}")
        translated = from_rpc_error(error)
        if not isinstance(translated, UnavailableError):
            return translated
        unreachable = _UNREACHABLE.fullmatch(str(translated))
        if unreachable:
            return UnavailableError(f"{self} cannot be reached ({unreachable[1]}); {self.remedy}")
        return UnavailableError(f"{self}: {translated}")
