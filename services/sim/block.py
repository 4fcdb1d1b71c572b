"""The memory that a session's handler and its workers share.

It is an anonymous memory file: it lives as long as somebody holds its descriptor, so that no kind of death of any
process leaves anything behind, and it does not count against the size of /dev/shm. Pages that nobody touches (the
frames of a state-only session) cost nothing.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from newt.wire.limits import PADDED_ACTION_DIM, PADDED_OBS_DIM
from services.sim.domains.base import FRAME_SIZE

_ALIGNMENT = 64
_FRAME = (FRAME_SIZE, FRAME_SIZE)


class SessionBlock:
    """Arrays of a session, one row per instance. A worker writes only the rows it owns.

    Args:
        rows: Number of instances N.
        descriptor: The memory file of an existing block; None makes a new one.

    Attributes:
        descriptor: The memory file.
        active: bool[N], in: rows that the next step, reset or drawing is for.
        action: float32[N, A], in.
        origin: uint64[N], in: seed from which the row's sequence of episodes is derived.
        next_episode: uint64[N]: position of the next episode in that sequence.
        reset_seed: uint64[N], in: seed for a reset where `reset_seeded` is set.
        reset_seeded: bool[N], in.
        obs: float32[N, O].
        rgb: uint8[N, 3, 224, 224].
        expert_action: float32[N, A].
        episode_seed: uint64[N].
        episode_step: int32[N].
        reward: float32[N], with `terminated`, `truncated`: bool[N], and `success`, `score`,
            `corrected_score`: float32[N].
        final_obs: float32[N, O], valid where an episode has just ended; `final_rgb` likewise.
        error: int32[N], an EnvError.
        not_finite: int32[N], episodes that ended, or could not begin, because a number was none, since the server last
            counted them.
        frames: uint8[N, 224, 224, 3]: what Render asked for.
    """

    def __init__(self, rows: int, descriptor: int | None = None) -> None:
        fields: list[tuple[str, type[np.generic], tuple[int, ...]]] = [
            ("active", np.bool_, ()),
            ("action", np.float32, (PADDED_ACTION_DIM,)),
            ("origin", np.uint64, ()),
            ("next_episode", np.uint64, ()),
            ("reset_seed", np.uint64, ()),
            ("reset_seeded", np.bool_, ()),
            ("obs", np.float32, (PADDED_OBS_DIM,)),
            ("expert_action", np.float32, (PADDED_ACTION_DIM,)),
            ("episode_seed", np.uint64, ()),
            ("episode_step", np.int32, ()),
            ("reward", np.float32, ()),
            ("terminated", np.bool_, ()),
            ("truncated", np.bool_, ()),
            ("success", np.float32, ()),
            ("score", np.float32, ()),
            ("corrected_score", np.float32, ()),
            ("final_obs", np.float32, (PADDED_OBS_DIM,)),
            ("error", np.int32, ()),
            ("not_finite", np.int32, ()),
            ("rgb", np.uint8, (3, *_FRAME)),
            ("final_rgb", np.uint8, (3, *_FRAME)),
            ("frames", np.uint8, (*_FRAME, 3)),
        ]
        layout: dict[str, tuple[int, tuple[int, ...], type[np.generic]]] = {}
        size = 0
        for name, dtype, extent in fields:
            shape = (rows, *extent)
            layout[name] = (size, shape, dtype)
            size += int(np.prod(shape)) * np.dtype(dtype).itemsize
            size += -size % _ALIGNMENT
        if descriptor is None:
            descriptor = os.memfd_create("newt-sim-session", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, size)

        def view(name: str) -> npt.NDArray[Any]:
            offset, shape, dtype = layout[name]
            return np.ndarray(shape, dtype, buffer=memory, offset=offset)

        self.active: npt.NDArray[np.bool_] = view("active")
        self.action: npt.NDArray[np.float32] = view("action")
        self.origin: npt.NDArray[np.uint64] = view("origin")
        self.next_episode: npt.NDArray[np.uint64] = view("next_episode")
        self.reset_seed: npt.NDArray[np.uint64] = view("reset_seed")
        self.reset_seeded: npt.NDArray[np.bool_] = view("reset_seeded")
        self.obs: npt.NDArray[np.float32] = view("obs")
        self.expert_action: npt.NDArray[np.float32] = view("expert_action")
        self.episode_seed: npt.NDArray[np.uint64] = view("episode_seed")
        self.episode_step: npt.NDArray[np.int32] = view("episode_step")
        self.reward: npt.NDArray[np.float32] = view("reward")
        self.terminated: npt.NDArray[np.bool_] = view("terminated")
        self.truncated: npt.NDArray[np.bool_] = view("truncated")
        self.success: npt.NDArray[np.float32] = view("success")
        self.score: npt.NDArray[np.float32] = view("score")
        self.corrected_score: npt.NDArray[np.float32] = view("corrected_score")
        self.final_obs: npt.NDArray[np.float32] = view("final_obs")
        self.error: npt.NDArray[np.int32] = view("error")
        self.not_finite: npt.NDArray[np.int32] = view("not_finite")
        self.rgb: npt.NDArray[np.uint8] = view("rgb")
        self.final_rgb: npt.NDArray[np.uint8] = view("final_rgb")
        self.frames: npt.NDArray[np.uint8] = view("frames")

    def close(self) -> None:
        """Gives up the descriptor. The memory goes when the last array and the last process have."""
        os.close(self.descriptor)
