"""The table of domains: which module runs which tasks, and what must be installed for it.

Reading the table imports no simulator. A worker imports a domain's module when it builds its first instance.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

from newt.errors import NotFoundError, PreconditionError
from newt.tasks.registry import all_tasks
from newt.wire.v1 import sim_pb2
from services.sim.domains.base import SimEnv


@dataclass(frozen=True)
class Domain:
    """One plug-in.

    Attributes:
        name: As in the task registry.
        module: Has `make(task, rendering) -> SimEnv`; a domain outside the registry also has `TASKS`.
        packages: Import names that must be present.
        extra: The extra of this distribution which installs them.
        registered: Whether the registry lists its tasks.
        light: Whether a step without a frame takes microseconds, so that waking another worker costs more than the
            step itself.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    extra: str
    registered: bool = True
    light: bool = False

    def missing_packages(self) -> list[str]:
        """Which of its packages are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain("atari", "services.sim.domains.atari", ("ale_py", "gymnasium"), "sim-atari"),
        Domain("dmcontrol", "services.sim.domains.dmcontrol", ("dm_control", "PIL"), "sim-dmcontrol"),
        Domain("dmcontrol-ext", "services.sim.domains.dmcontrol_extended", ("dm_control", "PIL"), "sim-dmcontrol"),
        Domain("maniskill", "services.sim.domains.maniskill", ("mani_skill", "sapien"), "sim-maniskill"),
        Domain("metaworld", "services.sim.domains.metaworld", ("metaworld", "PIL"), "sim-metaworld"),
        Domain("mujoco", "services.sim.domains.mujoco", ("gymnasium", "mujoco", "PIL"), "sim-mujoco"),
        Domain("miniarcade", "services.sim.domains.miniarcade", ("pygame",), "sim-miniarcade", light=True),
        Domain("box2d", "services.sim.domains.box2d", ("Box2D", "pygame", "PIL"), "sim-box2d"),
        Domain("robodesk", "services.sim.domains.robodesk", ("robodesk", "PIL"), "sim-robodesk"),
        Domain("ogbench", "services.sim.domains.ogbench", ("ogbench", "mujoco", "PIL"), "sim-ogbench"),
        Domain("noop", "services.sim.domains.noop", (), "sim", registered=False, light=True),
    )
}
"""Every domain by name. `noop` simulates nothing: it exists for tests and benchmarks and must be asked for."""


def installed_domains() -> list[str]:
    """The domains with real tasks whose packages are present."""
    return [domain.name for domain in DOMAINS.values() if domain.registered and not domain.missing_packages()]


class Catalogue:
    """The tasks that a server hosts.

    Args:
        domains: Names of the enabled domains.

    Raises:
        NotFoundError: A domain that does not exist.
        PreconditionError: A domain whose packages are not installed; says how to install them.
    """

    def __init__(self, domains: Iterable[str]) -> None:
        self.domains: list[str] = []
        for name in dict.fromkeys(domains):
            if name not in DOMAINS:
                raise NotFoundError(f"no domain {name!r}; known are {', '.join(DOMAINS)}")
            missing = DOMAINS[name].missing_packages()
            if missing:
                raise PreconditionError(
                    f"domain {name} needs {', '.join(missing)}: install newt[{DOMAINS[name].extra}], or leave the "
                    "domain out of NEWT_SIM_DOMAINS"
                )
            self.domains.append(name)
        self.tasks: dict[str, sim_pb2.SimTask] = {}
        for task in all_tasks():
            if task.domain in self.domains:
                self.tasks[task.name] = sim_pb2.SimTask(
                    name=task.name,
                    domain=task.domain,
                    obs_dim=task.obs_dim,
                    action_dim=task.action_dim,
                    episode_length=task.episode_length,
                    action_repeat=task.action_repeat,
                    has_success=task.has_success,
                    has_expert=task.has_expert,
                )
        for name in self.domains:
            if not DOMAINS[name].registered:
                own = cast(Sequence[sim_pb2.SimTask], importlib.import_module(DOMAINS[name].module).TASKS)
                self.tasks.update({task.name: task for task in own})

    def get(self, name: str) -> sim_pb2.SimTask:
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
    return cast(SimEnv, importlib.import_module(DOMAINS[domain].module).make(task, rendering))
