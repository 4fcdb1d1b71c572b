"""The ten domains of MMBench: what runs their tasks, and what must be installed for it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType


@dataclass(frozen=True)
class Domain:
    """A group of tasks that share a simulator.

    Attributes:
        name: The value of `Task.domain`.
        title: The name people use.
        service: The simulator service which runs it, and the extra of this distribution which installs it.
        packages: Import names that must be present.
        light: Whether a step without a frame takes microseconds, so that waking another worker costs more than the
            step itself.
    """

    name: str
    title: str
    service: str
    packages: tuple[str, ...]
    light: bool = False

    def missing_packages(self) -> list[str]:
        """Which of its packages are not installed."""
        return [package for package in self.packages if find_spec(package) is None]


# On this Python some want packages without wheels, which none of our tasks needs. An extra of ours leaves those out
# there that want them; what else they want is in it (pyproject.toml, and the Makefile for all of them).
_WITHOUT_WHEELS = (3, 13)
_ALONE = {
    "sim-dmcontrol": ("dm_control==1.0.34",),
    "sim-maniskill": ("mani_skill==3.0.1",),
    "sim-ogbench": ("dm_control==1.0.34", "ogbench==1.2.2"),
    "sim-robodesk": ("dm_control==1.0.34", "robodesk==1.0.0"),
}

DOMAINS: Mapping[str, Domain] = MappingProxyType(
    {
        domain.name: domain
        for domain in (
            Domain("dmcontrol", "DMControl", "sim-dmcontrol", ("dm_control", "PIL")),
            Domain("dmcontrol-ext", "DMControl extended", "sim-dmcontrol", ("dm_control", "PIL")),
            Domain("metaworld", "Meta-World", "sim-metaworld", ("metaworld", "PIL")),
            Domain("maniskill", "ManiSkill3", "sim-maniskill", ("mani_skill", "sapien")),
            Domain("mujoco", "MuJoCo", "sim-mujoco", ("gymnasium", "mujoco", "PIL")),
            Domain("box2d", "Box2D", "sim-box2d", ("Box2D", "pygame", "PIL")),
            Domain("robodesk", "RoboDesk", "sim-robodesk", ("robodesk", "PIL")),
            Domain("ogbench", "OGBench", "sim-ogbench", ("ogbench", "mujoco", "PIL")),
            Domain("miniarcade", "MiniArcade", "sim-miniarcade", ("pygame",), light=True),
            Domain("atari", "Atari", "sim-atari", ("ale_py", "gymnasium")),
        )
    }
)
"""Every domain by name, in the order of the official task list."""


def installed_domains() -> list[str]:
    """The domains whose packages are present, in order."""
    return [domain.name for domain in DOMAINS.values() if not domain.missing_packages()]


def how_to_install(names: Iterable[str], python: tuple[int, ...] = sys.version_info[:2]) -> str:
    """What brings the packages of some domains, as the end of a sentence.

    >>> how_to_install(["mujoco"])
    'install newt[sim-mujoco]'
    >>> how_to_install(["robodesk"], (3, 13))
    'install newt[sim-robodesk], then: pip install --no-deps dm_control==1.0.34 robodesk==1.0.0'
    """
    extras = dict.fromkeys(DOMAINS[name].service for name in names)
    text = f"install newt[{','.join(extras)}]"
    if python < _WITHOUT_WHEELS:
        return text
    alone = dict.fromkeys(word for extra in extras for word in _ALONE.get(extra, ()))
    return f"{text}, then: pip install --no-deps {' '.join(alone)}" if alone else text
