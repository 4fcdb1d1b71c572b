"""The table of domains: which module runs which tasks.

Reading the table imports no simulator. A worker imports a domain's module when it builds its first instance.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from typing import cast

from newt.errors import NotFoundError, PreconditionError
from newt.tasks import domains as registered
from newt.tasks.domains import Domain, how_to_install
from newt.tasks.registry import Task, table_tasks
from services.sim.domains.base import SimEnv

NOOP = Domain("noop", "Nothing", "sim", (), light=True)
"""Simulates nothing: it exists for tests and benchmarks, its tasks are not registered, and it must be asked for."""

OWN = Domain("own", "Own tasks", "sim", ("gymnasium",))
"""Tasks of somebody else's, from the sources in the settings."""

DOMAINS: dict[str, Domain] = {**registered.DOMAINS, NOOP.name: NOOP, OWN.name: OWN}
"""Every domain by name."""

MODULES: dict[str, str] = {
    "dmcontrol": "services.sim.domains.dmcontrol",
    "dmcontrol-ext": "services.sim.domains.dmcontrol_extended",
    "metaworld": "services.sim.domains.metaworld",
    "maniskill": "services.sim.domains.maniskill",
    "mujoco": "services.sim.domains.mujoco",
    "box2d": "services.sim.domains.box2d",
    "robodesk": "services.sim.domains.robodesk",
    "ogbench": "services.sim.domains.ogbench",
    "miniarcade": "services.sim.domains.miniarcade",
    "atari": "services.sim.domains.atari",
    "noop": "services.sim.domains.noop",
    "own": "services.sim.domains.own",
}
"""Every domain's module: it has `make(task, rendering) -> SimEnv`. `noop` also has `TASKS`, `own` finds them out."""


class Catalogue:
    """The tasks that a server hosts.

    Args:
        domains: Names of the enabled domains.
        sources: Where tasks of somebody else's come from, which are of the domain `own`.

    Raises:
        NotFoundError: A domain that does not exist.
        InvalidInputError: A source that cannot be used; says what to do.
        PreconditionError: A domain whose packages are not installed; says how to install them.
    """

    def __init__(self, domains: Iterable[str], sources: Sequence[str] = ()) -> None:
        self.domains: list[str] = []
        if sources:
            domains = [*domains, OWN.name]
        for name in dict.fromkeys(domains):
            if name not in DOMAINS:
                raise NotFoundError(f"no domain {name!r}; known are {', '.join(DOMAINS)}")
            missing = DOMAINS[name].missing_packages()
            if missing:
                raise PreconditionError(
                    f"domain {name} needs {', '.join(missing)}: {how_to_install([name])}, or leave the domain out of "
                    "NEWT_SIM_DOMAINS"
                )
            self.domains.append(name)
        self.tasks: dict[str, Task] = {
            task.name: task for task in table_tasks().values() if task.domain in self.domains
        }
        own: list[Task] = []
        if NOOP.name in self.domains:
            own += importlib.import_module(MODULES[NOOP.name]).TASKS
        if OWN.name in self.domains:
            if not sources:
                raise PreconditionError("domain own has no tasks: name where they come from in NEWT_SIM_SOURCES")
            own += importlib.import_module(MODULES[OWN.name]).described(sources)
        self.tasks.update({task.name: task for task in own})

    def get(self, name: str) -> Task:
        """The task of this name.

        Raises:
            NotFoundError: It is not hosted here; names close ones.
        """
        task = self.tasks.get(name)
        if task is None:
            close = difflib.get_close_matches(name, self.tasks, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else "Describe lists the tasks."
            raise NotFoundError(f"no task {name!r} on this server (domains {', '.join(self.domains)}); {hint}")
        return task


def make(domain: str, task: str, rendering: bool) -> SimEnv:
    """Builds one instance; imports the domain's packages on first use.

    Args:
        domain: Domain of the task.
        task: Task name.
        rendering: Whether frames will be wanted: a missing driver is then an error now, not at the first frame.
    """
    return cast(SimEnv, importlib.import_module(MODULES[domain]).make(task, rendering))
