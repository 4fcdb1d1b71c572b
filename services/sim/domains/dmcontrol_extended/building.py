"""What the modules of the bodies share: models of the suite to start from, tasks with another reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from dm_control.rl import control
from dm_control.suite import base, common

Reward = Callable[[Any], float]
"""From dm_control's physics after a control step to the reward for it, in [0, 1]."""


class OtherReward(base.Task):  # type: ignore[misc] # dm_control is untyped
    """A task of the suite with its start states and observations, and another reward."""

    def __init__(self, task: Any, reward: Reward) -> None:
        super().__init__(random=task.random)
        self._task, self._reward = task, reward

    def initialize_episode(self, physics: Any) -> None:
        """As in the suite's task."""
        self._task.initialize_episode(physics)

    def get_observation(self, physics: Any) -> Any:
        """As in the suite's task."""
        return self._task.get_observation(physics)

    def get_reward(self, physics: Any) -> float:
        """The other reward."""
        return self._reward(physics)


def suite_model(filename: str) -> ElementTree.Element:
    """A model of the suite, to be changed."""
    return ElementTree.fromstring(common.read_model(filename))


def element(model: ElementTree.Element, tag: str, name: str) -> ElementTree.Element:
    """The element of this name, for example `element(model, "geom", "floor")`.

    Raises:
        LookupError: The model has none: dm_control has changed it.
    """
    found = model.find(f".//{tag}[@name='{name}']")
    if found is None:
        raise LookupError(f"the suite's model {model.get('model')!r} has no {tag} named {name!r}")
    return found


def environment(physics: Any, model: ElementTree.Element, task: Any, control_timestep: float | None = None) -> Any:
    """An environment without a time limit: the length of an episode is not the simulator's business.

    Args:
        physics: A class of the suite with the quantities that the task asks for.
        model: MJCF; may include the suite's common materials, sky and lights.
        task: The suite's task or `OtherReward`.
        control_timestep: Seconds; None is the model's own time step.
    """
    xml = ElementTree.tostring(model, encoding="unicode")
    return control.Environment(physics.from_xml_string(xml, common.ASSETS), task, control_timestep=control_timestep)


def height(physics: Any, body: str) -> float:
    """World height of a body's frame, metres. It lies at the joint's end of the body."""
    return float(physics.named.data.xpos[body, "z"])
