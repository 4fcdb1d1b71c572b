"""Cartpole with a reward of one while the pole is nearly upright and zero otherwise."""

from __future__ import annotations

from typing import Any

import torch
from mani_skill.envs.tasks.control.cartpole import CartpoleBalanceEnv, CartpoleSwingUpEnv

_MIN_UPRIGHT = 0.85  # Of (1 + cos θ) / 2, with θ = 0 upright: about 46 degrees.


class CartpoleBalanceSparse(CartpoleBalanceEnv):  # type: ignore[misc]
    """Starts upright."""

    def compute_normalized_dense_reward(self, obs: Any, action: torch.Tensor, info: dict[str, Any]) -> Any:
        """Reward of one control step, 0 or 1."""
        return _is_upright(self.pole_angle_cosine)


class CartpoleSwingupSparse(CartpoleSwingUpEnv):  # type: ignore[misc]
    """Starts hanging down."""

    def compute_normalized_dense_reward(self, obs: Any, action: torch.Tensor, info: dict[str, Any]) -> Any:
        """Reward of one control step, 0 or 1."""
        return _is_upright(self.pole_angle_cosine)


def _is_upright(cosine: Any) -> Any:
    return ((1 + cosine) / 2 > _MIN_UPRIGHT).float()
