"""Builds ManiSkill environments: one to simulate, and one like it to draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mani_skill.envs import sapien_env
from mani_skill.utils.registration import REGISTERED_ENVS

from services.sim.domains.maniskill import assets
from services.sim.domains.maniskill.cartpole_sparse import CartpoleBalanceSparse, CartpoleSwingupSparse
from services.sim.domains.maniskill.reach import Reach
from services.sim.domains.maniskill.variants import VARIANTS
from services.sim.domains.maniskill.ycb import PickOneYcb, PushYcb

_OWN_CLASSES = {
    "reach": Reach,
    "pick-ycb": PickOneYcb,
    "push-ycb": PushYcb,
    "cartpole-balance-sparse": CartpoleBalanceSparse,
    "cartpole-swingup-sparse": CartpoleSwingupSparse,
}


def scene_class(task: str) -> Any:
    """Which of ManiSkill's environments, or of ours, a task is."""
    variant = VARIANTS[task]
    return REGISTERED_ENVS[variant.env_id].cls if variant.kind == "upstream" else _OWN_CLASSES[variant.kind]


def build_scene(task: str, device: Any = None, **kwargs: Any) -> Any:
    """A ManiSkill environment without any wrapper, for one instance on the CPU.

    Args:
        task: A key of `VARIANTS`.
        device: sapien.Device to draw on; None builds a scene that cannot be drawn.
        kwargs: More arguments of the environment.

    Raises:
        MissingAssetError: The task's meshes are not on this machine.
    """
    variant = VARIANTS[task]
    if variant.pack is not None:
        assets.require(task, variant.pack, variant.model_id)
    arguments = {
        "obs_mode": "state",
        "control_mode": variant.control,
        "robot_uids": variant.robot,
        "model_id": variant.model_id,
    }
    kwargs |= {name: value for name, value in arguments.items() if value is not None}
    with _drawing_on(device):
        # Not gymnasium's make: time limits are ours, and it would ask on the terminal for missing assets.
        return scene_class(task)(num_envs=1, sim_backend="physx_cpu", render_backend="none", **kwargs)


@contextmanager
def _drawing_on(device: Any) -> Iterator[None]:
    """Makes environments built meanwhile draw on this device.

    ManiSkill names devices by strings, and its parser has none for a device which is not CUDA's.
    """
    original = sapien_env.parse_sim_and_render_backend

    def parse(sim_backend: str, render_backend: str) -> Any:
        return dataclasses.replace(original(sim_backend, render_backend), render_device=device)

    sapien_env.parse_sim_and_render_backend = parse
    try:
        yield
    finally:
        sapien_env.parse_sim_and_render_backend = original
