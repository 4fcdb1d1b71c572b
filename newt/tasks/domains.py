"""The ten domains of MMBench."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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
