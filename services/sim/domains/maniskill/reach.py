"""Reach: PickCube's table and arm without the cube; the hand has to come to a point in the air."""

from __future__ import annotations

from typing import Any

import sapien
import torch
from mani_skill.envs.tasks.tabletop.pick_cube import PickCubeEnv
from mani_skill.utils.building import actors
from mani_skill.utils.scene_builder.table import TableSceneBuilder
from mani_skill.utils.structs.pose import Pose

_GOAL_HALF_WIDTH = 0.1  # Metres to each side of the origin.
_GOAL_MAX_HEIGHT = 0.3  # Metres above the table.
_GOAL_RADIUS = 0.025  # How close is close enough, and the size of the green ball.


class Reach(PickCubeEnv):  # type: ignore[misc]
    """Observes joints, hand pose, goal and the way to it; pays 1 + success − tanh(5 · distance), at most 2."""

    goal_site: Any

    def _load_scene(self, options: dict[str, Any]) -> None:
        self.table_scene = TableSceneBuilder(self, robot_init_qpos_noise=self.robot_init_qpos_noise)
        self.table_scene.build()
        self.goal_site = actors.build_sphere(
            self.scene,
            radius=_GOAL_RADIUS,
            color=[0, 1, 0, 1],
            name="goal_site",
            body_type="kinematic",
            add_collision=False,
            initial_pose=sapien.Pose(),
        )
        self._hidden_objects.append(self.goal_site)

    def _initialize_episode(self, env_idx: torch.Tensor, options: dict[str, Any]) -> None:
        with torch.device(self.device):
            self.table_scene.initialize(env_idx)
            goal = torch.rand((len(env_idx), 3))
            goal[:, :2] = (2 * goal[:, :2] - 1) * _GOAL_HALF_WIDTH
            goal[:, 2] *= _GOAL_MAX_HEIGHT
            self.goal_site.set_pose(Pose.create_from_pq(goal))

    def _get_obs_extra(self, info: dict[str, Any]) -> dict[str, Any]:
        goal = self.goal_site.pose.p
        return {
            "tcp_pose": self.agent.tcp_pose.raw_pose,
            "goal_pos": goal,
            "tcp_to_goal_pos": goal - self.agent.tcp_pose.p,
        }

    def evaluate(self) -> dict[str, Any]:
        """Success needs no standing still."""
        return {"success": self._distance() <= _GOAL_RADIUS}

    def compute_normalized_dense_reward(self, obs: Any, action: torch.Tensor, info: dict[str, Any]) -> Any:
        """Reward of one control step, (0, 2]."""
        return 1 + info["success"].float() - torch.tanh(5 * self._distance())

    def _distance(self) -> Any:
        return torch.linalg.norm(self.goal_site.pose.p - self.agent.tcp_pose.p, axis=1)
