"""Who may call what: with mutual TLS, the names in a caller's certificate decide (docs/security.md).

A certificate of one component has that component's name, whichever others it has besides. One that has the names of
all components may therefore do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import grpc
import structlog

from newt.errors import ForbiddenError

LEARNER, PLANNER, CLIENT = "learner", "planner", "client"
# A program of somebody's own, which brings no component's name: a robot, a training loop, the command line.
_LEARNER, _LEARNER_OR_CLIENT = frozenset({LEARNER}), frozenset({LEARNER, CLIENT})
CALLERS: dict[str, dict[str, frozenset[str]]] = {
    "newt.v1.WeightsService": {
        "Publish": _LEARNER,
        "Copy": _LEARNER,
        "Retire": _LEARNER,
        "Subscribe": frozenset({LEARNER, PLANNER}),
    },
    "newt.v1.ReplayService": dict.fromkeys(
        (
            "CreateBuffer",
            "DeleteBuffer",
            "Append",
            "AwaitInsert",
            "AwaitSample",
            "Sample",
            "GetBuffer",
            "ListDemoSets",
            "DeleteDemoSet",
            "ReadEpisodes",
        ),
        _LEARNER,
    ),
    "newt.v1.PlannerService": dict.fromkeys(("Plan", "ListModels"), _LEARNER_OR_CLIENT),
    "newt.v1.SimService": dict.fromkeys(
        ("Describe", "Open", "Reset", "Step", "StepStream", "Render", "Renew", "Close"), _LEARNER_OR_CLIENT
    ),
}
"""By service and method: one of these names must be in the caller's certificate. Whoever has any certificate of the
authority may use what is not of ours: health and reflection."""

_OURS = "newt."
# Refusals that are remembered to have been logged: one line for each kind of caller, not for each try.
_MAX_TOLD = 256

log = structlog.get_logger(__name__)


def allowed(method: str) -> Collection[str] | None:
    """Names of which a caller needs one; None if any will do, nothing if nobody may call it.

    Args:
        method: Full path, `/newt.v1.WeightsService/Publish`.
    """
    service, _, name = method.lstrip("/").partition("/")
    if not service.startswith(_OURS):
        return None
    return CALLERS.get(service, {}).get(name, ())


class Doorkeeper:
    """Turns away who may not call a method, and logs each kind of caller once."""

    def __init__(self) -> None:
        self._told: set[tuple[str, tuple[str, ...]]] = set()

    def guarded(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        """A method's behaviour for those alone who may call it.

        Args:
            method: Full path of the method.
            behaviour: Takes what comes, request or requests, and the context.
        """
        names = allowed(method)
        if names is None:
            return behaviour

        def admitted(request: Any, context: grpc.ServicerContext) -> Any:
            self._require(method, names, context)
            return behaviour(request, context)

        return admitted

    def _require(self, method: str, names: Collection[str], context: grpc.ServicerContext) -> None:
        """Raises ForbiddenError."""
        # All names of it as bytes, where the stubs say that there is one.
        certificate: Any = context.auth_context().get("x509_subject_alternative_name", ())
        shown = [name.decode(errors="replace") for name in certificate]
        if any(name in names for name in shown):
            return
        what, key = method.lstrip("/"), (method, tuple(shown))
        if key not in self._told and len(self._told) < _MAX_TOLD:
            self._told.add(key)
            log.warning("caller_refused", method=what, peer=context.peer(), certificate=shown)
        raise ForbiddenError(
            f"{what} is for certificates with the name {' or '.join(sorted(names)) or '(none)'}; the caller's has "
            f"{', '.join(shown) or 'no name'} (docs/security.md says how to make one)"
        )
