"""Cartpole: balancing a longer pole, or two poles end to end, for the suite's cart."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from dm_control.suite import cartpole

from services.sim.domains.dmcontrol_extended.building import element, environment, suite_model


def _build(model: ElementTree.Element) -> Any:
    return environment(cartpole.Physics, model, cartpole.Balance(swing_up=False, sparse=True))


def _long_pole() -> Any:
    model = suite_model("cartpole.xml")
    pole = element(model, "geom", "pole_1")
    pole.set("fromto", "0 0 0 0 0 1.5")
    pole.set("mass", ".2")
    return _build(model)


def _two_poles() -> Any:
    xml, _ = cartpole.get_model_and_assets(num_poles=2)
    return _build(ElementTree.fromstring(xml))


TASKS = {
    "cartpole-balance-long-sparse": _long_pole,
    "cartpole-balance-two-poles-sparse": _two_poles,
}
"""By task name."""
