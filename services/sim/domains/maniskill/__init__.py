"""ManiSkill3: 36 training and 11 held-out tasks of arms, a quadruped and classic bodies, on SAPIEN's PhysX.

Simulation runs on the CPU, one scene per instance. SAPIEN needs a Vulkan driver, also when nothing is drawn: the
GPU's, or a software one where there is no GPU (`vulkan`). Some tasks need downloaded meshes (`assets`). Tasks which
ManiSkill does not ship are in `reach`, `ycb` and `cartpole_sparse`.
"""

from __future__ import annotations

import functools
import logging
import warnings

import torch

from services.sim.domains.base import SimEnv


@functools.cache
def _prepare_process() -> None:
    """What must be settled once per process, before ManiSkill is imported."""
    from services.sim.domains.maniskill import vulkan

    vulkan.choose_driver()
    warnings.filterwarnings("ignore", message=".*precision lowered by casting")  # At every controller built.
    torch.set_num_threads(1)  # The tensors have a handful of entries, and other workers have the other cores.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SAPIEN says that it uses its own Vulkan loader, which is fine.
        import mani_skill
    mani_skill.logger.setLevel(logging.ERROR)  # Warnings about ManiSkill's own models, at every scene.
    vulkan.check_driver()


def make(task: str, rendering: bool) -> SimEnv:
    """Builds an instance of `ms-<name>`.

    Raises:
        RenderingError: No Vulkan driver; says how to install one.
        MissingAssetError: The task's meshes are not there; says how to download them.
    """
    _prepare_process()
    from services.sim.domains.maniskill.env import ManiSkillEnv

    return ManiSkillEnv(task, rendering)
