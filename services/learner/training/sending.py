"""Training batches on their way to the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from newt.agent.batch import UpdateBatch, pad_rows
from newt.agent.devices import send
from newt.client.read_ahead import Batch
from newt.wire.episodes import Floats
from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM


def update_batch(received: Batch, device: torch.device) -> UpdateBatch:
    """Sends a batch to a device, and pads it there; nobody waits."""
    # NumPy does it in a third of the time on a CPU.
    padded = padded_by_numpy if device.type == "cpu" else padded_there
    obs, action, reward = padded(received, device)
    return UpdateBatch(
        obs=obs,
        action=action,
        reward=reward,
        terminated=send(torch.from_numpy(received.terminated), device),
        task=send(torch.from_numpy(received.task).long(), device),
        image=None if received.image is None else send(torch.from_numpy(received.image), device),
        demo=send(torch.from_numpy(received.demo), device),
    )


def padded_by_numpy(received: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Observations, actions and rewards of a batch, padded by the CPU, as in UpdateBatch."""
    obs, action, reward = (torch.from_numpy(values) for values in (received.obs, received.action, received.reward))
    return send(obs, device), send(action, device), send(reward, device)


def padded_there(received: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The same, padded by the device, to which a batch is sent as it came."""
    rows = received.rows
    starts, obs_dims, action_dims = send(
        torch.from_numpy(np.stack([rows.starts, rows.obs_dims, rows.action_dims])), device
    )
    return pad_rows(
        _staged(rows.values, device).to(device, non_blocking=True),
        starts,
        obs_dims,
        action_dims,
        horizon=rows.horizon,
        padded_obs_dim=PADDED_OBS_DIM,
        padded_action_dim=PADDED_ACTION_DIM,
    )


def _staged(values: Floats, device: torch.device) -> Tensor:
    """Copies what came, which is read-only, once: to where a GPU can fetch it from."""
    staged = torch.empty(values.shape, pin_memory=device.type == "cuda")
    np.copyto(staged.numpy(), values)
    return staged
