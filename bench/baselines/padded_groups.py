"""Padding a batch that came as one message per task, one task after the other: as clients did before packed replies."""

from __future__ import annotations

from typing import Any

import numpy as np

from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from newt.wire.tensors import decode
from newt.wire.v1 import replay_pb2


def padded(response: replay_pb2.SampleResponse, horizon: int, sequences: int) -> tuple[np.ndarray[Any, Any], ...]:
    """Reads a reply in groups.

    Args:
        response: The reply.
        horizon: H.
        sequences: B.

    Returns:
        obs float32[H+1, B, 128], action float32[H, B, 16], reward float32[H, B], terminated bool[H, B], task int32[B]
        and demo bool[B].
    """
    obs = np.zeros((horizon + 1, sequences, PADDED_OBS_DIM), np.float32)
    action = np.zeros((horizon, sequences, PADDED_ACTION_DIM), np.float32)
    reward = np.empty((horizon, sequences), np.float32)
    terminated = np.zeros((horizon, sequences), np.bool_)
    task, demo = np.empty(sequences, np.int32), np.zeros(sequences, np.bool_)
    low = 0
    for group in response.groups:
        rewards = decode(group.reward, "reward", dtype="f4", shape=[None, horizon])
        n = len(rewards)
        part = slice(low, low + n)
        observed = decode(group.obs, "obs", dtype="f4", shape=[n, horizon + 1, None])
        acted = decode(group.action, "action", dtype="f4", shape=[n, horizon, None])
        obs[:, part, : observed.shape[2]] = observed.swapaxes(0, 1)
        action[:, part, : acted.shape[2]] = acted.swapaxes(0, 1)
        reward[:, part] = rewards.T
        if group.HasField("terminated"):
            terminated[:, part] = decode(group.terminated, "terminated", dtype="?", shape=[n, horizon]).T
        task[part] = group.task_index
        demo[low : low + group.demo_count] = True
        low += n
    return obs, action, reward, terminated, task, demo
