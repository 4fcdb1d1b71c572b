"""Sizes that all parts agree on. Pure numbers: anybody may import this module.

A service refuses what exceeds them, and whoever accepts something for a service checks by the same numbers.
"""

from __future__ import annotations

import re

PADDED_OBS_DIM = 128
"""State observations are zero-padded to this width at the edge of the agent."""
PADDED_ACTION_DIM = 16
"""Actions are zero-padded to this width at the edge of the agent."""
MAX_IMAGE_DIM = 65_536
"""Columns of image features."""
MAX_HORIZON = 64
"""Steps of a planned or trained sequence."""
MAX_CAPACITY_ROWS = 2**48
"""Rows of a replay buffer. Its scripts count in doubles, so sums of such numbers must stay below `MAX_COUNT`."""
MAX_COUNT = 2**53
"""Steps, updates and other counters: what a double, and so JSON and Redis' scripts, hold exactly."""
MAX_RATIO = 1e6
"""Updates per environment step: its product with a count of steps stays far from what a double can hold."""
MAX_SHARDS = 1024
"""Replay services that one buffer is spread over."""
MAX_ENCODER_NAME = 128
"""Bytes of an image encoder's identity."""
MAX_MESSAGE_BYTES = 128 * 1024 * 1024
"""One gRPC message. Larger than any that we send (a 512-row RGB step is 77 MB), finite on both ends."""
MAX_BATCH_BYTES = MAX_MESSAGE_BYTES * 9 // 10
"""Training sequences of one reply of replay; what frames them takes the rest of the message."""
MAX_MODEL_BYTES = 1024 * 1024 * 1024
"""One model's weights: twice the largest published model with its target critics in float32."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""Names of tasks, buffers and demonstration sets."""
MODEL_ID = re.compile(r"[A-Za-z0-9._@-]{1,128}")
"""What planners and the weights hub call a model."""
EPISODE_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
"""Names of episodes within a buffer or demonstration set."""


def batch_bytes(sequences: int, horizon: int, columns: int) -> int:
    """Size of training sequences, each of `horizon` + 1 rows.

    Args:
        sequences: How many.
        horizon: Transitions of each.
        columns: Entries of observation, action and image features in a row.
    """
    return sequences * (horizon + 1) * (4 * (columns + 1) + 1)  # reward as float32, the end of the task as a byte
