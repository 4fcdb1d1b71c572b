"""The ten domains of MMBench and which of them this version can simulate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol


@dataclass(frozen=True)
class Domain:
    """A group of tasks that share a simulator.

    Attributes:
        name: the value of `Task.domain`.
        title: the name people use.
        service: the sim service (and the package extra of the same name) which runs it.
        simulator: the library below.
    """

    name: str
    title: str
    service: str
    simulator: str


DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {
        domain.name: domain
        for domain in (
            Domain("dmcontrol", "DMControl", "sim-dmcontrol", "dm_control"),
            Domain("dmcontrol-ext", "DMControl extended", "sim-dmcontrol", "dm_control"),
            Domain("metaworld", "Meta-World", "sim-metaworld", "metaworld"),
            Domain("maniskill", "ManiSkill3", "sim-maniskill", "mani_skill"),
            Domain("mujoco", "MuJoCo", "sim-mujoco", "gymnasium"),
            Domain("box2d", "Box2D", "sim-box2d", "Box2D"),
            Domain("robodesk", "RoboDesk", "sim-robodesk", "robodesk"),
            Domain("ogbench", "OGBench", "sim-ogbench", "ogbench"),
            Domain("miniarcade", "MiniArcade", "sim-miniarcade", "pygame"),
            Domain("atari", "Atari", "sim-atari", "ale-py"),
        )
    }
)
"""Every domain by name, in the order of the official task list."""

IMPLEMENTED_DOMAINS: frozenset[str] = frozenset(
    {
        "dmcontrol",
        "dmcontrol-ext",
        "metaworld",
        "miniarcade",
        "mujoco",
    }
)
"""Domains that have a simulator in this version. The other tasks are registered, but cannot be run yet."""


class HasDomain(Protocol):
    """What the check below needs to know of a task."""

    @property
    def name(self) -> str:
        """Task name."""

    @property
    def domain(self) -> str:
        """Domain name."""


class DomainNotImplementedError(ValueError):
    """Tasks were asked for whose simulator this version does not have.

    Attributes:
        tasks: the names of the tasks which cannot be run.
        domains: their domains, sorted.
    """

    def __init__(self, tasks: Iterable[HasDomain]) -> None:
        missing = list(tasks)
        self.tasks = tuple(task.name for task in missing)
        self.domains = tuple(sorted({task.domain for task in missing}))
        shown = ", ".join(self.tasks[:5]) + (f" and {len(self.tasks) - 5} more" if len(self.tasks) > 5 else "")
        super().__init__(
            f"no simulator yet for {', '.join(self.domains)} (needed by {shown}); this version simulates "
            f"{', '.join(sorted(IMPLEMENTED_DOMAINS))}: leave these tasks out"
        )


def check_implemented(tasks: Iterable[HasDomain]) -> None:
    """Refuse tasks whose simulator this version does not have.

    Raises:
        DomainNotImplementedError: names the tasks, their domains and the domains which can be simulated.
    """
    missing = [task for task in tasks if task.domain not in IMPLEMENTED_DOMAINS]
    if missing:
        raise DomainNotImplementedError(missing)
