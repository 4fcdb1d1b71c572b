"""Box2D: a two-legged walker on five terrains, and a rocket lander with three tasks."""

from __future__ import annotations

import os

from services.sim.domains.base import SimEnv


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance. Drawing needs no driver and is loaded at the first frame, or now if `rendering`."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # It greets on stdout when it is imported.
    env: SimEnv
    if task.startswith("bipedal-walker-"):
        from services.sim.domains.box2d.walker import WalkerEnv

        env = WalkerEnv(task)
    else:
        from services.sim.domains.box2d.lander import LanderEnv

        env = LanderEnv(task)
    if rendering:
        import services.sim.domains.box2d.drawing  # noqa: F401 - loads pygame, or says that it is not there
    return env
