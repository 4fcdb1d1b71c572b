"""The same transitions in torchrl's replay buffer, in this process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def slice_buffer(obs: Tensor, action: Tensor, reward: Tensor, sequences: int, rows: int, *, cached: bool) -> Any:
    """Makes a buffer whose `sample()` returns slices of episodes.

    Args:
        obs: float32[E, T+1, O].
        action: float32[E, T, A].
        reward: float32[E, T].
        sequences: Slices per sample.
        rows: Rows per slice, H+1.
        cached: Keep the positions of all episodes between samples. Only a buffer that is not written to can do so;
            a run's online buffer is written to all the time.

    Returns:
        A torchrl.data.ReplayBuffer.
    """
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, ReplayBuffer
    from torchrl.data.replay_buffers.samplers import SliceSampler

    E, T1, _ = obs.shape
    storage = LazyTensorStorage(E * T1)
    # Rows as the published agent stores them: action and reward led to the observation of their row.
    first = torch.full((E, 1), torch.nan)
    content = TensorDict(
        {
            "obs": obs.flatten(0, 1),
            "action": torch.cat([first[..., None].expand(-1, -1, action.shape[2]), action], 1).flatten(0, 1),
            "reward": torch.cat([first, reward], 1).flatten(),
            "terminated": torch.zeros(E * T1, dtype=torch.bool),
            "task": torch.zeros(E * T1, dtype=torch.int32),
            "episode": torch.arange(E).repeat_interleave(T1),
        },
        batch_size=[E * T1],
    )
    sampler = SliceSampler(num_slices=sequences, traj_key="episode", strict_length=True, cache_values=cached)
    buffer = ReplayBuffer(storage=storage, sampler=sampler, batch_size=sequences * rows)
    buffer.extend(content)
    return buffer
