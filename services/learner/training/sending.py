"""Training batches on their way to the device."""

from __future__ import annotations

import numpy as np
import torch

from newt.agent.batch import UpdateBatch, pad_rows
from newt.agent.devices import send
from newt.client.read_ahead import Batch
from newt.wire.episodes import Floats
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM


def update_batch(received: Batch, device: torch.device) -> UpdateBatch:
    """Sends a batch to a device as it came, without padding, and pads it there; nobody waits."""
    rows = received.rows
    layout = np.stack([rows.starts, rows.obs_dims, rows.action_dims, received.task])
    starts, obs_dims, action_dims, task = send(torch.from_numpy(layout), device)
    obs, action, reward = pad_rows(
        _staged(rows.values, device).to(device, non_blocking=True),
        starts,
        obs_dims,
        action_dims,
        horizon=rows.horizon,
        padded_obs_dim=PADDED_OBS_DIM,
        padded_action_dim=PADDED_ACTION_DIM,
    )
    return UpdateBatch(
        obs=obs,
        action=action,
        reward=reward,
        terminated=send(torch.from_numpy(received.terminated), device),
        task=task.clone(),  # not a view: the code of updates is made for a tensor of its own
        image=None if received.image is None else send(torch.from_numpy(received.image), device),
    )


def _staged(values: Floats, device: torch.device) -> torch.Tensor:
    """Copies what came, which is read-only, once: to where a GPU can fetch it from."""
    staged = torch.empty(values.shape, pin_memory=device.type == "cuda")
    np.copyto(staged.numpy(), values)
    return staged
