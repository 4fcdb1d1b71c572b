"""What a world model expects, to be held against what comes: the value of a state, and an unroll without feedback."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from newt.agent.inference import InferenceModel


@dataclass(frozen=True)
class Imagined:
    """What is expected of T steps from one observation on.

    Attributes:
        action: float32[B, T, A] that are imagined.
        reward: float32[B, T] of each of them.
        value: float32[B, T] of the latent that each leads to, as `state_value`.
    """

    action: Tensor
    reward: Tensor
    value: Tensor


@torch.inference_mode()
def state_value(model: InferenceModel, obs: Tensor, task: Tensor, image: Tensor | None = None) -> Tensor:
    """The mean of all critics for the policy's action, Q(z, p(z)): float32[B].

    Args:
        model: An agent with a world model.
        obs: float32[B, O].
        task: int64[B], rows of the task table.
        image: float32[B, X] image features, for models that take them.
    """
    terms, z = model.task_terms(task), model.encode(obs, task, image)
    return model.mean_value(terms, z, model.policy(terms, z, None)).squeeze(1)


@torch.inference_mode()
def imagine(
    model: InferenceModel,
    obs: Tensor,
    task: Tensor,
    steps: int,
    actions: Tensor | None = None,
    image: Tensor | None = None,
) -> Imagined:
    """Unrolls the world model open loop: only the first observation is seen.

        z_0 = h(s),  r_t = R(z_t, a_t),  z_{t+1} = d(z_t, a_t),  v_t = Q(z_{t+1}, p(z_{t+1}))

    Args:
        model: An agent with a world model.
        obs: float32[B, O].
        task: int64[B].
        steps: T.
        actions: float32[B, T, A] to take, such as a plan's sequence; None: those of the policy in imagination.
        image: float32[B, X] image features, for models that take them.
    """
    terms, z = model.task_terms(task), model.encode(obs, task, image)
    policy = model.policy(terms, z, None)
    taken, rewards, values = [], [], []
    for t in range(steps):
        taken.append(policy if actions is None else actions[:, t, None])
        z, reward = model.step(terms, z, taken[-1])
        policy = model.policy(terms, z, None)
        rewards.append(reward)
        values.append(model.mean_value(terms, z, policy))
    return Imagined(torch.cat(taken, 1), torch.cat(rewards, 1), torch.cat(values, 1))
