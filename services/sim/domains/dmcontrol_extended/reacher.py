"""Reacher with three links: the suite's arena and target with an arm of ours."""

from __future__ import annotations

from functools import partial
from typing import Any
from xml.etree import ElementTree

from dm_control.suite import reacher

from services.sim.domains.dmcontrol_extended.building import element, environment, suite_model

_LINK_LENGTH = 0.09
_HAND_LENGTH = 0.1  # Longer than its link: it sticks out beyond the finger's centre.
_JOINT_RANGE = "-80 80"
_TARGET_RADIUS = {"easy": 0.05, "hard": 0.015}


def _model() -> ElementTree.Element:
    model = suite_model("reacher.xml")
    base = element(model, "body", "arm")
    base.remove(element(base, "body", "hand"))
    motors = model.find("actuator")
    assert motors is not None
    motors.clear()

    def add_link(body: ElementTree.Element, name: str, length: float, joint: dict[str, str]) -> None:
        ElementTree.SubElement(body, "joint", {"name": name, **joint})
        capsule = {"type": "capsule", "fromto": f"0 0 0 {length} 0 0", "size": ".01", "material": "self"}
        ElementTree.SubElement(body, "geom", {"name": name, **capsule})
        ElementTree.SubElement(motors, "motor", {"name": name, "joint": name})

    def add_body(parent: ElementTree.Element, name: str) -> ElementTree.Element:
        return ElementTree.SubElement(parent, "body", {"name": name, "pos": f"{_LINK_LENGTH} 0 0"})

    for child in list(base):
        base.remove(child)
    limits = {"limited": "true", "range": _JOINT_RANGE}
    add_link(base, "base", _LINK_LENGTH, {})
    middle = add_body(base, "middle")
    add_link(middle, "middle", _LINK_LENGTH, limits)
    hand = add_body(middle, "hand")
    add_link(hand, "hand", _HAND_LENGTH, limits)
    finger = add_body(hand, "finger")
    ElementTree.SubElement(finger, "geom", {"name": "finger", "type": "sphere", "size": ".01", "material": "effector"})
    return model


def _build(size: str) -> Any:
    return environment(reacher.Physics, _model(), reacher.Reacher(target_size=_TARGET_RADIUS[size]))


TASKS = {
    "reacher-three-easy": partial(_build, "easy"),
    "reacher-three-hard": partial(_build, "hard"),
}
"""By task name."""
