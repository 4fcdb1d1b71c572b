"""Tasks that are not ours: Gymnasium environments with a declaration (newt.own), from anywhere.

NEWT_SIM_SOURCES names where they come from. Their code runs in the workers, and in the process that finds out their
facts when the service starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cache

from newt.errors import PreconditionError
from newt.own import OwnTask
from newt.own.sources import declared
from newt.tasks.registry import Task
from services.sim.domains.base import SimEnv

SOURCES_VARIABLE = "NEWT_SIM_SOURCES"
"""Environment variable that tells a worker where tasks come from, as JSON. Also the server's own setting."""


def described(sources: Iterable[str]) -> list[Task]:
    """The tasks of some sources.

    Raises:
        InvalidInputError: One cannot be used; says why and what to do.
        PreconditionError: Two declare the same name.
    """
    found: dict[str, str] = {}
    tasks = []
    for source in sources:
        for task in declared(source):
            if task.name in found:
                raise PreconditionError(f"{found[task.name]} and {source} declare {task.name!r}; give one another name")
            found[task.name] = source
            tasks.append(task)
    return tasks


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance."""
    from services.sim.domains.own.adapter import OwnEnv  # in workers alone

    return OwnEnv(_own_tasks()[task])


@cache
def _own_tasks() -> dict[str, OwnTask]:
    from services.sim.domains.own.sources import load

    return {own.name: own for source in json.loads(os.environ[SOURCES_VARIABLE]) for own in load(source)}
