"""Tasks with one object of the YCB set: picking it up, and pushing it."""

from __future__ import annotations

from typing import Any

import numpy as np
import sapien
from mani_skill.envs.tasks.tabletop.pick_single_ycb import PickSingleYCBEnv
from mani_skill.envs.tasks.tabletop.push_cube import PushCubeEnv
from mani_skill.utils.building import actors
from mani_skill.utils.scene_builder.table import TableSceneBuilder


class PickOneYcb(PickSingleYCBEnv):  # type: ignore[misc]
    """ManiSkill's picking task with always the same object.

    Args:
        model_id: The object's folder in the YCB pack.
    """

    def __init__(self, *, model_id: str, **kwargs: Any) -> None:
        self._model_id = model_id
        super().__init__(**kwargs)

    def _load_scene(self, options: dict[str, Any]) -> None:
        self.all_model_ids = np.array([self._model_id])
        super()._load_scene(options)


class PushYcb(PushCubeEnv):  # type: ignore[misc]
    """ManiSkill's pushing task with an object of the YCB set in the cube's place.

    The object drops from 4 cm, the hand aims 4.5 cm behind its origin, and success needs the origin below 4.5 cm:
    what stands higher, like the soup can, must be tipped over.

    Args:
        model_id: The object's folder in the YCB pack.
    """

    cube_half_size = 0.04  # Metres; stands for all objects, however large they are.

    def __init__(self, *, model_id: str, **kwargs: Any) -> None:
        self._model_id = model_id
        super().__init__(**kwargs)

    def _load_scene(self, options: dict[str, Any]) -> None:
        self.table_scene = TableSceneBuilder(self, robot_init_qpos_noise=self.robot_init_qpos_noise)
        self.table_scene.build()
        builder = actors.get_actor_builder(self.scene, id=f"ycb:{self._model_id}")
        builder.initial_pose = sapien.Pose(p=[0, 0, self.cube_half_size])
        self.obj = builder.build(name=self._model_id)
        self.goal_region = actors.build_red_white_target(
            self.scene,
            radius=self.goal_radius,
            thickness=1e-5,
            name="goal_region",
            add_collision=False,
            body_type="kinematic",
            initial_pose=sapien.Pose(p=[0, 0, 1e-3]),
        )
