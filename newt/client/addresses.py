"""Where simulators are, for people's own code: said by the caller, or in the environment.

NEWT_SIM=127.0.0.1:50051                                  one service for everything
NEWT_SIM=dmcontrol=lab1:50051,metaworld=lab2:50052        one for each domain
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from newt.errors import InvalidInputError
from newt.tasks.registry import UnknownTaskError, get_task

VARIABLE = "NEWT_SIM"


def sim_address(address: str | None, tasks: Sequence[str]) -> str:
    """The simulator service that hosts some tasks.

    Args:
        address: As the caller says; None: what the environment says.
        tasks: Names of the tasks; they share a service.

    Raises:
        InvalidInputError: Nobody says it, or the environment names none for the tasks.
    """
    said = address or os.environ.get(VARIABLE, "")
    if not said:
        raise InvalidInputError(
            "address", f'got none; say address="host:port", or set {VARIABLE} (`newt status` lists the simulators)'
        )
    if "=" not in said:
        return said
    by_domain = dict(part.strip().split("=", 1) for part in said.split(",") if "=" in part)
    domains = {name: _domain(name) for name in tasks}
    found = {by_domain.get(domain) for domain in domains.values()}
    if len(found) != 1 or None in found:
        raise InvalidInputError(
            VARIABLE,
            f"got services for {', '.join(by_domain)}, expected one service for the domains of all tasks "
            f"({', '.join(f'{name}: {domain}' for name, domain in domains.items())})",
        )
    (one,) = found
    assert one is not None
    return one


def _domain(task: str) -> str:
    try:
        return get_task(task).domain
    except UnknownTaskError:  # Somebody's own: its simulator is known by a name of theirs, often the task's.
        return task
